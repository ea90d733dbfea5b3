"""`ooftorch telescopes`: the list, and one of them."""

from command import run

from ooftorch.optics import telescopes


def test_telescopes(folder):
    ran = run(folder, "telescopes")
    names = [row.split()[0] for row in ran.out.splitlines()]
    assert names == telescopes.names()
    assert {"gbt", "gbt90", "effelsberg", "srt", "alma", "aca7m", "apex", "jcmt", "vla", "vlba"} <= set(names)
    one = run(folder, "telescopes", "SRT")
    assert (one.status, one.err) == (0, "")
    assert one.out.startswith("srt: Sardinia")
    assert "radius         32.004 m" in one.out
