"""Decoding: the likeliest text by beam search, the greedy one, or texts drawn at random, for many items at once.

What writes is a function `ask(tokens, parents) -> logits`: given the newest token of some rows of each item, and which
row of the call before each row continues, it returns the logits of what follows. The first call has one row, the begin
mark, and parents of zero. What it remembers between calls (keys and values) is its own affair.

No item's text depends on the others of its batch: an item whose texts are settled changes no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.core.errors import UserError
from diptych.core.writing import Writing, Written

Ask: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From tokens (b, k) and parents (b, k) to logits (b, k, v)."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Token ids that are not words; those in `never` are not written."""

    bos: int
    eos: int
    pad: int
    never: tuple[int, ...] = ()


def write(ask: Ask, items: int, marks: Marks, writing: Writing, *, device: torch.device | str = "cpu") -> Written:
    """Write `writing.count` texts for each item, as `writing` says; without gradient.

    Raises:
        UserError: when more texts are asked for than there are beams.
    """
    with torch.no_grad():
        if writing.nucleus is not None:
            return draw(ask, items, marks, writing, device=device)
        if writing.beams == 1 and writing.count == 1:
            return greedy(ask, items, marks, writing, device=device)
        return beam_search(ask, items, marks, writing, device=device)


def greedy(ask: Ask, items: int, marks: Marks, writing: Writing, *, device: torch.device | str = "cpu") -> Written:
    """Take the likeliest token each time."""

    def choose(log_prob: Float[Tensor, "b k v"], allowed: Float[Tensor, "b k v"]) -> Int[Tensor, "b k"]:
        return allowed.argmax(-1)

    return _rows(ask, _first(items, marks, device), marks, writing, choose)


def draw(ask: Ask, items: int, marks: Marks, writing: Writing, *, device: torch.device | str = "cpu") -> Written:
    """Draw each token from the smallest set of the likeliest ones whose probabilities sum to `writing.nucleus`.

    Torch's own random numbers are used: `torch.manual_seed` makes the texts come back.

    Reference:
        Holtzman et al. 2019, arXiv 1904.09751 (nucleus sampling).
    """

    def choose(log_prob: Float[Tensor, "b k v"], allowed: Float[Tensor, "b k v"]) -> Int[Tensor, "b k"]:
        chance = (allowed / writing.temperature).softmax(-1)
        if writing.nucleus is not None and writing.nucleus < 1:
            chance = within_nucleus(chance, writing.nucleus)
        return torch.multinomial(chance.flatten(0, 1), 1).view(chance.shape[:2])

    found = _rows(ask, _first(items, marks, device), marks, writing, choose)
    best = found.score.argsort(dim=1, descending=True, stable=True)
    return Written(*(_take(value, best) for value in (found.tokens, found.mask, found.log_prob, found.score)))


def within_nucleus(chance: Float[Tensor, "... v"], mass: float) -> Float[Tensor, "... v"]:
    """Set to zero what is not among the likeliest tokens that together first reach `mass`."""
    ordered, places = chance.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= mass * ordered.sum(-1, keepdim=True), 0.0)
    return torch.zeros_like(chance).scatter_(-1, places, kept)


def beam_search(ask: Ask, items: int, marks: Marks, writing: Writing, *, device: torch.device | str = "cpu") -> Written:
    """Keep the likeliest unfinished texts, and the best finished ones beside them, until none can be overtaken.

    As in transformers' generate with `early_stopping="never"`: of twice as many candidates as beams, those that end
    and are among the first half join the finished texts, the best others go on. What is still unfinished at the
    longest length counts as it is. With as many beams as there are texts the search is exhaustive.

    Raises:
        UserError: when more texts are asked for than there are beams.
    """
    if writing.count > writing.beams:
        count, beams = writing.count, writing.beams
        raise UserError(f"{count} texts need as many beams, got beams={beams}: ask for fewer or give beams={count}")
    tokens, parents = _first(items, marks, device), torch.zeros(items, 1, dtype=torch.long, device=device)
    finished = _Finished(items, marks, writing, device)
    live = torch.zeros(items, 1, device=device)
    history = torch.empty(items, 1, 0, dtype=torch.long, device=device)
    for step in range(writing.longest):
        log_prob = _allowed(ask(tokens, parents).float().log_softmax(-1), marks, writing, step)
        vocabulary, last = log_prob.shape[2], step == writing.longest - 1
        total = (log_prob + live.unsqueeze(-1)).flatten(1)
        best, flat = total.topk(min(2 * writing.beams, total.shape[1]), dim=1)
        parents, tokens = flat // vocabulary, flat % vocabulary
        history = torch.cat([_take(history, parents), tokens.unsqueeze(-1)], dim=2)
        ends = tokens == marks.eos
        leading = torch.arange(best.shape[1], device=ends.device) < writing.beams
        finished.add(history, best.masked_fill(~(leading & (ends | last)), -torch.inf), step + 1)
        live, going = best.masked_fill(ends, -torch.inf).topk(min(writing.beams, best.shape[1]), dim=1)
        if last or finished.settled(live[:, 0], step + 1):
            break
        parents, tokens, history = parents.gather(1, going), tokens.gather(1, going), _take(history, going)
    return finished.written()


