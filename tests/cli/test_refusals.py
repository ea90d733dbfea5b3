"""One line, status 2 and no file for every input and every use of a command that makes no sense."""

import numpy as np
import pytest
import torch
from astropy.io import fits
from command import assert_refused, python, run, tree

import ooftorch

GOOD_TOML = """
[observation]
telescope = "paper"
frequency_hz = 272e9
sky = "telescope"
[[map]]
file = "a.txt"
dz_m = 0.0
[[map]]
file = "a.txt"
dz_m = 0.01
"""

GOOD_TELESCOPE = """
radius_m = 2.8
[optics]
type = "prime-focus"
focal_length_m = 14.4
"""


def changed(change):
    """A way to spoil obs.fits: `change` gets its HDUs and may return others."""

    def spoil(folder):
        with fits.open(folder / "obs.fits", memmap=False) as hdus:
            spoiled = change(hdus) or hdus
            fits.HDUList([hdu.copy() for hdu in spoiled]).writeto(folder / "bad.fits")
        return "bad.fits"

    return spoil


def header(**values):
    return changed(lambda hdus: hdus[0].header.update(values))


def column(name, values):
    def change(hdus):
        hdus[2].data[name][values] = np.nan if name == "FNU" else 0.0

    return changed(change)


def as_images(change):
    """The same maps as images, spoiled."""

    def spoil(folder):
        hdus = fits.HDUList([fits.PrimaryHDU(header=fits.Header({"WAVEL": 1.1e-3}))])
        for m in ooftorch.read(folder / "obs.fits").maps:
            hdus.append(fits.ImageHDU(m.power.reshape(11, 11)))
            hdus[-1].header.update(
                DZ=m.dz, CRPIX1=6, CRPIX2=6, CDELT1=1e-4, CDELT2=1e-4, CUNIT1="rad", CUNIT2="rad"
            )
        change(hdus)
        hdus.writeto(folder / "bad.fits")
        return "bad.fits"

    return spoil


def content(data):
    def spoil(folder):
        (folder / "bad.fits").write_bytes(data(folder) if callable(data) else data)
        return "bad.fits"

    return spoil


def toml(old, new):
    def spoil(folder):
        x, y = np.meshgrid(np.linspace(-1e-3, 1e-3, 5), np.linspace(-1e-3, 1e-3, 5))
        np.savetxt(folder / "a.txt", np.stack([x, y, np.exp(-1e6 * (x**2 + y**2))]).reshape(3, -1).T)
        assert old in GOOD_TOML
        (folder / "bad.toml").write_text(GOOD_TOML.replace(old, new))
        return "bad.toml"

    return spoil


def without(hdus, name):
    """The file with one column less in its second map."""
    columns = [c for c in hdus[2].columns if c.name != name]
    spoiled = fits.BinTableHDU.from_columns(columns)
    spoiled.header["DZ"] = hdus[2].header["DZ"]
    return [hdus[0], hdus[1], spoiled, hdus[3]]


def same_dz(hdus):
    for hdu in hdus[1:]:
        hdu.header["DZ"] = 0.005


def no_dz(hdus):
    del hdus[3].header["DZ"]


def nine_samples(hdus):
    hdus[3].data["FNU"][9:] = np.nan


