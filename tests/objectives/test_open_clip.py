"""Parity with open_clip's losses, whose file loads alone: the package would import torchvision."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from diptych.objectives.contrastive import contrastive
from diptych.objectives.sigmoid import sigmoid

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    """Return open_clip's loss.py, or skip where the package is not on the path (an unpacked wheel will do)."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        pytest.skip("open_clip_torch is not at hand")
    spec = importlib.util.spec_from_file_location(
        "open_clip_loss", Path(found.submodule_search_locations[0]) / "loss.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["open_clip_loss"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", [2, 65, 300])
def test_clip_loss_and_its_gradients(peer, size):
    leaves = [F.normalize(torch.randn(size, 32), dim=1).requires_grad_() for _ in range(2)]
    leaves.append(torch.tensor(14.3, requires_grad=True))
    ours, theirs = contrastive(*leaves), peer.ClipLoss()(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_siglip_loss(peer):
    image, text = (F.normalize(torch.randn(40, 16), dim=1) for _ in range(2))
    scale, bias = torch.tensor(10.0), torch.tensor(-10.0)
    theirs = peer.SigLipLoss()(image, text, scale, bias)
    torch.testing.assert_close(sigmoid(image, text, scale, bias), theirs, rtol=1e-5, atol=1e-5)