class _Finished:
    """The best finished texts of each item."""

    def __init__(self, items: int, marks: Marks, writing: Writing, device: torch.device | str) -> None:
        self.marks, self.writing = marks, writing
        shape = (items, writing.count)
        self.tokens = torch.full((*shape, writing.longest), marks.pad, device=device)
        self.length = torch.zeros(shape, dtype=torch.long, device=device)
        self.log_prob = torch.full(shape, -torch.inf, device=device)
        self.score = torch.full(shape, -torch.inf, device=device)
        self.open = torch.ones(items, dtype=torch.bool, device=device)

    def add(self, texts: Int[Tensor, "b c t"], log_prob: Float[Tensor, "b c"], length: int) -> None:
        """Offer texts, all of one length; minus infinity is no offer, and what is settled takes none."""
        score = (log_prob / length**self.writing.length_power).masked_fill(~self.open.unsqueeze(1), -torch.inf)
        self.score, best = torch.cat([self.score, score], dim=1).topk(self.writing.count, dim=1)
        padded = torch.full((*score.shape, self.writing.longest), self.marks.pad, device=texts.device)
        padded[:, :, :length] = texts
        lengths = torch.full_like(score, length, dtype=torch.long)
        self.tokens = _take(torch.cat([self.tokens, padded], dim=1), best)
        self.length = _take(torch.cat([self.length, lengths], dim=1), best)
        self.log_prob = _take(torch.cat([self.log_prob, log_prob], dim=1), best)

    def settled(self, live: Float[Tensor, " b"], length: int) -> bool:
        """Close the items whose worst kept text no unfinished one can overtake; tell whether all are closed."""
        power = self.writing.length_power
        bound = live / (self.writing.longest if power > 0 else length + 1) ** power
        self.open &= self.score[:, -1] < bound
        return not bool(self.open.any())

    def written(self) -> Written:
        """Return them."""
        longest = max(1, int(self.length.max())) if self.length.numel() > 0 else 1
        places = torch.arange(longest, device=self.length.device)
        mask = (places < self.length.unsqueeze(-1)) & self.score.isfinite().unsqueeze(-1)
        tokens = self.tokens[:, :, :longest].masked_fill(~mask, self.marks.pad)
        return Written(tokens, mask, self.log_prob, self.score)


def _rows(
    ask: Ask,
    first: Int[Tensor, "b 1"],
    marks: Marks,
    writing: Writing,
    choose: Callable[[Tensor, Tensor], Int[Tensor, "b k"]],
) -> Written:
    """Write rows that go on by themselves, each with the token that `choose` takes, until every one has ended."""
    count, items = writing.count, len(first)
    tokens, parents = first, torch.zeros_like(first)
    total = torch.zeros(items, count, device=first.device)
    going = torch.ones(items, count, dtype=torch.bool, device=first.device)
    written, real = [], []
    for step in range(writing.longest):
        log_prob = ask(tokens, parents).float().log_softmax(-1)
        log_prob = log_prob.expand(-1, count, -1)  # the rows part at the first token
        chosen = choose(log_prob, _allowed(log_prob, marks, writing, step))
        tokens = chosen.masked_fill(~going, marks.pad)
        gained = log_prob.gather(2, chosen.unsqueeze(-1)).squeeze(-1)
        total = total + gained.masked_fill(~going, 0.0)
        written.append(tokens)
        real.append(going)
        going = going & (tokens != marks.eos)
        if not bool(going.any()):
            break
        parents = torch.arange(count, device=first.device).expand(items, -1)
        if step == 0:
            parents = torch.zeros_like(parents)
    mask = torch.stack(real, dim=2)
    score = total / mask.sum(2) ** writing.length_power
    return Written(torch.stack(written, dim=2), mask, total, score)


def _allowed(log_prob: Float[Tensor, "b k v"], marks: Marks, writing: Writing, step: int) -> Float[Tensor, "b k v"]:
    """Rule out what may not be written: marks other than the end, and the end before the shortest length."""
    never = [*marks.never, *([marks.eos] if step + 1 < writing.shortest else [])]
    if not never:
        return log_prob
    return log_prob.index_fill(2, torch.tensor(never, device=log_prob.device), -torch.inf)


def _first(items: int, marks: Marks, device: torch.device | str) -> Int[Tensor, "b 1"]:
    return torch.full((items, 1), marks.bos, device=device)


def _take(values: Tensor, rows: Int[Tensor, "b k"]) -> Tensor:
    """Take some rows of each item."""
    if values.ndim == 2:
        return values.gather(1, rows)
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[2]))
