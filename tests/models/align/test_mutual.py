from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Coupled
from diptych.models.align.mutual import hide, reading_order
from tests.models.align.fixture import make, pairs

SIZES = {"decoder_dim": 8, "decoder_heads": 2}
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]).bool()


def ragged():
    return replace(pairs(), token_mask=MASK)


def test_a_text_is_read_backwards_between_its_ends():
    order = reading_order(MASK)
    assert order.tolist() == [[0, 4, 3, 2, 1, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    longer = reading_order(torch.arange(7)[None] < 5)
    assert longer.tolist() == [[0, 3, 2, 1, 4, 5, 6]]
    assert torch.equal(longer.gather(1, longer), torch.arange(7)[None])


def test_the_ends_of_a_text_are_never_hidden():
    for training in (True, False):
        hidden = hide(MASK, share=0.99, training=training)
        assert hidden.sum(1).tolist()[1:] == [hidden[1, 1].int().item(), 0, 0]
        assert not hidden[:, 0].any()
        assert not hidden[0, 5]
    assert hide(torch.ones(50, 40).bool(), share=0.3, training=True).float().mean().item() == pytest.approx(
        0.3, abs=0.05
    )
    assert hide(torch.ones(1, 40).bool(), share=0.3, training=False).float().mean().item() == pytest.approx(
        0.3, abs=0.05
    )


def test_a_palindrome_costs_the_same_both_ways_when_the_weights_are_tied():
    model, batch = make("mutual", feedback="one-way", **SIZES).double().eval(), pairs()
    model.backwards.load_state_dict(model.forwards.state_dict())
    tokens = torch.tensor([[1, 7, 9, 9, 7, 2], [1, 8, 8, 2, 0, 0], [1, 30, 2, 0, 0, 0], [1, 5, 6, 5, 2, 0]])
    palindromes = replace(batch, tokens=tokens, token_mask=tokens > 0)
    parts = model.loss(palindromes).parts
    torch.testing.assert_close(parts["forwards"], parts["backwards"], rtol=1e-10, atol=1e-10)
    other = replace(palindromes, tokens=tokens.index_fill(1, torch.tensor([2]), 11))
    assert (model.loss(other).parts["forwards"] - model.loss(other).parts["backwards"]).abs() > 1e-6


def test_captions_by_hand():
    model, batch = make("mutual", feedback="one-way", caption_weight=1.0, **SIZES).double().eval(), ragged()
    grid = model.image_tower(batch.image)
    total, words = 0.0, 0
    for row, length in enumerate(MASK.sum(1).tolist()):
        one = batch.part(slice(row, row + 1))
        seen = grid.map(lambda x, row=row: x[row : row + 1])
        for place in range(1, length):
            # a model that is given only the words before must say the same
            known = model.words(one.tokens[:, :place])
            known = F.pad(known, (0, 0, 0, 1))
            logits = model.logits(model.forwards(known, seen)[:, place])
            total, words = total + F.cross_entropy(logits, one.tokens[:, place]), words + 1
    torch.testing.assert_close(model.loss(batch).parts["forwards"], (total / words).detach(), rtol=1e-10, atol=1e-10)


def test_a_word_is_guessed_without_seeing_it_or_told_without_what_comes_after():
    model, batch = make("mutual", **SIZES).eval(), pairs()
    grid = model.image_tower(batch.image)
    hidden = torch.zeros(4, 6).bool()
    hidden[:, 3] = True
    other = replace(batch, tokens=batch.tokens.clone())
    other.tokens[:, 3] = 4 + (batch.tokens[:, 3] + 1) % 40
    torch.testing.assert_close(model.guessed(batch, grid, hidden)[:, 3], model.guessed(other, grid, hidden)[:, 3])
    assert (model.guessed(batch, grid, ~hidden)[:, 3] - model.guessed(other, grid, ~hidden)[:, 3]).abs().max() > 1e-4
    for one, two, blind in zip(model.told(batch, grid), model.told(other, grid), ([1, 2, 3], [3, 4]), strict=True):
        torch.testing.assert_close(one[:, blind], two[:, blind])
    assert (model.told(batch, grid)[0][:, 4] - model.told(other, grid)[0][:, 4]).abs().max() > 1e-4
    assert (model.told(batch, grid)[1][:, 2] - model.told(other, grid)[1][:, 2]).abs().max() > 1e-4


def slopes(model, total):
    model.zero_grad(set_to_none=True)
    total.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("term", ["forwards", "masked"])
def test_feedback_teaches_the_encoder_of_the_other_modality(term):
    weights = {"contrast_weight": 0.0, "caption_weight": 0.0, "masked_weight": 0.0, "mutual_weight": 0.0}
    weights["caption_weight" if term == "forwards" else "masked_weight"] = 1.0
    model = make("mutual", **weights, **SIZES)
    found = slopes(model, model.loss(pairs()).total)
    learns = "image_tower" if term == "forwards" else "text_tower"
    assert sum(value.abs().sum() for name, value in found.items() if name.startswith(learns)) > 0
    if term == "forwards":
        assert all((value == 0).all() for name, value in found.items() if name.startswith("text_tower"))


def test_the_total_is_the_weighted_sum_and_one_way_has_no_way_back():
    weights = {"contrast_weight": 0.7, "caption_weight": 0.3, "masked_weight": 1.9, "mutual_weight": 0.2}
    ones = dict.fromkeys(weights, 1.0)
    model, plain = (make("mutual", **chosen, **SIZES).eval() for chosen in (weights, ones))
    plain.load_state_dict(model.state_dict())
    batch = ragged()
    parts, loss = plain.loss(batch).parts, model.loss(batch)
    wanted = 0.7 * parts["contrast"] + 0.3 * (parts["forwards"] + parts["backwards"])
    wanted = wanted + 1.9 * parts["masked"] + 0.2 * parts["mutual"]
    torch.testing.assert_close(loss.total.detach(), wanted)
    one_way = make("mutual", feedback="one-way", **SIZES)
    assert set(one_way.loss(batch).parts) == {"contrast", "forwards", "backwards", "scale"}
    assert isinstance(one_way, Coupled)


def test_the_grid_of_a_frozen_tower_stands_in_for_pixels():
    with pytest.raises(UserError, match="set image_read=cells"):
        make("mutual", image_train="frozen", **SIZES)
    model = make("mutual", image_train="frozen", image_read="cells", queries=2, **SIZES).eval()
    assert model.reads().grid
    batch = pairs()
    states = Batch(
        image_states=model.image_tower(batch.image),
        tokens=batch.tokens,
        token_mask=batch.token_mask,
        pair_id=batch.pair_id,
    )
    torch.testing.assert_close(model.loss(states).total, model.loss(batch).total)
