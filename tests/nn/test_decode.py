"""Decoding against every text there is, and against itself without caches, beams or company."""

import itertools
import math

import pytest
import torch

from diptych.core.errors import UserError
from diptych.core.writing import Writing
from diptych.nn.decode import Marks, beam_search, draw, greedy, within_nucleus, write

BOS, EOS, PAD = 0, 1, 4
MARKS = Marks(BOS, EOS, PAD, (BOS, PAD))
WORDS = 5  # bos, eos, two words, pad


def logits_after(item: int, history: tuple[int, ...]) -> torch.Tensor:
    """Random, but always the same for the same item and history."""
    seed = sum((token + 1) * 7**place for place, token in enumerate(history)) + 100003 * item
    return torch.randn(WORDS, generator=torch.Generator().manual_seed(seed)) * 2


class Toy:
    """Remembers what each row has written, as a cache does, by the parents it is told."""

    def __init__(self, items):
        self.items = items
        self.histories = None

    def __call__(self, tokens, parents):
        if self.histories is None:
            self.histories = [[()] * tokens.shape[1] for _ in self.items]
        self.histories = [
            [(*old[parent], token) for token, parent in zip(row, above, strict=True)]
            for old, row, above in zip(self.histories, tokens.tolist(), parents.tolist(), strict=True)
        ]
        rows = zip(self.items, self.histories, strict=True)
        return torch.stack([torch.stack([logits_after(item, each) for each in row]) for item, row in rows])


def every_text(item: int, writing: Writing) -> list[tuple[float, tuple[int, ...]]]:
    """Score all texts that may be written: those that end, and those cut at the longest length."""
    found = []
    for length in range(1, writing.longest + 1):
        for text in itertools.product((EOS, 2, 3), repeat=length):
            ended = text[-1] == EOS
            if EOS in text[:-1] or (not ended and length < writing.longest) or (ended and length < writing.shortest):
                continue
            total = sum(
                logits_after(item, (BOS, *text[:place])).log_softmax(0)[token].item()
                for place, token in enumerate(text)
            )
            found.append((total / length**writing.length_power, text))
    return sorted(found, reverse=True)


def texts(written):
    return [
        [tuple(row[real].tolist()) for row, real in zip(rows, masks, strict=True)]
        for rows, masks in zip(written.tokens, written.mask, strict=True)
    ]


@pytest.mark.parametrize("power", [0.0, 0.7, 2.0, -0.5])
@pytest.mark.parametrize("shortest", [1, 3])
def test_a_wide_search_finds_the_best_of_all_texts(power, shortest):
    writing = Writing(beams=60, count=6, longest=4, shortest=shortest, length_power=power)
    found = beam_search(Toy([0, 1, 2]), 3, MARKS, writing)
    for item, row in enumerate(texts(found)):
        best = every_text(item, writing)[:6]
        assert row == [text for _, text in best]
        torch.testing.assert_close(found.score[item], torch.tensor([score for score, _ in best]), rtol=1e-5, atol=1e-5)


def test_a_narrow_search_is_never_better_than_a_wide_one():
    narrow, wide = (
        beam_search(Toy(range(20)), 20, MARKS, Writing(beams=beams, shortest=4, longest=5)) for beams in (1, 60)
    )
    assert (narrow.score <= wide.score + 1e-5).all()
    assert (narrow.score < wide.score - 1e-3).any(), "one beam is too few somewhere"


def test_one_beam_is_greedy():
    writing = Writing(beams=1, longest=6)
    one, other = beam_search(Toy(range(9)), 9, MARKS, writing), greedy(Toy(range(9)), 9, MARKS, writing)
    assert texts(one) == texts(other)
    torch.testing.assert_close(one.log_prob, other.log_prob)
    row, item = texts(other)[4][0], 4
    for place, token in enumerate(row):
        allowed = logits_after(item, (BOS, *row[:place])).index_fill(0, torch.tensor([BOS, PAD]), -math.inf)
        assert token == int(allowed.argmax())


@pytest.mark.parametrize("how", [{"beams": 3, "count": 2}, {"beams": 1}])
def test_the_others_of_a_batch_change_nothing(how):
    writing = Writing(longest=6, length_power=0.5, **how)
    together = texts(write(Toy(range(8)), 8, MARKS, writing))
    assert together == [texts(write(Toy([item]), 1, MARKS, writing))[0] for item in range(8)]
    order = [5, 2, 7, 0]
    assert texts(write(Toy(order), 4, MARKS, writing)) == [together[item] for item in order]
    assert len({len(row[0]) for row in together}) > 1, "the texts should end at different places"


