import math

import pytest
import torch
from torch import nn

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.model import Loss, Model
from diptych.train.config import TrainConfig
from diptych.train.optim import build_optimizer, decays, layer_factors, pretrained_parameters, rate, set_lr
from tests.train import toys


class Mixed(Model):
    def __init__(self):
        super().__init__()
        self.old, self.new = toys.Old(), nn.Linear(4, 3)
        self.scale, self.token = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.zeros(1, 1, 4))

    def loss(self, batch, phase="main"):
        return Loss(self.scale)


def test_matrices_decay_and_vectors_and_scalars_do_not():
    model = Mixed()
    kept = {name for name, value in model.named_parameters() if not decays(value)}
    assert kept == {"scale", "token", "old.layer.bias", "old.adapter.bias", "new.bias"}
    assert decays(nn.Conv2d(3, 4, 3).weight)
    assert decays(nn.Embedding(5, 2).weight)


def test_pretrained_weights_learn_at_their_own_rate_but_adapters_do_not():
    model = Mixed()
    optimizer = build_optimizer(
        model.parameters(), pretrained_parameters(model), TrainConfig(tower_lr=0.1, weight_decay=0.3)
    )
    set_lr(optimizer, 2.0)
    names = {value: name for name, value in model.named_parameters()}
    groups = {
        (round(group["lr"], 9), group["weight_decay"]): {names[value] for value in group["params"]}
        for group in optimizer.param_groups
    }
    assert groups == {
        (0.2, 0.3): {"old.layer.weight"},
        (0.2, 0.0): {"old.layer.bias"},
        (2.0, 0.3): {"old.adapter.weight", "new.weight"},
        (2.0, 0.0): {"old.adapter.bias", "new.bias", "scale", "token"},
    }
    slow = build_optimizer(model.parameters(), set(), TrainConfig(phase_lr={"critic": 4.0}), phase="critic")
    set_lr(slow, 1.0)
    assert {group["lr"] for group in slow.param_groups} == {4.0}


def classifier(**settings):
    module = models.load("fine_tune")
    tower = {"image_size": 16, "image_patch": 8, "image_dim": 8, "image_layers": 3, "image_heads": 2}
    spec = DataSpec(image_size=16, classes=("a", "b"))
    return module.build(module.Config.parse({**tower, "dim": 4, **settings}), spec)


def test_the_rate_falls_from_block_to_block():
    """Depths of BEiT and MAE: the head at the whole rate, block l of L at decay^(L + 1 - l), the patches below all."""
    model = classifier()
    factors = layer_factors(model, 0.5)
    named = {name: factors.get(value, 1.0) for name, value in model.named_parameters()}
    blocks = "image_tower.transformer.blocks"
    assert {factor for name, factor in named.items() if not name.startswith("image_tower.")} == {1.0}
    for block, factor in ((2, 0.5), (1, 0.25), (0, 0.125)):
        assert {f for name, f in named.items() if name.startswith(f"{blocks}.{block}.")} == {factor}
    assert named["image_tower.patches.projection.weight"] == named["image_tower.positions"] == 0.0625
    assert named["image_tower.norm_before.weight"] == 0.0625
    assert named["image_tower.norm_after.weight"] == 1.0


@pytest.mark.parametrize("settings", [{}, {"image_train": "last:1"}, {"image_encoder": "resnet"}])
@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_groups_hold_every_weight_that_learns_once(settings, decay):
    model = classifier(**settings)
    own = [value for value in model.parameters() if value.requires_grad]
    optimizer = build_optimizer(own, set(), TrainConfig(), factors=layer_factors(model, decay))
    held = [value for group in optimizer.param_groups for value in group["params"]]
    assert len(held) == len(own)
    assert {id(value) for value in held} == {id(value) for value in own}
    set_lr(optimizer, 2.0)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert (rates == {2.0}) == (decay == 1.0)


def test_adamw_by_hand():
    """One step from zero moments is lr times the sign of the gradient, after the decay; Loshchilov, algorithm 2."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
    optimizer = build_optimizer([weight], set(), TrainConfig(weight_decay=0.5))
    set_lr(optimizer, 0.1)
    weight.grad = torch.tensor([[0.3, -0.2], [0.1, 5.0]])
    optimizer.step()
    expected = torch.tensor([[1.0, -2.0], [3.0, 4.0]]) * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6)


def test_the_rate_rises_and_falls():
    config = TrainConfig(lr=2.0, warmup=4)
    assert [rate(step, 104, config) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert math.isclose(rate(54, 104, config), 1.0)
    assert 0 < rate(103, 104, config) < 0.001
    assert rate(104, 104, config) == rate(500, 104, config) == 0
    assert rate(0, 100, TrainConfig(lr=2.0, warmup=0.1)) == 0.2
    assert rate(99, 100, TrainConfig(lr=2.0, warmup=0, schedule="constant")) == 2.0
    assert rate(0, 1, TrainConfig(lr=2.0, warmup=0)) == 2.0


@pytest.mark.parametrize(("name", "value"), [("lr", "0"), ("ema", 1), ("accumulate", 0), ("precision", "fp16")])
def test_settings_out_of_their_range_are_one_line(name, value):
    from diptych.core.errors import UserError

    with pytest.raises(UserError, match=f"setting {name}="):
        TrainConfig.parse({name: value})


def test_settings_come_as_strings_and_every_one_is_described():
    config = TrainConfig.parse({"lr": "3e-4", "steps": "7", "betas": [0.5, 0.999], "log": ["jsonl", "tensorboard"]})
    assert (config.lr, config.steps, config.betas) == (3e-4, 7, (0.5, 0.999))
    assert all(field.description for field in TrainConfig.model_fields.values())
