"""Towers of timm and open_clip: the error where they are not there, and our side of them on stand-ins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders import pretrained
from diptych.encoders.base import Tower
from diptych.encoders.towers import TowerConfig, build_image, build_text, context_for, image_size_for
from diptych.nn.transformer import Block


def missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(("name", "package"), [("timm:resnet18", "timm"), ("open_clip:ViT-B-32/openai", "open_clip")])
def test_the_error_says_what_to_install(name: str, package: str, monkeypatch: pytest.MonkeyPatch):
    missing(monkeypatch, package)
    with pytest.raises(
        UserError, match=rf"needs {package}.* with a torchvision that fits.*pip install {package}"
    ) as told:
        image_size_for(TowerConfig(image_encoder=name))
    assert "\n" not in str(told.value)


class TimmViT(nn.Module):
    """As timm's: one class token before the grid."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)

    def forward_features(self, x: Tensor) -> Tensor:
        grid = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([grid.mean(1, keepdim=True), grid], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool) -> Tensor:
        assert pre_logits
        return x[:, 0]


class TimmConv(nn.Module):
    """As timm's MobileNetV3: its head widens the pooled features."""

    def __init__(self, output_fmt: str) -> None:
        super().__init__()
        self.patch, self.head, self.output_fmt = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 12), output_fmt

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        return x.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else x

    def forward_head(self, x: Tensor, pre_logits: bool) -> Tensor:
        return self.head(x.flatten(1)[:, :8])


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        kinds = {"vit": TimmViT, "conv": lambda: TimmConv("NCHW"), "swin": lambda: TimmConv("NHWC")}
        if name not in kinds:
            raise RuntimeError(f"Unknown model ({name})")
        torch.manual_seed(0 if pretrained else 1)
        return kinds[name]()

    module = ModuleType("timm")
    module.create_model = create_model
    said = {"input_size": (3, 16, 16), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    module.data = SimpleNamespace(resolve_model_data_config=lambda model: said)
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("kind", ["vit", "conv", "swin"])
def test_timm_s_grid_is_read_row_by_row(kind: str, tmp_path: Path):
    config = TowerConfig(image_encoder=f"timm:{kind}", image_train="frozen")
    assert image_size_for(config) == 16
    tower = build_image(config, DataSpec(image_size=16))
    image = torch.rand(2, 3, 16, 16)
    states = tower(image)
    expected = tower.model.patch(tower.normalise(image)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(states.tokens, expected)
    torch.testing.assert_close(states.summary, expected.mean(1), atol=1e-6, rtol=0)
    again = rebuilt(tower, tmp_path)
    assert not torch.equal(again(image).summary, states.summary), "without weights"
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again(image).summary, states.summary)
    assert again.identity() == tower.identity()


def rebuilt(tower: Tower, folder: Path) -> Tower:
    for name, content in tower.assets().items():
        (folder / name).write_bytes(content)
    return build_image(TowerConfig(image_encoder=f"config:{folder}"), DataSpec(image_size=16)).eval()


@pytest.mark.usefixtures("timm")
def test_timm_s_unknown_model():
    with pytest.raises(UserError, match=r"timm gives no model 'vitt': Unknown model"):
        image_size_for(TowerConfig(image_encoder="timm:vitt"))


class Visual(nn.Module):
    """As open_clip's vision transformer."""

    image_size, image_mean, image_std, output_tokens = (16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), False

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.proj = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(8, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self.output_tokens
        assert self.proj is None
        grid = self.patch(x).flatten(2).transpose(1, 2)
        return grid.mean(1), grid


class Stack(nn.Module):
    """As open_clip's transformer, which takes an additive mask."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(8, 2, causal=True)

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        assert torch.equal(attn_mask == 0, torch.ones_like(attn_mask).tril() == 1)
        return self.block(x)


class OpenClip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual, self.transformer, self.ln_final = Visual(), Stack(), nn.LayerNorm(8)
        self.token_embedding = nn.Embedding(20, 8)
        self.positional_embedding = nn.Parameter(torch.randn(7, 8))


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    asked: list[tuple[str, str | None]] = []

    def create_model(name: str, pretrained: str | None, load_weights: bool) -> nn.Module:
        asked.append((name, pretrained))
        model = OpenClip()
        if name == "RN50":
            model.visual = nn.Identity()
        if name == "roberta":
            model.text = nn.Identity()
        return model

    module = ModuleType("open_clip")
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return asked


def test_both_sides_of_open_clip(open_clip: list[tuple[str, str | None]]):
    name = "open_clip:ViT-B-32/openai"
    config = TowerConfig(image_encoder=name, text_encoder=name)
    assert (image_size_for(config), context_for(config)) == (16, 7)
    tower = build_image(config, DataSpec(image_size=16))
    states = tower(torch.rand(2, 3, 16, 16))
    assert (states.tokens.shape, states.summary.shape) == ((2, 16, 8), (2, 8))
    text = build_text(config, DataSpec(vocabulary=20)).eval()
    tokens, mask = torch.randint(0, 20, (2, 5)), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    summary = text(tokens, mask).summary
    torch.testing.assert_close(summary[1:], text(tokens[1:, :2], mask[1:, :2]).summary, atol=1e-6, rtol=0)
    assert set(open_clip) == {("ViT-B-32", "openai")}
    assert pretrained.tokenizer_source(name) == "openai/clip-vit-base-patch32"


@pytest.mark.usefixtures("open_clip")
def test_what_open_clip_cannot_give():
    with pytest.raises(UserError, match="only the vision transformers of open_clip"):
        image_size_for(TowerConfig(image_encoder="open_clip:RN50/openai"))
    with pytest.raises(UserError, match="is a transformers model: give its own name as text_encoder"):
        context_for(TowerConfig(text_encoder="open_clip:roberta/x"))