def test_scores_are_sums_of_log_probabilities_over_a_power_of_the_length():
    found = beam_search(Toy([3]), 1, MARKS, Writing(beams=4, count=3, longest=5, length_power=0.8))
    for text, total, score in zip(texts(found)[0], found.log_prob[0], found.score[0], strict=True):
        logs = [logits_after(3, (BOS, *text[:place])).log_softmax(0)[token] for place, token in enumerate(text)]
        torch.testing.assert_close(total, torch.stack(logs).sum())
        torch.testing.assert_close(score, total / len(text) ** 0.8)


def test_lengths_are_kept_and_marks_are_not_written():
    for writing in (
        Writing(beams=3, shortest=4, longest=6),
        Writing(beams=1, shortest=4, longest=6),
        Writing(nucleus=1.0, shortest=4, longest=6, count=5),
    ):
        found = write(Toy(range(30)), 30, MARKS, writing)
        assert found.mask.sum(2).min() >= 4
        assert found.tokens.shape[2] <= 6
        assert not torch.isin(found.tokens[found.mask], torch.tensor([BOS, PAD])).any()
        assert (found.tokens[~found.mask] == PAD).all()


def test_more_texts_than_there_are_leave_places_empty():
    found = beam_search(Toy([0]), 1, MARKS, Writing(beams=9, count=9, longest=1))
    assert found.score.isfinite().sum() == 3
    assert found.mask.sum() == 3


def test_more_texts_than_beams_are_refused():
    with pytest.raises(UserError, match=r"3 texts need as many beams, got beams=2"):
        beam_search(Toy([0]), 1, MARKS, Writing(beams=2, count=3))


def test_the_nucleus_is_the_smallest_set_that_reaches_the_mass():
    chance = torch.tensor([[0.1, 0.5, 0.25, 0.15], [0.97, 0.01, 0.01, 0.01]])
    torch.testing.assert_close(within_nucleus(chance, 0.7), torch.tensor([[0, 0.5, 0.25, 0], [0.97, 0, 0, 0]]))
    torch.testing.assert_close(within_nucleus(chance, 0.76)[0], torch.tensor([0, 0.5, 0.25, 0.15]))
    torch.testing.assert_close(within_nucleus(chance, 1.0), chance)
    torch.testing.assert_close(within_nucleus(chance * 0.3, 0.7)[0], torch.tensor([0, 0.15, 0.075, 0]))


def test_drawing_has_the_chances_of_the_model_and_comes_back_with_the_seed():
    writing = Writing(nucleus=1.0, longest=1, count=4000)
    found = draw(Toy([2]), 1, MARKS, writing)
    share = torch.bincount(found.tokens[0, :, 0], minlength=WORDS) / 4000
    chance = logits_after(2, (BOS,)).index_fill(0, torch.tensor([BOS, PAD]), -math.inf).softmax(0)
    torch.testing.assert_close(share, chance, rtol=0, atol=4 * 0.5 / 4000**0.5)  # four standard errors at most
    torch.manual_seed(5)
    one = draw(Toy(range(4)), 4, MARKS, Writing(nucleus=0.9, longest=5, count=3))
    torch.manual_seed(5)
    assert texts(one) == texts(draw(Toy(range(4)), 4, MARKS, Writing(nucleus=0.9, longest=5, count=3)))


def test_the_least_nucleus_and_the_coldest_drawing_are_greedy():
    wanted = texts(greedy(Toy(range(6)), 6, MARKS, Writing(beams=1, longest=5)))
    for writing in (Writing(nucleus=1e-6, longest=5), Writing(nucleus=1.0, temperature=1e-4, longest=5)):
        assert texts(draw(Toy(range(6)), 6, MARKS, writing)) == wanted


def test_drawn_texts_stand_in_the_order_of_their_scores():
    found = draw(Toy(range(5)), 5, MARKS, Writing(nucleus=1.0, longest=5, count=4))
    assert (found.score.diff(dim=1) <= 0).all()
    for item, row in enumerate(texts(found)):
        for text, total in zip(row, found.log_prob[item], strict=True):
            logs = [logits_after(item, (BOS, *text[:place])).log_softmax(0)[t] for place, t in enumerate(text)]
            torch.testing.assert_close(total, torch.stack(logs).sum())
