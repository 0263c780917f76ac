"""The built-in image towers: equal to transformers' CLIP at equal weights, and what their settings must do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.encoders.image import ResNetTower, ViT


def copy_layer(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy a block of transformers' CLIP into one of ours."""
    pairs = {
        "attention_norm": "layer_norm1",
        "mlp_norm": "layer_norm2",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.out_proj",
        "mlp.up": "mlp.fc1",
        "mlp.down": "mlp.fc2",
    }
    for mine, other in pairs.items():
        ours.get_submodule(mine).load_state_dict(theirs.get_submodule(other).state_dict())


def shake(module: nn.Module) -> None:
    """Give every parameter a value, for many start at zero or one."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_vit_equals_transformers_clip(activation: str):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3, image_size=20, patch_size=5,
        hidden_act=activation,
    )  # fmt: skip
    theirs = CLIPVisionModel(config).eval()
    shake(theirs)
    ours = ViT(image_size=20, patch=5, dim=24, layers=3, heads=3, activation=activation).eval()
    with torch.no_grad():
        ours.class_token.copy_(theirs.embeddings.class_embedding)
        ours.positions.copy_(theirs.embeddings.position_embedding.weight)
        ours.patches.projection.weight.copy_(theirs.embeddings.patch_embedding.weight)
    ours.norm_before.load_state_dict(theirs.pre_layrnorm.state_dict())
    ours.norm_after.load_state_dict(theirs.post_layernorm.state_dict())
    for mine, other in zip(ours.transformer.blocks, theirs.encoder.layers, strict=True):
        copy_layer(mine, other)
    pixels = torch.randn(2, 3, 20, 20)
    out = theirs(pixels)
    states = ours.encode(pixels)
    torch.testing.assert_close(states.summary, out.pooler_output, atol=1e-5, rtol=0)
    grid = theirs.post_layernorm(out.last_hidden_state)[:, 1:]
    torch.testing.assert_close(states.tokens, grid, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "tower",
    [
        ViT(image_size=16, patch=4, dim=16, layers=2, heads=2),
        ViT(image_size=16, patch=4, dim=16, layers=2, heads=2, pool="mean", channels=1),
        ResNetTower(image_size=32, width=8, blocks=(1, 1)),
        ResNetTower(image_size=32, width=8, blocks=(1, 1, 1, 1), channels=1),
    ],
)
def test_states_and_gradients(tower: ViT | ResNetTower):
    image = torch.randint(0, 256, (3, len(tower.mean), tower.image_size, tower.image_size), dtype=torch.uint8)
    states = tower.eval()(image)
    assert states.tokens.shape[2] == tower.dim
    assert states.summary.shape == (3, tower.dim)
    assert states.mask.shape == states.tokens.shape[:2]
    torch.testing.assert_close(tower(image / 255).summary, states.summary, atol=1e-5, rtol=0)
    torch.testing.assert_close(tower(image[1:2]).summary, states.summary[1:2], atol=1e-5, rtol=0)
    tower.train()(image).summary.square().sum().backward()
    assert [name for name, value in tower.named_parameters() if value.grad is None] == []


def test_published_sizes():
    with torch.device("meta"):
        small = ViT(image_size=224, patch=32, dim=768, layers=12, heads=12)
        rn50 = ResNetTower(image_size=224, width=64, blocks=(3, 4, 6, 3))
    # CLIP's ViT-B/32 image tower has 87,849,216 parameters, of which 768 * 512 project into the joint space.
    assert count(small) == 87_849_216 - 768 * 512
    # CLIP's RN50 image tower has 38,316,896; its pooling projects from 2048 to 1024, ours keeps 2048.
    assert count(rn50) == 38_316_896 + (2048 * 2048 + 2048) - (2048 * 1024 + 1024)
    assert rn50.pool.attention.heads == 32


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_tokens_are_row_by_row():
    tower = ViT(image_size=16, patch=4, dim=16, layers=0, heads=2)
    image = torch.zeros(1, 3, 16, 16)
    other = image.clone()
    other[:, :, 4:8, 12:16] = 1.0
    changed = (tower(image).tokens != tower(other).tokens).any(-1)[0]
    assert changed.nonzero().tolist() == [[1 * 4 + 3]]


def grey(size: int) -> Tensor:
    return torch.zeros(1, 1, size, size)


def test_mistakes():
    tower = ViT(image_size=16, patch=4, dim=16, layers=1, heads=2)
    with pytest.raises(
        UserError, match="takes 3 x 16 x 16 pictures, got 1 x 16 x 16: decode pictures at image_size=16"
    ):
        tower(grey(16))
    with pytest.raises(UserError, match="got 3 x 8 x 8"):
        tower(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="patch=5 does not divide image_size=16"):
        ViT(image_size=16, patch=5)
    with pytest.raises(UserError, match="unknown image pool 'clas'; did you mean 'class'"):
        ViT(pool="clas")
    with pytest.raises(UserError, match="shrinks pictures 16 times: image_size=40 must be a multiple"):
        ResNetTower(image_size=40)


def test_pieces_on_a_cpu_change_nothing(monkeypatch: pytest.MonkeyPatch):
    tower = ResNetTower(image_size=32, width=8, blocks=(1, 1))
    sizes: list[int] = []
    encode = ResNetTower.encode

    def counted(self: ResNetTower, pixels: Tensor) -> States:
        sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(ResNetTower, "encode", counted)
    monkeypatch.setattr("diptych.encoders.base._CPU_PIXELS", 3 * 32**2)
    image = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        tower(image)
        assert sizes == [8], "batch statistics are of the whole batch"
        whole = encode(tower.eval(), tower.normalise(image))
        states = tower(image)
    assert sizes == [8, 3, 3, 2]
    torch.testing.assert_close(states.tokens, whole.tokens, atol=1e-6, rtol=0)
    torch.testing.assert_close(states.summary, whole.summary, atol=1e-6, rtol=0)
    assert states.mask.shape == whole.mask.shape
    tower(image)
    assert sizes == [8, 3, 3, 2, 8], "a gradient needs the whole at once anyway"
    with torch.no_grad():
        assert tower(image[:0]).summary.shape == (0, tower.dim)


def test_identity_is_of_weights_and_preprocessing():
    tower = ViT(image_size=16, patch=4, dim=16, layers=1, heads=2)
    same = ViT(image_size=16, patch=4, dim=16, layers=1, heads=2)
    same.load_state_dict(tower.state_dict())
    assert tower.identity() == same.identity()
    other = ViT(image_size=16, patch=4, dim=16, layers=1, heads=2, mean=(0.5, 0.5, 0.5))
    other.load_state_dict(tower.state_dict())
    assert tower.identity() != other.identity()
    with torch.no_grad():
        same.positions[3, 2] += 1e-6
    assert tower.identity() != same.identity()


def test_bytes_and_floats_are_normalised_alike_whatever_their_layout():
    tower = ViT(image_size=16, dim=16, layers=1)
    image = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    by_hand = (image.double() / 255 - torch.tensor(tower.mean).view(3, 1, 1)) / torch.tensor(tower.std).view(3, 1, 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        for given in (image, image.float() / 255):
            pixels = tower.normalise(given.contiguous(memory_format=layout))
            assert pixels.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(pixels.double(), by_hand, rtol=0, atol=1e-6)
    given = torch.rand(1, 3, 16, 16, requires_grad=True)  # a heat map asks for the gradient of pixels
    tower.normalise(given).sum().backward()
    torch.testing.assert_close(given.grad[0, :, 0, 0], 1 / torch.tensor(tower.std))
