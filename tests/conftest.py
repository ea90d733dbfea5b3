"""One thread a test process: these problems are small, and threads that wait for a busy core are slow."""

import os
import sys
from pathlib import Path

# The scripts that measure are tested, too, and import what they share.
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

os.environ.setdefault("OMP_NUM_THREADS", "1")