OBSERVATIONS = {
    "a missing file": (lambda folder: "nothing.fits", "nothing.fits: no such file"),
    "a name too long": (lambda folder: 300 * "a", "a: (File name too long; give another|cannot be read)"),
    "a directory": (lambda folder: ".", "is a directory; name a file"),
    "an empty file": (content(b""), r"bad.fits: .*expected \[observation\]"),
    "not FITS: text": (content(b"1 2 three\n"), "bad.fits: a text file.*write an observation .toml"),
    "not FITS: binary": (
        content(bytes(range(256)) * 20),
        "bad.fits: neither a FITS file .* nor text; give one",
    ),
    "truncated FITS: data": (
        content(lambda folder: (folder / "obs.fits").read_bytes()[:-5000]),
        "bad.fits: truncated or damaged FITS.*copy it again",
    ),
    "truncated FITS: header": (
        content(lambda folder: (folder / "obs.fits").read_bytes()[:1000]),
        "bad.fits: truncated or damaged FITS.*copy it again",
    ),
    "FITS without maps": (changed(lambda hdus: hdus[:1]), "bad.fits: no beam maps .*expected tables with DX"),
    "no DZ": (changed(no_dz), "HDU 3 has no DZ; add"),
    "no DZ: images": (
        as_images(lambda hdus: [hdu.header.remove("DZ") for hdu in hdus[1:]]),
        "no DZ in any of its 3 images; add",
    ),
    "one map only": (changed(lambda hdus: hdus[:2]), "number of maps is 1; at least two"),
    "one map only: image": (
        as_images(lambda hdus: [hdus.pop(), hdus.pop()]),
        "number of maps is 1; at least",
    ),
    "all maps at one dz": (changed(same_dz), r"all 3 maps are at dz \+5 mm; at least two different"),
    "frequency zero": (header(FREQ=0.0), "FREQ is 0; it must be positive"),
    "frequency negative": (header(FREQ=-1e9), r"FREQ is -1e\+09; it must be positive"),
    "frequency not a number": (header(FREQ="high"), "FREQ is 'high'; expected a number"),
    "wavelength zero": (as_images(lambda hdus: hdus[0].header.update(WAVEL=0.0)), "WAVEL is 0; it must be"),
    "wavelength negative": (
        as_images(lambda hdus: hdus[0].header.update(WAVEL=-1e-3)),
        "WAVEL is -0.001; it must be positive",
    ),
    "frequency zero: toml": (toml("272e9", "0"), "frequency_hz is 0; it must be positive"),
    "frequency negative: toml": (toml("272e9", "-1"), "frequency_hz is -1; it must be positive"),
    "all samples NaN": (column("FNU", slice(None)), r"map 2 of 3 \(dz \+0 mm\): all 121 samples are missing"),
    "errors of zero": (column("UFNU", slice(None)), "map 2 of 3 .*121 of 121 errors .*are zero"),
    "one error of zero": (column("UFNU", slice(7, 8)), "map 2 of 3 .*1 of 121 errors .*; mark those samples"),
    "a column missing: DX": (changed(lambda h: without(h, "DX")), "HDU 2 has columns DY, FNU.*DX missing"),
    "a column missing: FNU": (changed(lambda h: without(h, "FNU")), "HDU 2 .*FNU missing: every map needs"),
    "fewer than ten samples": (
        changed(nine_samples),
        "map 3 of 3 .*: 9 valid samples; at least 10 are needed",
    ),
    "misspelt key: observation": (toml("frequency_hz", "freqency_hz"), "key freqency_hz; did you mean freq"),
    "misspelt key: map": (
        toml("dz_m = 0.01", "dz = 0.01"),
        r"\[\[map\]\] 2: unknown key dz; did you mean dz_m",
    ),
    "misspelt table": (toml("[observation]", "[observatoin]"), r"expected \[observation\]"),
    "not TOML": (toml("= 272e9", "= 272 GHz"), "bad.toml: not valid TOML"),
    "map's file missing": (toml('"a.txt"', '"b.txt"'), "b.txt: no such file"),
}


@pytest.mark.parametrize("command", ["fit", "info"])
@pytest.mark.parametrize("case", OBSERVATIONS)
def test_an_observation_that_cannot_be_used(folder, case, command):
    spoil, message = OBSERVATIONS[case]
    name = spoil(folder)
    before = tree(folder)
    assert_refused(run(folder, command, name), message)
    assert tree(folder) == before


def telescope_toml(old, new):
    def make(folder):
        assert old in GOOD_TELESCOPE
        (folder / "my.toml").write_text(GOOD_TELESCOPE.replace(old, new))
        return "my.toml"

    return make


def nothing(folder):
    """No file beside obs.fits."""


def full_directory(folder):
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")


def a_file(folder):
    (folder / "out").write_text("mine")


