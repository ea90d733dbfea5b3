"""Where the tests find things: the repository, its example, and the data shared beside it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "data" / "gbt_3mm.fits"
SHARED = ROOT.parent / "shared" / "data"

needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the data shared beside the repository, ../shared/data, are missing"
)
