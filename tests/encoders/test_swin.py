"""The hierarchical tower: equal to transformers' Swin at equal weights, and what its settings must do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders.plan import apply_plan, block_list
from diptych.encoders.swin import Swin
from diptych.encoders.towers import TowerConfig, build_image


def copy_block(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy a block of transformers' Swin into one of ours."""
    pairs = {
        "attention_norm": "layernorm_before",
        "mlp_norm": "layernorm_after",
        "attention.query": "attention.q_proj",
        "attention.key": "attention.k_proj",
        "attention.value": "attention.v_proj",
        "attention.out": "attention.o_proj",
        "mlp.up": "mlp.fc1",
        "mlp.down": "mlp.fc2",
    }
    for mine, other in pairs.items():
        ours.get_submodule(mine).load_state_dict(theirs.get_submodule(other).state_dict())
    table = theirs.get_submodule("attention.relative_position_bias").relative_position_bias_table
    with torch.no_grad():
        ours.attention.bias_table.copy_(table)


@pytest.mark.parity
@pytest.mark.parametrize(("size", "window"), [(32, 4), (32, 2), (20, 5), (24, 3)])
def test_plain_swin_equals_transformers(size: int, window: int):
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=size, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=window,
        drop_path_rate=0.0, layer_norm_eps=1e-5,
    )  # fmt: skip
    theirs = SwinModel(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = Swin(image_size=size, patch=2, dim=16, depths=(2, 2), heads=4, window=window, stem="patch").eval()
    ours.stem.projection.load_state_dict(theirs.embeddings.patch_embeddings.projection.state_dict())
    ours.stem.norm.load_state_dict(theirs.embeddings.norm.state_dict())
    stages = theirs.encoder.layers
    for mine, other in zip(ours.blocks, [block for stage in stages for block in stage.blocks], strict=True):
        copy_block(mine, other)
    ours.blocks[2].merge.load_state_dict(stages[0].downsample.state_dict())
    ours.norm.load_state_dict(theirs.layernorm.state_dict())
    pixels = torch.randn(2, 3, size, size)
    states, out = ours.encode(pixels), theirs(pixels)
    torch.testing.assert_close(states.tokens, out.last_hidden_state, atol=2e-5, rtol=0)
    torch.testing.assert_close(states.summary, out.pooler_output, atol=2e-5, rtol=0)


def test_swin_t_has_the_published_size():
    with torch.device("meta"):
        tiny = Swin(image_size=224, patch=4, dim=768, depths=(2, 2, 6, 2), heads=24, window=7, stem="patch")
    # Swin-T has 28,288,354 parameters, of which 768 * 1000 + 1000 name ImageNet's classes.
    assert sum(parameter.numel() for parameter in tiny.parameters()) == 28_288_354 - 769_000


SIZES = [
    {"image_size": 64},
    {"image_size": 40, "patch": 8},
    {"image_size": 28, "patch": 4, "window": 3},
    {"image_size": 36, "patch": 4, "depths": (1, 2, 1), "stem": "patch", "window": 4},
    {"image_size": 21, "patch": 3, "depths": (2,), "channels": 1, "dropout": 0.1},
    {"image_size": 16, "patch": 1, "depths": (1, 1), "dim": 16, "grid": 1},
]


@pytest.mark.parametrize("settings", SIZES, ids=str)
def test_states_and_gradients_at_any_size(settings: dict):
    tower = Swin(**{"dim": 32, "heads": 4} | settings)
    image = torch.randint(0, 256, (3, len(tower.mean), tower.image_size, tower.image_size), dtype=torch.uint8)
    states = tower.eval()(image)
    side = tower.image_size // tower.patch
    for _ in range(tower.stage - 1):
        side = (side + 1) // 2
    assert states.tokens.shape == (3, side**2, tower.token_dim)
    assert states.summary.shape == (3, tower.dim)
    assert states.mask.all()
    assert states.mask.shape == states.tokens.shape[:2]
    torch.testing.assert_close(tower(image[1:2]).summary, states.summary[1:2], atol=1e-5, rtol=0)
    tower.train()(image).summary.square().sum().backward()
    assert [name for name, value in tower.named_parameters() if value.grad is None] == []


def test_cells_are_row_by_row_and_of_the_stage_asked_for():
    tower = Swin(image_size=32, patch=4, dim=16, depths=(1, 1), heads=2, window=2, stem="patch", grid=1)
    assert tower.token_dim == 8
    image = torch.zeros(1, 3, 32, 32)
    other = image.clone()
    other[:, :, 4:8, 28:32] = 1.0
    changed = (tower(image).tokens - tower(other).tokens).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero()[:, 0].tolist() == [6, 7, 14, 15], "the window of the cell at row 1, column 7"
    last = Swin(image_size=32, patch=4, dim=16, depths=(1, 1), heads=2, window=2, grid=-1)
    assert last.stage == 2
    torch.testing.assert_close(last(image).tokens.mean(1), last(image).summary)


def test_the_picture_may_grow_without_another_weight():
    small = Swin(image_size=32, patch=4, dim=16, heads=2)
    large = Swin(image_size=64, patch=4, dim=16, heads=2)
    large.load_state_dict(small.state_dict())
    assert large.identity() != small.identity()


def test_last_blocks_are_the_blocks_of_all_stages():
    config = TowerConfig(image_encoder="swin", image_depths=(1, 2), image_train="last:1", image_dim=16, image_patch=8)
    tower = build_image(config, DataSpec(image_size=32))
    assert block_list(tower) == "blocks"
    live = {name.rpartition(".")[0] for name, value in tower.named_parameters() if value.requires_grad}
    assert all(name.startswith("blocks.2") or name == "norm" for name in live)
    assert "norm" in live
    lora = apply_plan(Swin(image_size=32, dim=16), "lora:2")
    trained = [name for name, value in lora.named_parameters() if value.requires_grad]
    assert len(trained) == 4 * 4 * 2, "four linear maps in each of four attentions, two factors each"


def test_mistakes():
    with pytest.raises(UserError, match="patch=5 does not divide image_size=64"):
        Swin(patch=5)
    with pytest.raises(UserError, match="image_dim=18 must be a multiple of 4"):
        Swin(dim=18, depths=(1, 1, 1))
    with pytest.raises(UserError, match="multiple of the heads, got dim=18 and heads=4"):
        Swin(dim=18, depths=(1,))
    with pytest.raises(UserError, match="image_grid=3 is no stage of a swin of 2 stages: give 1 to 2, or -1 to -2"):
        Swin(grid=3)
    with pytest.raises(UserError, match="image_depths is empty"):
        Swin(depths=())
    with pytest.raises(UserError, match="unknown image stem 'patches'; did you mean 'patch'"):
        Swin(stem="patches")
