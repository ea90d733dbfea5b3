"""The example in data/ is what its script makes, bit for bit, and the notebooks run."""

import subprocess
import sys

import pytest
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_example_is_made_by_its_script(tmp_path):
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_data.py"), str(tmp_path)], check=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["gbt_3mm.fits", "gbt_3mm_truth.json"]
    for name in made:
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / name).read_bytes(), name


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
