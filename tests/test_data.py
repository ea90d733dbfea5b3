"""The example in data/ is what its script makes, and the notebooks run."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_example_is_made_by_its_script(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_data.py"), str(tmp_path)], check=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["gbt_3mm.fits", "gbt_3mm_truth.json"]
    truth, kept = ((folder / made[1]).read_bytes() for folder in (tmp_path, ROOT / "data"))
    assert truth == kept
    with fits.open(tmp_path / made[0]) as new, fits.open(ROOT / "data" / made[0]) as old:
        assert [hdu.header for hdu in new] == [hdu.header for hdu in old]
        for ours, theirs in zip(new[1:], old[1:], strict=True):
            if ours.is_image:
                assert_same_but_for_rounding(ours.data, theirs.data, UNITS[ours.name])
                continue
            for name in ours.columns.names:
                assert_same_but_for_rounding(ours.data[name], theirs.data[name], UNITS.get(name))


# What the script rounds to.
UNITS = {"DX": 1e-9, "DY": 1e-9, "FNU": 1e-6, "UFNU": 1e-6, "TIME": 1e-3, "TRUTH_PHASE": 1e-9}


def assert_same_but_for_rounding(ours, theirs, unit):
    """Another processor's last digit, 1e-16, puts a number in a million across its rounding."""
    if unit is None:
        np.testing.assert_array_equal(ours, theirs)
        return
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1.001 * unit)
    moved = ~np.isclose(ours, theirs, rtol=0, atol=0.5 * unit, equal_nan=True)
    assert moved.sum() <= 2


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    """Each runs from top to bottom, and is stored without what it printed."""
    nbformat = pytest.importorskip("nbformat", reason="the extra 'notebooks' is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra 'notebooks' is not installed")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
