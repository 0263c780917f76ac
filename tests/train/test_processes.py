"""Two processes with a batch of B each do exactly what one does with 2B."""

import pytest
import torch
from safetensors.torch import load_file

from tests.train import child
from tests.train.proofs import proofs


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for code, text in child.run("gradients", folder, world=2):
        assert code == 0, text
    return proofs(), load_file(folder / "found.safetensors")


def test_loss_and_whole_gradient_and_steps_are_those_of_one_process(both):
    alone, together = both
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        # losses are told in float32; everything else is float64, so that only the order of sums differs
        tolerance = 1e-6 if value.dtype == torch.float32 else 1e-9
        torch.testing.assert_close(
            together[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
