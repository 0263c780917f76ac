"""N-grams of many sentences as sorted whole numbers: who has which, how often, found again by binary search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

LONGEST = 4
_WORD_BITS = 31


@dataclass(frozen=True, slots=True)
class Terms:
    """The different n-grams of each sentence, sorted by n-gram, then by sentence.

    Args:
        gram: number of the n-gram.
        sentence: who has it.
        count: how often.
    """

    gram: Int64[np.ndarray, " t"]
    sentence: Int64[np.ndarray, " t"]
    count: Int64[np.ndarray, " t"]


class Sentences:
    """Sentences as word numbers, one after another.

    Args:
        texts: words separated by spaces.
        known: numbers of words; words that are not in it get new numbers, which are added to it.
    """

    def __init__(self, texts: Sequence[str], known: dict[str, int]) -> None:
        split = [text.split() for text in texts]
        self.lengths = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
        flat = [word for sentence in split for word in sentence]
        for word in dict.fromkeys(flat):
            known.setdefault(word, len(known))
        self.words = np.fromiter(map(known.__getitem__, flat), dtype=np.int64, count=len(flat))
        self.owner = np.repeat(np.arange(len(split)), self.lengths)

    def __len__(self) -> int:
        """Count the sentences."""
        return len(self.lengths)

    def grams(self, vocabulary: Vocabulary) -> Iterator[Terms]:
        """Yield the terms of 1, 2, 3 and 4 words."""
        gram = self.words
        for n in range(1, LONGEST + 1):
            inside = self.owner[: len(gram)] == self.owner[n - 1 :]
            if n > 1:
                gram = vocabulary.numbers(n, (gram << _WORD_BITS) | self.words[n - 1 :], inside)
            yield _terms(gram[inside], self.owner[: len(gram)][inside], len(self))
            gram = gram[:-1]


class Vocabulary:
    """The words and n-grams of some reference sentences, by number; others are numbered behind them for one use.

    An n-gram is (number of the n-gram without its last word, number of that word), packed into one integer.
    """

    def __init__(self) -> None:
        self.words: dict[str, int] = {}
        self.packed: dict[int, Int64[np.ndarray, " g"]] = {}
        self.complete = False

    def sentences(self, texts: Sequence[str]) -> Sentences:
        """Turn texts into numbers; words of later texts are not kept once the vocabulary is complete."""
        return Sentences(texts, dict(self.words) if self.complete else self.words)

    def size(self, n: int) -> int:
        """Count the n-grams that are known."""
        return len(self.words) if n == 1 else len(self.packed[n])

    def numbers(
        self, n: int, packed: Int64[np.ndarray, " p"], inside: Bool[np.ndarray, " p"]
    ) -> Int64[np.ndarray, " p"]:
        """Return the numbers of n-grams; where `inside` is False there is none, and -1."""
        found = np.full(len(packed), -1, dtype=np.int64)
        if not self.complete:
            self.packed[n], found[inside] = _unique(packed[inside])
            return found
        asked, known = packed[inside], self.packed[n]
        place = np.searchsorted(known, asked)
        new = known[np.minimum(place, len(known) - 1)] != asked if len(known) else np.ones(len(asked), dtype=bool)
        place[new] = len(known) + _unique(asked[new])[1]
        found[inside] = place
        return found


def _unique(values: Int64[np.ndarray, " p"]) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " p"]]:
    """Return the different values, sorted, and the place of each value among them."""
    order = np.argsort(values)
    ordered = values[order]
    first = starts(ordered)
    place = np.empty_like(order)
    place[order] = np.cumsum(first) - 1
    return ordered[first], place


def starts(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark where a run of equal values begins."""
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def _terms(gram: NDArray[np.int64], owner: NDArray[np.int64], sentences: int) -> Terms:
    both = np.sort(gram * sentences + owner)
    place = np.flatnonzero(starts(both))
    count = np.diff(place, append=len(both))
    gram, sentence = np.divmod(both[place], max(sentences, 1))
    return Terms(gram, sentence, count)


def spread(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write out ranges: for each number of every range, which range it is of, and the number."""
    size = high - low
    of = np.repeat(np.arange(len(low)), size)
    ends = np.cumsum(size)
    return of, np.arange(len(of)) + np.repeat(low - ends + size, size)
