"""Scores of captions against references, without Java: BLEU-1 to 4, ROUGE-L, CIDEr and CIDEr-D.

The numbers are those of the COCO evaluation code (pycocoevalcap) for the same words, to rounding; words come from
`metrics/words.py`. As there, the length in CIDEr-D's penalty counts pairs of words, a sentence of fewer than four words
cannot reach 10, and a corpus of one picture scores 0 (every n-gram is in all of it). Differences: an empty caption
scores 0 also by ROUGE-L (there it is a word that an empty reference matches), an empty reference matches nothing, and
nothing changes when scores are asked for twice (there document frequencies add up).

Reference:
    Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam et al. 2014, arXiv 1411.5726 (CIDEr, CIDEr-D).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from diptych.core.errors import UserError
from diptych.metrics.ngrams import LONGEST, Sentences, Terms, Vocabulary, spread, starts
from diptych.metrics.subsequence import common
from diptych.metrics.words import lines

SIGMA = 6.0  # pairs of words: how soon CIDEr-D forgives no other length
BETA = 1.2  # how much more recall weighs than precision in ROUGE-L
_TINY, _SMALL = 1e-15, 1e-9  # what COCO's BLEU adds above and below


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score one caption for each picture, as written, against the picture's references.

    Returns:
        `"bleu1"` to `"bleu4"` of the corpus and the mean `"rouge_l"`, in [0, 1]; the mean `"cider_d"` and `"cider"`, in
        [0, 10], which depend on the corpus: they compare only systems scored on the same pictures.

    Raises:
        UserError: where candidates and references differ in number, or a picture has no reference.
    """
    known = References([lines(each) for each in references])
    found = lines(candidates)
    bleu = known.bleu(found)[0]
    scores = {f"bleu{n}": float(value) for n, value in enumerate(bleu, start=1)}
    scores["rouge_l"] = float(known.rouge(found).mean())
    scores["cider_d"] = float(known.cider(found).mean())
    return scores | {"cider": float(known.cider(found, penalised=False).mean())}


@dataclass(frozen=True, slots=True)
class _Level:
    """The n-grams of one length in all references: the terms, a key to find them by, weights and their lengths."""

    terms: Terms
    key: Int64[np.ndarray, " t"]
    idf: Float64[np.ndarray, " g"]
    weight: Float64[np.ndarray, " t"]
    scale: Float64[np.ndarray, " s"]


@dataclass(frozen=True, slots=True)
class _Met:
    """Candidates' terms of one length, and where they stand in references of the same picture.

    Args:
        terms: of the candidates.
        of: for each meeting, which term it is of.
        place: for each meeting, which term of the references.
    """

    terms: Terms
    of: Int64[np.ndarray, " m"]
    place: Int64[np.ndarray, " m"]


