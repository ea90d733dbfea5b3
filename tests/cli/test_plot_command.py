"""`ooftorch plot`: the pictures of a stored fit."""

import pytest
from command import assert_refused, run, tree


@pytest.mark.parametrize("what", ["aperture", "beams"])
def test_plot_draws_the_result_again(written, tmp_path, what):
    """From the directory or from its file, the same picture as the fit made, and not over another."""
    fitted = written[0] / "obs-oof-001"
    source = fitted if what == "aperture" else fitted / "fit.fits"
    ran = run(tmp_path, "plot", source, "--what", what)
    assert (ran.status, ran.err) == (0, "")
    picture = tmp_path / f"{what}.png"
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]
    assert picture.read_bytes() == (fitted / picture.name).read_bytes()

    picture.write_text("old")
    assert_refused(run(tmp_path, "plot", source, "--what", what), f"{what}.png exists; .*--overwrite")
    assert picture.read_text() == "old"


def test_plot_where_it_is_told(written, tmp_path):
    fitted = written[0] / "obs-oof-001"
    (tmp_path / "p.svg").write_text("old")
    assert run(tmp_path, "plot", fitted, "--out", "p.svg", "--overwrite").status == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    before = tree(tmp_path)
    assert_refused(run(tmp_path, "plot", fitted, "--out", "p.docx"), "no picture format 'docx'")
    assert_refused(run(tmp_path, "plot", fitted, "--out", "no/p.png"), "no: no such directory")
    assert tree(tmp_path) == before
