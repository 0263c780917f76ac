"""Cutting and joining of patches, and the fixed positions."""

from __future__ import annotations

import math

import pytest
import torch

from diptych.core.errors import UserError
from diptych.nn.patches import WAVES, PatchEmbed, patchify, place_waves, sincos_positions, unpatchify


def test_patches_go_row_by_row_and_hold_height_width_channel():
    image = torch.arange(3 * 4 * 6).reshape(1, 3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 12)
    assert patches[0, 4].tolist() == [
        image[0, c, 2 + i, 2 + j].item() for i in (0, 1) for j in (0, 1) for c in (0, 1, 2)
    ]


def test_joining_undoes_cutting():
    image = torch.randn(2, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(image, 4), 4, rows=2), image)


def test_a_patch_must_divide_the_picture():
    with pytest.raises(UserError, match="picture of 8 x 9 cannot be cut into patches of 4"):
        patchify(torch.zeros(1, 3, 8, 9), 4)


def test_embedding_is_a_linear_map_of_each_patch():
    embed = PatchEmbed(3, 5, 2).double()
    image = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    weight = embed.projection.weight.permute(0, 2, 3, 1).reshape(5, -1)
    torch.testing.assert_close(embed(image), patchify(image, 2) @ weight.T, atol=1e-12, rtol=0)


def test_positions_are_their_formula():
    positions = sincos_positions(8, rows=2, columns=3)
    row, column = 1, 2
    expected = [
        *(math.sin(column * f) for f in (1.0, 0.01)),
        *(math.cos(column * f) for f in (1.0, 0.01)),
        *(math.sin(row * f) for f in (1.0, 0.01)),
        *(math.cos(row * f) for f in (1.0, 0.01)),
    ]
    assert positions.shape == (6, 8)
    torch.testing.assert_close(positions[row * 3 + column], torch.tensor(expected), atol=1e-7, rtol=0)
    with pytest.raises(UserError, match="multiple of 4, got 6"):
        sincos_positions(6, rows=2, columns=2)


@pytest.mark.parity
def test_positions_equal_those_of_published_mae_weights():
    from transformers import ViTMAEConfig, ViTMAEModel

    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=12, patch_size=4
    )
    embeddings = ViTMAEModel(config).embeddings
    embeddings.patch_embeddings.projection._is_hf_initialized = False  # or it keeps the zeros it was made with
    embeddings.initialize_weights()
    theirs = embeddings.position_embeddings[0, 1:]
    torch.testing.assert_close(sincos_positions(16, rows=3, columns=3), theirs, atol=1e-6, rtol=0)


def test_waves_tell_columns_then_rows_whatever_the_size_of_the_grid():
    fine, coarse = place_waves(6), place_waves(2)
    assert fine.shape == (36, WAVES)
    for side, waves in ((6, fine), (2, coarse)):
        column, row = waves.view(side, side, 2, -1).unbind(2)
        assert (column == column[:1]).all()
        assert (row == row[:, :1]).all()
        assert torch.equal(column.transpose(0, 1), row)
    # the left upper quarter of a picture has its middle at 1/4 of each side
    by_hand = [-0.5, *(wave(math.pi * turns / 4) for turns in (1, 2, 4, 8) for wave in (math.sin, math.cos))]
    torch.testing.assert_close(coarse[0], torch.tensor(2 * by_hand), atol=1e-6, rtol=0)
    # the middle of three places by three is that of one place that fills the picture
    torch.testing.assert_close(place_waves(3)[4], place_waves(1)[0], atol=1e-6, rtol=0)
    assert torch.cdist(fine, fine).add(10 * torch.eye(36)).min() > 0.5, "no two places read alike"
