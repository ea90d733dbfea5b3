"""`ooftorch info`: what an observation holds."""

import math

from astropy.io import fits
from command import run, tree

from ooftorch.units import SPEED_OF_LIGHT


def test_info(folder, observation):
    before = tree(folder)
    ran = run(folder, "info", "obs.fits")
    assert (ran.status, ran.err) == (0, "")
    words = ran.out.split()
    for word in ("paper", "3C", "2020-02-03,", "45.0"):
        assert word in words
    assert f"{SPEED_OF_LIGHT / 1.1e-3 / 1e9:.6g} GHz (wavelength 1.1 mm)" in ran.out
    rows = [row.split() for row in ran.out.splitlines() if row.split()[0].isdigit()]
    assert [(row[1], row[2], row[3], " ".join(row[4:7])) for row in rows] == [
        (dz, "121", "0", "11 x 11") for dz in ("-50.00", "+0.00", "+50.00")
    ]
    assert f"{1.1e-3 / 5.6 * 180 / math.pi * 3600:.2f} arcsec" in ran.out
    assert tree(folder) == before


def test_info_on_an_unknown_telescope_still_says_what_the_file_holds(folder):
    fits.setval(folder / "obs.fits", "TELESC", value="srt-shapd")
    ran = run(folder, "info", "obs.fits")
    assert ran.status == 0
    assert "nearest: srt-shaped" in ran.out
    assert ran.out.count(" 121 ") == 3