# What is made beside obs.fits; arguments of `fit` after it, or all where they begin with a command; the line.
USES = {
    "unknown telescope": (nothing, "obs.fits --telescope efelsberg", "'efelsberg'; nearest: effelsberg"),
    "unknown telescope in the file": (
        header(TELESC="srt-shapd"),
        "bad.fits",
        "'srt-shapd'; nearest: srt-shaped",
    ),
    "a telescope like no other": (
        nothing,
        "obs.fits --telescope xyzzy",
        "'xyzzy'; known: aca7m, alma,.* vlba",
    ),
    "telescope not named": (
        changed(lambda hdus: hdus[0].header.remove("TELESC")),
        "bad.fits",
        "bad.fits does not name its telescope; give one of aca7m, .* or a TOML file",
    ),
    "telescope not named: toml": (
        toml('telescope = "paper"\n', ""),
        "bad.toml",
        "does not name its telescope",
    ),
    "telescope's file missing": (
        nothing,
        "obs.fits --telescope my.toml",
        "cannot read my.toml: No such file",
    ),
    "telescope's file not TOML": (
        telescope_toml("= 2.8", "= 2.8 m"),
        "obs.fits --telescope my.toml",
        "my.toml is not TOML",
    ),
    "telescope's misspelt key": (
        telescope_toml("radius_m", "raduis_m"),
        "obs.fits --telescope my.toml",
        "my.toml has no key 'raduis_m'; did you mean 'radius_m'",
    ),
    "telescope's misspelt key in a table": (
        telescope_toml("focal_length_m", "focal_lenght_m"),
        "obs.fits --telescope my.toml",
        r"my.toml: \[optics\] has no key 'focal_lenght_m'; did you mean 'focal_length_m'",
    ),
    "telescope's radius negative": (
        telescope_toml("2.8", "-2.8"),
        "obs.fits --telescope my.toml",
        "radius_m = -2.8; expected a positive number",
    ),
    "a frequency far too high": (
        header(FREQ=272e14),
        "bad.fits",
        "beams of paper; check the map's units, the frequency and the telescope",
    ),
    # Order 25 has 351 terms and there are 363 samples; order 26 has 378.
    "order too high": (
        nothing,
        "obs.fits --order 26",
        "order 26 has 377 coeff.* 363 valid samples; choose a lower",
    ),
    "order too high, with the rest": (
        column("FNU", slice(110, 121)),
        "bad.fits --order 25",
        "order 25, but only 352 valid samples; choose a lower",
    ),
    "order zero": (nothing, "obs.fits --order 0", "order 0; the lowest .* is 1"),
    "order negative": (nothing, "obs.fits --order -2", "order -2; the lowest .* is 1"),
    "order not a number": (nothing, "obs.fits --order five", "order 'five'; expected a whole number"),
    "order not whole": (nothing, "obs.fits --order 2.5", "order '2.5'; expected a whole number"),
    "unknown likelihood": (nothing, "obs.fits --likelihood cauhcy", "'cauhcy'; known are auto, cauchy"),
    "unknown illumination": (nothing, "obs.fits --illumination flat", "'flat'; known are gaussian, pedestal"),
    "unknown device": (
        nothing,
        "obs.fits --device toaster",
        "unknown device 'toaster'; use auto, cpu or cuda",
    ),
    "unknown --free": (nothing, "obs.fits --free gian", "no parameter 'gian'; did you mean gain"),
    "unknown --fix": (nothing, "obs.fits --fix sigam=0.5", "no parameter 'sigam'; did you mean sigma"),
    "--fix of a coefficient beyond the order": (
        nothing,
        "obs.fits --order 1 --fix z3=1",
        "no parameter 'z3'",
    ),
    "--fix without a value": (nothing, "obs.fits --fix sigma", "--fix 'sigma'; expected NAME=VALUE"),
    "--fix without a name": (nothing, "obs.fits --fix =0.5", "--fix '=0.5'; expected NAME=VALUE"),
    "--fix of a word": (nothing, "obs.fits --fix sigma=wide", "--fix 'sigma=wide'; expected NAME=VALUE"),
    "--fix at infinity": (nothing, "obs.fits --fix z1=inf", "--fix 'z1=inf'; expected NAME=VALUE"),
    "--fix at no number": (nothing, "obs.fits --fix z1=nan", "--fix 'z1=nan'; expected NAME=VALUE"),
    "--fix of a positive parameter": (
        nothing,
        "obs.fits --fix sigma=-0.5",
        "sigma is positive by nature, not -0.5",
    ),
    "--out not empty": (full_directory, "obs.fits --out out", "out exists and is not empty; .*--overwrite"),
    "--out a file": (a_file, "obs.fits --out out --overwrite", "out is a file; give a directory"),
    "--out in no directory": (nothing, "obs.fits --out no/out", "no: no such directory; make it first"),
    "--out in a file": (nothing, "obs.fits --out obs.fits/out", "obs.fits: no such directory"),
    "unknown option": (nothing, "obs.fits --ordr 3", "--ordr.*ooftorch fit --help"),
    "no observation": (nothing, "fit", "Missing argument 'OBS'.*ooftorch fit --help"),
    "two observations": (nothing, "obs.fits obs.fits", r"unexpected extra argument \(obs.fits\)"),
    "unknown command": (nothing, "fti obs.fits", "No such command 'fti'.*ooftorch --help"),
    "telescopes: unknown": (nothing, "telescopes gtb", "'gtb'; nearest: gbt"),
    "telescopes: no file": (nothing, "telescopes my.toml", "cannot read my.toml"),
    "plot: missing file": (nothing, "plot nothing.fits", "nothing.fits: no such file"),
    "plot: directory without a fit": (full_directory, "plot out", "out/fit.fits: no such file"),
    "plot: not FITS": (a_file, "plot out", "out: not a FITS file; expected the fit.fits"),
    "plot: not a fit": (nothing, "plot obs.fits", "obs.fits: not the result of a fit"),
    "plot: of what": (nothing, "plot obs.fits --what phase", "'phase' is not one of .*aperture.*beams"),
}


