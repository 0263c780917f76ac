"""WiSE-FT: the ends of the way are exact, the text side and the model itself stay."""

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.fewshot.wise_ft import ImageSide, TuneConfig, interpolate
from diptych.models.align import clip
from tests.fewshot.fakes import Lonely
from tests.models.systems import SPEC

SETTINGS = {
    "image_dim": 16,
    "image_layers": 1,
    "image_heads": 2,
    "image_patch": 8,
    "text_dim": 16,
    "text_layers": 1,
    "text_heads": 2,
    "dim": 12,
}


def batch_of(count):
    return Batch(image=torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8))


@pytest.fixture
def model():
    return clip.build(clip.Config.parse(SETTINGS), SPEC).eval().requires_grad_(False)


def tuned(side, *, epochs=20):
    whole, label = batch_of(6), torch.tensor([0, 0, 0, 1, 1, 1])
    text = torch.eye(12)[:2]
    config = TuneConfig(epochs=epochs, lr=1e-2, batch_size=3)
    after = side.tune(lambda places: whole.part(places), label, text, scale=20.0, config=config, seed=0)
    return after, whole, label, text


def test_the_ends_are_exact_and_the_middle_is_the_mean(model):
    side = ImageSide(model, batch_of(2))
    after, whole, _, _ = tuned(side)
    fine_tuned = side.encoder.encode_image(whole)
    side.put(interpolate(side.before, after, 0.0))
    assert torch.equal(side.encoder.encode_image(whole), model.encode_image(whole))
    side.put(interpolate(side.before, after, 1.0))
    assert torch.equal(side.encoder.encode_image(whole), fine_tuned)
    middle = interpolate(side.before, after, 0.5)
    for name, value in middle.items():
        torch.testing.assert_close(value, (side.before[name] + after[name]) / 2)


def test_tuning_learns_the_shots_moves_the_image_side_alone_and_starts_afresh_each_time(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    side = ImageSide(model, batch_of(2))
    assert side.parts
    assert all(name.startswith(("image_tower.", "read_image.")) for name in side.parts)
    after, whole, label, text = tuned(side)
    assert ((side.encoder.encode_image(whole) @ text.T).argmax(1) == label).all()
    assert any(not torch.equal(after[name], side.before[name]) for name in after)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(
        torch.equal(value, before[name]) for name, value in side.model.state_dict().items() if name not in side.parts
    )
    torch.manual_seed(1)
    first, *_ = tuned(side, epochs=1)
    torch.manual_seed(1)
    again, *_ = tuned(side, epochs=1)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_on_a_frozen_tower_what_stands_on_it_is_tuned():
    model = clip.build(clip.Config.parse({**SETTINGS, "image_train": "frozen"}), SPEC)
    names = set(ImageSide(model, batch_of(2)).parts)
    assert names
    assert all(name.startswith("read_image.") for name in names)


def test_a_model_without_a_joint_space_is_refused():
    with pytest.raises(UserError, match="no space for both"):
        ImageSide(Lonely(), batch_of(1))
