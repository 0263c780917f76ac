"""How much of a tower is trained; what is not trained does not change by a bit, BatchNorm statistics included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders.base import ImageEncoder, Tower
from diptych.encoders.image import ResNetTower, ViT
from diptych.encoders.plan import apply_plan, block_list
from diptych.encoders.text import TextTransformer
from diptych.encoders.towers import TowerConfig, build_image
from diptych.nn.lora import merge_lora
from tests.encoders.small import save


def vit() -> ViT:
    return ViT(image_size=16, patch=4, dim=16, layers=3, heads=2, dropout=0.2)


def resnet() -> ResNetTower:
    return ResNetTower(image_size=32, width=8, blocks=(1, 1, 1))


def learn(tower: ImageEncoder, steps: int = 2) -> set[str]:
    """Train something on top, in training mode, and say what has changed in the tower."""
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    head = nn.Linear(tower.dim, 3)
    whole = nn.ModuleList([tower, head]).train()
    optimizer = torch.optim.SGD([value for value in whole.parameters() if value.requires_grad], lr=0.1)
    image = torch.randint(0, 256, (4, 3, tower.image_size, tower.image_size), dtype=torch.uint8)
    for _ in range(steps):
        optimizer.zero_grad()
        head(tower(image).summary).square().sum().backward()
        optimizer.step()
    return {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("make", [vit, resnet])
def test_frozen_means_that_no_bit_changes(make):
    tower = apply_plan(make(), "frozen")
    assert tower.frozen
    image = torch.rand(2, 3, tower.image_size, tower.image_size)
    before = tower(image)
    assert learn(tower) == set()
    assert not any(module.training for module in tower.modules())
    assert torch.equal(tower.train()(image).summary, before.summary), "no dropout, no batch statistics"
    assert not before.summary.requires_grad
    assert not any(value.requires_grad for value in tower.parameters())


@pytest.mark.parametrize("make", [vit, resnet])
def test_all_changes_all(make):
    tower = apply_plan(make(), "all")
    assert not tower.frozen
    untouched = {name for name in tower.state_dict() if name not in learn(tower)}
    # What is added to every key of a softmax changes nothing, so its gradient is rounding, and may be none.
    assert all(name.endswith("key.bias") for name in untouched)


def test_last_blocks_and_what_comes_after_them():
    changed = learn(apply_plan(vit(), "last:2"))
    assert {name.split(".")[0] for name in changed} == {"transformer", "norm_after"}
    assert {name.split(".")[2] for name in changed if name.startswith("transformer")} == {"1", "2"}


def test_batchnorm_below_the_last_blocks_stands_still():
    tower = apply_plan(resnet(), "last:1")
    changed = learn(tower)
    assert {".".join(name.split(".")[:3]) for name in changed if name.startswith("trunk")} == {"trunk.stages.2"}
    assert "trunk.stages.2.0.narrow.1.running_mean" in changed
    tower.eval()
    assert not any(module.training for module in tower.modules())


def test_lora_starts_equal_and_learns_only_its_low_rank():
    tower = vit().eval()
    image = torch.rand(2, 3, 16, 16)
    before = tower(image).summary
    tower = apply_plan(tower, "lora:2")
    assert torch.equal(tower(image).summary, before)
    changed = learn(tower)
    assert {name.split(".")[-2] for name in changed} == {"down", "up"}
    assert {name.split(".")[-3] for name in changed} == {"query", "key", "value", "out"}
    tuned = tower.eval()(image).summary
    names = set(vit().state_dict())
    merge_lora(tower)
    assert set(tower.state_dict()) == names
    torch.testing.assert_close(tower(image).summary, tuned, atol=1e-5, rtol=0)


def test_lora_everywhere():
    changed = learn(apply_plan(vit(), "lora:2:all"))
    assert {"mlp"} < {name.split(".")[3] for name in changed if name.startswith("transformer")}


@pytest.mark.parametrize(
    ("kind", "blocks", "tail"),
    [
        ("clip", "encoder.layers", {"post_layernorm"}),
        ("dinov2", "encoder.layer", {"layernorm"}),
        ("siglip", "encoder.layers", {"post_layernorm", "head"}),
        ("swin", "encoder.layers", {"layernorm"}),
        ("mobilenet_v2", "layer", {"conv_1x1"}),
        ("resnet", "encoder.stages", set()),
    ],
)
def test_pretrained_towers_in_part(kind: str, blocks: str, tail: set[str], tmp_path: Path):
    config = TowerConfig(image_encoder=str(save(kind, tmp_path)), image_train="last:1")
    tower = build_image(config, DataSpec(image_size=16))
    place = block_list(tower).removeprefix("model.")
    assert place.endswith(blocks.split(".")[-1])
    live = {name.removeprefix("model.") for name, value in tower.named_parameters() if value.requires_grad}
    last = len(list(tower.model.get_submodule(place).children())) - 1
    assert {name.split(".")[0] for name in live if not name.startswith(place)} == tail
    assert {name.removeprefix(f"{place}.").split(".")[0] for name in live if name.startswith(place)} == {str(last)}
    changed = {name.removeprefix("model.") for name in learn(tower)}
    assert changed
    assert all(name in live or name.rsplit(".", 1)[0] in {part.rsplit(".", 1)[0] for part in live} for name in changed)


@pytest.mark.parametrize("kind", ["clip", "vit", "swin"])
def test_pretrained_towers_by_lora(kind: str, tmp_path: Path):
    folder = str(save(kind, tmp_path))
    plain = build_image(TowerConfig(image_encoder=folder), DataSpec(image_size=16)).eval()
    tower = build_image(TowerConfig(image_encoder=folder, image_train="lora:2"), DataSpec(image_size=16))
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(tower(image).summary, plain(image).summary, atol=1e-6, rtol=0)
    assert {name.split(".")[-2] for name in learn(tower)} == {"down", "up"}


def test_mistakes(tmp_path: Path):
    def fails(tower: Tower, plan: str, match: str) -> None:
        with pytest.raises(UserError, match=match):
            apply_plan(tower, plan)

    fails(vit(), "frosen", "unknown training plan 'frosen'.*all, frozen, last:N, lora:R, lora:R:all")
    fails(vit(), "last:0", "unknown training plan 'last:0'")
    fails(vit(), "last:4", "asks for more blocks than this tower's 3: give last:3 or all")
    fails(ViT(image_size=16, layers=1, dim=16, heads=2), "last:1", "cannot tell the blocks of this ViT apart")
    convolutions = build_image(TowerConfig(image_encoder=str(save("mobilenet_v2", tmp_path))), DataSpec(image_size=16))
    fails(convolutions, "lora:4", "lora:4 needs linear layers in an attention, and this HubImage has none.*lora:4:all")
    fails(convolutions, "lora:4:all", "has none that it can reach: train it with last:N")


def test_text_towers_too():
    tower = apply_plan(TextTransformer(vocabulary=9, dim=16, layers=2, heads=2), "last:1")
    live = {name.split(".")[0] for name, value in tower.named_parameters() if value.requires_grad}
    assert live == {"transformer", "norm"}


def test_only_weights_that_came_from_elsewhere_move_at_the_smaller_rate():
    tower = vit()
    assert tower.pretrained_parameters() == []
    tower.adopted = True
    assert {id(p) for p in tower.pretrained_parameters()} == {id(p) for p in tower.parameters()}
    apply_plan(tower, "lora:2")
    learnt = {id(p) for p in tower.parameters() if p.requires_grad}
    assert learnt
    assert not learnt & {id(p) for p in tower.pretrained_parameters()}
