"""Stacked attention and cross-modal streams: their formulas, and what padding and missing sides must not do."""

import pytest
import torch

from diptych.nn.hops import StackedAttention
from diptych.nn.pool import masked_mean
from diptych.nn.streams import CrossStreams

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def inputs(*, cells=5, dim=4):
    random = torch.Generator().manual_seed(0)
    grid = torch.randn(3, cells, dim, generator=random, dtype=torch.float64)
    mask = torch.ones(3, cells, dtype=torch.bool)
    mask[1, 3:] = False
    return torch.randn(3, dim, generator=random, dtype=torch.float64), grid, mask


def test_two_hops_by_hand():
    question, cells, _ = inputs()
    stack = StackedAttention(4, hops=2, hidden=7).double()
    state, wanted = question, []
    for hop in stack.hops:
        inside = torch.tanh(cells @ hop.cells.weight.T + (state @ hop.question.weight.T + hop.question.bias)[:, None])
        p = torch.softmax((inside @ hop.score.weight.T)[..., 0].float(), 1)
        wanted.append(p)
        state = state + torch.einsum("bn,bnd->bd", p.double(), cells)
    seen, weights = stack(question, cells, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(seen, state - question, **EXACT)
    torch.testing.assert_close(weights, torch.stack(wanted, 1))
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 2))


def test_a_hop_that_scores_nothing_takes_the_mean_and_one_cell_is_all_there_is_to_see():
    question, cells, mask = inputs()
    stack = StackedAttention(4, hops=1).double()
    torch.nn.init.zeros_(stack.hops[0].score.weight)
    seen, weights = stack(question, cells, mask)
    torch.testing.assert_close(seen, masked_mean(cells, mask), rtol=1e-6, atol=1e-6)  # weights are float32
    assert (weights[1, 0, 3:] == 0).all()
    none, _ = StackedAttention(4, hops=0)(question, cells, mask)
    torch.testing.assert_close(none, masked_mean(cells, mask), rtol=1e-6, atol=1e-6)
    one, _ = StackedAttention(4, hops=1).double()(question, cells[:, :1], mask[:, :1])
    torch.testing.assert_close(one, cells[:, 0], rtol=1e-6, atol=1e-6)


def test_padding_is_not_looked_at_and_nothing_is_seen_in_the_dark():
    question, cells, mask = inputs()
    stack = StackedAttention(4, hops=2).double()
    scribbled = cells.masked_fill(~mask[..., None], 9.0)
    for one, other in zip(stack(question, cells, mask), stack(question, scribbled, mask), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    seen, weights = stack(question, cells, torch.zeros_like(mask))
    assert not seen.any()
    assert not weights.any()


@pytest.mark.parametrize("hops", [0, 2])
def test_a_picture_with_several_questions_need_stand_only_once(hops):
    question, cells, mask = inputs()
    stack = StackedAttention(4, hops=hops).double()
    picture = torch.tensor([2, 0, 0, 1, 2])
    asked = torch.cat([question, question[:2] + 1])
    once = stack(asked, cells, mask[picture], picture)
    each = stack(asked, cells[picture], mask[picture])
    for one, other in zip(once, each, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_streams_do_not_see_padding_nor_the_order_of_cells():
    _, cells, mask = inputs()
    _, words, real = inputs(cells=3)
    real[:, 2] = torch.tensor([True, False, True])
    streams = CrossStreams(4, 2, 2, hidden=8, out=6).double().eval()
    whole = streams(cells, mask, words, real)
    scribbled = streams(cells.masked_fill(~mask[..., None], 9.0), mask, words.masked_fill(~real[..., None], 9.0), real)
    torch.testing.assert_close(whole, scribbled, **EXACT)
    order = torch.tensor([2, 0, 1, 4, 3])
    torch.testing.assert_close(streams(cells[:, order], mask[:, order], words, real), whole, **EXACT)


def test_streams_are_two_and_each_looks_at_the_others_first_tokens():
    _, cells, mask = inputs()
    _, words, real = inputs(cells=3)
    streams = CrossStreams(4, 2, 2, hidden=8, out=6).double().eval()
    x, y = cells, words
    for cell_layer, word_layer in zip(streams.cells, streams.words, strict=True):
        x = cell_layer(x, streams.word_norm(words), real)
        y = word_layer(y, streams.cell_norm(cells), mask)
    pooled = torch.cat([masked_mean(x, mask), masked_mean(y, real)], 1)
    torch.testing.assert_close(streams(cells, mask, words, real), streams.out(pooled), **EXACT)
    blind = streams(cells, torch.zeros_like(mask), words, real)
    other = streams(cells + 5, torch.zeros_like(mask), words, real)
    torch.testing.assert_close(blind, other, rtol=0, atol=0)
