"""One thread a test process: these problems are small, and threads that wait for a busy core are slow."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
