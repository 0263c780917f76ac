import torch

from diptych.train.ema import Ema
from tests.train import toys


def test_average_by_hand_and_frozen_weights_stay_out():
    model = toys.Twins()
    model.image.weight.requires_grad_(False)
    start = model.scale.item()
    ema = Ema(model, decay=0.5)
    assert "image.weight" not in ema.average
    expected = start
    for step, value in enumerate([4.0, 8.0, 16.0]):
        with torch.no_grad():
            model.scale.fill_(value)
            model.steps += 1
        ema.update()
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    assert abs(ema.average["scale"].item() - expected) < 1e-5
    assert ema.average["steps"].item() < 3


def test_the_model_gets_its_own_weights_back():
    model = toys.Twins()
    ema = Ema(model, decay=0.9)
    with torch.no_grad():
        model.image.weight += 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = ema.average["image.weight"].clone()
    with ema.used():
        assert torch.equal(model.image.weight, average)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(ema.average["image.weight"], average)
