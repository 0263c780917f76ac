"""Pooling: means, last tokens, and attention."""

from __future__ import annotations

import torch

from diptych.nn.pool import MeanAttentionPool, QueryPool, last_real, masked_mean

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()


def test_masked_mean_ignores_even_nan_in_padding():
    tokens = torch.randn(3, 4, 5)
    tokens[1, 2:] = torch.nan
    mean = masked_mean(tokens, MASK)
    torch.testing.assert_close(mean[0], tokens[0].mean(0))
    torch.testing.assert_close(mean[1], tokens[1, :2].mean(0))
    assert (mean[2] == 0).all()


def test_last_real_token():
    tokens = torch.randn(3, 4, 5)
    last = last_real(tokens, MASK)
    assert torch.equal(last[0], tokens[0, 3])
    assert torch.equal(last[1], tokens[1, 1])
    assert (last[2] == 0).all()


def test_mean_attention_pool_asks_with_the_mean():
    pool = MeanAttentionPool(8, 2, places=6)
    grid = torch.randn(3, 6, 8)
    tokens = torch.cat([grid.mean(1, keepdim=True), grid], dim=1) + pool.positions
    torch.testing.assert_close(pool(grid), pool.attention(tokens)[:, 0], atol=1e-6, rtol=0)
    assert pool.positions.shape == (7, 8)


def test_query_pool_does_not_see_padding_or_order():
    pool = QueryPool(8, 2, queries=3, context=5)
    tokens = torch.randn(3, 4, 5)
    pooled = pool(tokens, MASK)
    assert pooled.shape == (3, 3, 8)
    assert (pooled[2] == 0).all()
    torch.testing.assert_close(pooled[1:2], pool(tokens[1:2, :2]), atol=1e-6, rtol=0)
    order = torch.randperm(4)
    torch.testing.assert_close(pool(tokens[:, order], MASK[:, order]), pooled, atol=1e-6, rtol=0)
