"""Two processes with a batch of B each do exactly what one does with 2B."""

import pytest
import torch
from safetensors.torch import load_file

from tests.train import child
from tests.train.proofs import proofs

pytestmark = pytest.mark.slow


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
        # What a step tells and sums in CLIP's loss are float32; all else is float64: only the order of sums differs.
        if not name.startswith("clip"):
            tolerance = 1e-6 if value.dtype == torch.float32 else 1e-9
            torch.testing.assert_close(
                together[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("kind", ["clip", "clip in 3 parts"])
def test_clip_on_two_processes_has_the_loss_and_the_whole_gradient_of_one(both, kind):
    alone, together = both
    torch.testing.assert_close(together[f"{kind}/loss"], alone[f"{kind}/loss"], rtol=0, atol=1e-6)
    names = [name for name in alone if name.startswith(f"{kind}/") and name != f"{kind}/loss"]
    difference = torch.cat([(together[name] - alone[name]).flatten() for name in names]).norm()
    assert difference <= 1e-6 * torch.cat([alone[name].flatten() for name in names]).norm()


@pytest.mark.parametrize("kind", ["coupled", "clip", "ordinary"])
def test_accumulation_is_exact_on_two_processes_too(both, kind):
    _, together = both
    whole = {name.removeprefix(f"{kind}/"): value for name, value in together.items() if name.startswith(f"{kind}/")}
    for name, value in whole.items():
        torch.testing.assert_close(together[f"{kind} in 3 parts/{name}"], value, rtol=0, atol=1e-6)
