"""Folded towers: the same features from less work, the tower itself untouched, and nothing else taken for one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from diptych.encoders.folded import folded
from diptych.encoders.image import ViT
from diptych.encoders.pretrained import image_tower
from tests.encoders.small import save


def with_statistics(tower):
    """Give the norms statistics as if they had learnt."""
    torch.manual_seed(0)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    return tower


@pytest.mark.parametrize("kind", ["mobilenet_v1", "mobilenet_v2", "resnet"])
@pytest.mark.parametrize("size", [16, 17, 50])  # at odd sizes TensorFlow pads both sides alike
def test_a_folded_tower_gives_the_same_features(kind, size, tmp_path: Path):
    tower = with_statistics(image_tower(str(save(kind, tmp_path)), pool="auto", image_size=size))
    tower.train_only([])
    before = tower.identity()
    quick = folded(tower)
    assert quick is not tower
    assert quick.frozen
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    image = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    want, got = tower(image), quick(image)
    for name in ("tokens", "summary"):
        want_part, got_part = getattr(want, name), getattr(got, name)
        # float32 sums in another order, through some fifty layers
        torch.testing.assert_close(got_part, want_part, rtol=1e-4, atol=1e-4 * float(want_part.abs().max()))
        assert want_part.abs().max() > 0
    assert tower.identity() == before


def test_a_transformer_is_left_alone():
    tower = ViT(image_size=16, patch=8, dim=16, layers=1, heads=2)
    assert folded(tower) is tower


def test_what_would_come_out_otherwise_is_not_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tower = with_statistics(image_tower(str(save("mobilenet_v2", tmp_path)), pool="auto", image_size=16))
    monkeypatch.setattr("diptych.encoders.folded._fold", lambda layer: nn.Sequential(layer, nn.Hardtanh()))
    assert folded(tower) is tower
