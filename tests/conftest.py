"""What every test shares: checked shapes, one thread, a fixed seed, no network, and the way to real data."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # children too: as many tests run at a time as there are cores

import pytest
import torch
from jaxtyping import install_import_hook

import tests.checked  # noqa: F401  the hook finds it by name

# Every annotated shape and type of diptych is checked at run time. This must come before the first import of it;
# child processes that tests start import the package plainly, as users do.
install_import_hook("diptych", "tests.checked.check")

from diptych.core.runtime import seed_everything  # noqa: E402

pytest_plugins = ["tests.fixtures", "tests.servers"]
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start each test from the same random numbers, whatever ran before it."""
    seed_everything(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with real data (`flickr8k/` and others), or skip where there is none."""
    folder = os.environ.get("DIPTYCH_TEST_DATA", "")
    if not folder:
        pytest.skip("set DIPTYCH_TEST_DATA to a folder that holds flickr8k/ and the others")
    return Path(folder)