class References:
    """References taken apart once, to score batches of candidates against quickly, as self-critical training does.

    Texts here are words separated by spaces (`words.lines` makes them). `images` tells whose references a candidate
    meets, so that several candidates of one picture, or some pictures alone, are scored under the same frequencies.

    Args:
        references: of each picture, at least one.
        counted: document frequencies are those among so many of the pictures, the first; all when None.

    Raises:
        UserError: for no pictures, or one without reference.
    """

    def __init__(self, references: Sequence[Sequence[str]], *, counted: int | None = None) -> None:
        number = np.fromiter(map(len, references), dtype=np.int64, count=len(references))
        if len(number) == 0 or number.min() == 0:
            raise UserError(
                f"each picture needs a reference caption; {int((number == 0).sum())} of {len(number)} have none"
            )
        self.first = np.concatenate([[0], np.cumsum(number)])
        self.counted = len(references) if counted is None else counted
        if not 1 <= self.counted <= len(references):
            raise UserError(f"counted={counted} must be 1 to {len(references)}, the number of pictures")
        self._vocabulary = Vocabulary()
        self._sentences = self._vocabulary.sentences([text for each in references for text in each])
        image = np.repeat(np.arange(len(references)), number)
        self._levels = [
            self._level(n, terms, image) for n, terms in enumerate(self._sentences.grams(self._vocabulary), start=1)
        ]
        self._vocabulary.complete = True

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.first) - 1

    def cider(
        self, candidates: Sequence[str], images: NDArray[np.int64] | None = None, *, penalised: bool = True
    ) -> Float64[np.ndarray, " c"]:
        """Score by the n-grams that are rare among pictures.

        Args:
            candidates: words separated by spaces.
            images: which picture each describes; all in turn when None.
            penalised: CIDEr-D, which counts no n-gram more often than the reference has it, and punishes another
                length; CIDEr when False.

        Returns:
            A score for each candidate, from 0 to 10.

        Raises:
            UserError: where candidates and pictures do not fit.
        """
        sentences, images = self._candidates(candidates, images)
        score = np.zeros(len(sentences))
        pairs = np.maximum(sentences.lengths - 1, 0), np.maximum(self._sentences.lengths - 1, 0)
        for level, met in zip(self._levels, self._meet(sentences, images), strict=True):
            known = np.concatenate([level.idf, [np.log(self.counted)]])
            weight = met.terms.count * known[np.minimum(met.terms.gram, len(level.idf))]
            own, other = weight[met.of], level.weight[met.place]
            candidate, reference = met.terms.sentence[met.of], level.terms.sentence[met.place]
            product = (np.minimum(own, other) if penalised else own) * other
            product *= _scale(met.terms.sentence, weight, len(sentences))[candidate] * level.scale[reference]
            if penalised:
                product *= np.exp(-((pairs[0][candidate] - pairs[1][reference]) ** 2) / (2 * SIGMA**2))
            score += np.bincount(candidate, product, minlength=len(score))
        return np.asarray(10 * score / (LONGEST * np.diff(self.first)[images]))

    def bleu(
        self, candidates: Sequence[str], images: NDArray[np.int64] | None = None
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "c n"]]:
        """Score by the n-grams that some reference has, with a penalty for brevity.

        Args:
            candidates: words separated by spaces.
            images: which picture each describes; all in turn when None.

        Returns:
            BLEU-1 to 4 of all candidates together, and of each alone, in [0, 1]. The reference length is the closest
            one, the shorter of two.

        Raises:
            UserError: where candidates and pictures do not fit.
        """
        sentences, images = self._candidates(candidates, images)
        right = np.zeros((len(sentences), LONGEST))
        for n, (level, met) in enumerate(zip(self._levels, self._meet(sentences, images), strict=True)):
            begins = np.flatnonzero(starts(met.of))
            most = np.maximum.reduceat(level.terms.count[met.place], begins) if len(begins) else begins
            term = met.of[begins]
            matched = np.minimum(met.terms.count[term], most)
            right[:, n] = np.bincount(met.terms.sentence[term], matched, minlength=len(right))
        guessed = np.maximum(sentences.lengths[:, None] - np.arange(LONGEST), 0)
        nearest = self._nearest(sentences, images)
        together = _bleu(right.sum(0)[None], guessed.sum(0)[None], sentences.lengths.sum()[None], nearest.sum()[None])
        return together[0], _bleu(right, guessed, sentences.lengths, nearest)

    def rouge(self, candidates: Sequence[str], images: NDArray[np.int64] | None = None) -> Float64[np.ndarray, " c"]:
        """Score by the longest common subsequence of words (ROUGE-L).

        Args:
            candidates: words separated by spaces.
            images: which picture each describes; all in turn when None.

        Returns:
            A score in [0, 1] for each candidate, of the best precision and the best recall among the references.

        Raises:
            UserError: where candidates and pictures do not fit.
        """
        sentences, images = self._candidates(candidates, images)
        of, reference = spread(self.first[images], self.first[images + 1])
        found = common(sentences, self._sentences, of, reference)
        begins = np.flatnonzero(starts(of))
        if len(begins) == 0:
            return np.zeros(0)
        precision = np.maximum.reduceat(found / np.maximum(sentences.lengths[of], 1), begins)
        recall = np.maximum.reduceat(found / np.maximum(self._sentences.lengths[reference], 1), begins)
        below = recall + BETA**2 * precision
        return (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1)

    def _level(self, n: int, terms: Terms, image: NDArray[np.int64]) -> _Level:
        """Weigh the n-grams of one length."""
        grams, sentences = self._vocabulary.size(n), len(self._sentences)
        of_image = image[terms.sentence]
        new = starts(terms.gram) | starts(of_image)
        frequency = np.bincount(terms.gram[new & (of_image < self.counted)], minlength=grams)
        idf = np.log(self.counted) - np.log(np.maximum(frequency, 1))
        weight = terms.count * idf[terms.gram]
        return _Level(
            terms, terms.gram * sentences + terms.sentence, idf, weight, _scale(terms.sentence, weight, sentences)
        )

    def _candidates(
        self, candidates: Sequence[str], images: NDArray[np.int64] | None
    ) -> tuple[Sentences, NDArray[np.int64]]:
        images = np.arange(len(self)) if images is None else np.asarray(images, dtype=np.int64)
        if len(images) != len(candidates):
            raise UserError(f"{len(candidates)} candidates do not fit {len(images)} pictures: give one for each")
        if len(images) and not 0 <= images.min() <= images.max() < len(self):
            raise UserError(f"pictures are numbered 0 to {len(self) - 1}, got {images.min()} to {images.max()}")
        return self._vocabulary.sentences(candidates), images

    def _meet(self, sentences: Sentences, images: NDArray[np.int64]) -> Iterator[_Met]:
        """Find the candidates' terms among those of their references, length by length."""
        for level, terms in zip(self._levels, sentences.grams(self._vocabulary), strict=True):
            image, wide = images[terms.sentence], terms.gram * len(self._sentences)
            low = np.searchsorted(level.key, wide + self.first[image])
            high = np.searchsorted(level.key, wide + self.first[image + 1])
            yield _Met(terms, *spread(low, high))

    def _nearest(self, sentences: Sentences, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the reference length nearest to each candidate's, the shorter of two."""
        of, reference = spread(self.first[images], self.first[images + 1])
        length = self._sentences.lengths[reference]
        size = length.max(initial=0) + 1
        ranked = np.abs(length - sentences.lengths[of]) * size + length
        begins = np.flatnonzero(starts(of))
        return np.minimum.reduceat(ranked, begins) % size if len(begins) else begins


def _scale(sentence: NDArray[np.int64], weight: NDArray[np.float64], sentences: int) -> NDArray[np.float64]:
    """Return 1 over the length of each sentence's vector, 0 where all its weights are zero."""
    length = np.sqrt(np.bincount(sentence, weight**2, minlength=sentences))
    return np.divide(1.0, length, out=np.zeros(sentences), where=length > 0)


def _bleu(
    right: NDArray[np.float64], guessed: NDArray[np.int64], length: NDArray[np.int64], nearest: NDArray[np.int64]
) -> NDArray[np.float64]:
    precision = np.cumprod((right + _TINY) / (guessed + _SMALL), axis=1) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (length + _TINY) / (nearest + _SMALL)
    brevity = np.where(ratio < 1, np.exp(np.minimum(1 - 1 / ratio, 0)), 1.0)
    return np.asarray(precision * brevity[:, None])
