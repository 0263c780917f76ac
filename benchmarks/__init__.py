"""Benchmarks, each `python -m benchmarks.NAME [--json PATH]`: us and a peer in one interleaved run, on one thread.

The number of threads must be set before NumPy and torch are first imported, hence here.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