@pytest.mark.parametrize("case", USES)
def test_a_use_that_is_refused(folder, case):
    make, arguments, message = USES[case]
    make(folder)
    arguments = arguments.split()
    if arguments[0].endswith((".fits", ".toml")):
        arguments.insert(0, "fit")
    before = tree(folder)
    assert_refused(run(folder, *arguments), message)
    assert tree(folder) == before


def test_cuda_where_there_is_none(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = tree(folder)
    assert_refused(
        run(folder, "fit", "obs.fits", "--device", "cuda"), "torch sees no CUDA device here; use cpu"
    )
    assert tree(folder) == before


def test_a_misspelt_key_in_the_telescope_that_a_toml_names(folder):
    telescope_toml("radius_m", "raduis_m")(folder)
    toml('"paper"', '"my.toml"')(folder)
    before = tree(folder)
    assert_refused(run(folder, "fit", "bad.toml"), "my.toml has no key 'raduis_m'; did you mean 'radius_m'")
    assert tree(folder) == before


def test_the_files_that_are_spoiled_are_good_before(folder):
    """Otherwise the refusals above might be of something else."""
    assert run(folder, "info", toml("paper", "paper")(folder)).status == 0
    assert run(folder, "info", as_images(lambda hdus: None)(folder)).status == 0
    (folder / "bad.fits").unlink()
    assert run(folder, "info", changed(lambda hdus: None)(folder)).status == 0
    assert run(folder, "telescopes", telescope_toml("2.8", "2.8")(folder)).status == 0


@pytest.mark.slow
def test_a_bad_input_as_the_user_meets_it(folder):
    """In a process of its own, where warnings would be seen and no test catches a traceback."""
    name = OBSERVATIONS["truncated FITS: data"][0](folder)
    before = tree(folder)
    assert_refused(
        python(folder, "-m", "ooftorch", "fit", name), "truncated or damaged FITS file.*copy it again"
    )
    assert tree(folder) == before
