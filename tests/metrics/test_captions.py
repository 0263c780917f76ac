from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.metrics.captions import References, caption_scores
from diptych.metrics.words import lines, words

REFERENCES = [
    ["a red circle above a blue square", "the red circle is over the blue square"],
    ["two green triangles", "a pair of green triangles side by side"],
    ["a blue square"],
]
CANDIDATES = ["a red circle above the blue square", "two green triangles side by side", "a red square"]


def grams(text: str, n: int) -> Counter:
    split = text.split()
    return Counter(tuple(split[i : i + n]) for i in range(len(split) - n + 1))


def cider_by_hand(candidate: str, picture: int, references: list[list[str]], *, penalised: bool) -> float:
    """Transcribe Vedantam et al.: tf-idf vectors, their cosines, averaged over lengths and references."""
    total = 0.0
    for reference in references[picture]:
        for n in range(1, 5):
            df = Counter(gram for texts in references for gram in {g for text in texts for g in grams(text, n)})
            h, r = (
                {g: c * (math.log(len(references)) - math.log(max(1, df[g]))) for g, c in grams(text, n).items()}
                for text in (candidate, reference)
            )
            size = math.sqrt(sum(v * v for v in h.values())) * math.sqrt(sum(v * v for v in r.values()))
            inner = sum((min(v, r.get(g, 0.0)) if penalised else v) * r.get(g, 0.0) for g, v in h.items())
            apart = sum(grams(candidate, 2).values()) - sum(grams(reference, 2).values())
            total += (inner / size if size else 0.0) * (math.exp(-(apart**2) / 72) if penalised else 1)
    return 10 * total / (4 * len(references[picture]))


def ragged(seed: int, pictures: int = 12) -> tuple[list[str], list[list[str]]]:
    """Draw captions of 1 to 9 words of few kinds, so that words repeat inside of a caption, and an empty candidate."""
    rng = np.random.default_rng(seed)

    def say() -> str:
        return " ".join(rng.choice(list("abcdefg"), rng.integers(1, 10)))

    references = [[say() for _ in range(rng.integers(1, 5))] for _ in range(pictures)]
    return ["", "z z y", *(say() for _ in range(pictures - 2))], references


def test_golden_values():
    known = References(REFERENCES)
    together, each = known.bleu(CANDIDATES)
    assert together == pytest.approx([0.8273408461, 0.7494232315, 0.7026760928, 0.6018669342], abs=1e-9)
    assert each.shape == (3, 4)
    assert known.rouge(CANDIDATES) == pytest.approx([0.85714286, 0.92424242, 0.66666667], abs=1e-8)
    assert known.rouge(CANDIDATES).mean() == pytest.approx(0.8160173160, abs=1e-9)
    found = known.cider(CANDIDATES)
    assert found == pytest.approx([4.3731619, 5.0344228, 0.6120744], abs=1e-7)
    assert found.mean() == pytest.approx(3.3398863628, abs=1e-9)


@pytest.mark.parametrize("penalised", [True, False])
def test_cider_by_hand(penalised):
    candidates, references = ragged(0)
    found = References(references).cider(candidates, penalised=penalised)
    hand = [cider_by_hand(text, i, references, penalised=penalised) for i, text in enumerate(candidates)]
    assert found == pytest.approx(hand, abs=1e-10)
    assert found[0] == 0.0


def test_a_caption_equal_to_its_only_reference():
    known = References([["a blue square"], ["two small red dogs"], ["a cat"]])
    assert known.cider(["a blue square"], np.array([0])) == pytest.approx([7.5])  # it has no four words
    assert known.cider(["two small red dogs"], np.array([1])) == pytest.approx([10.0])
    assert known.rouge(["a cat"], np.array([2])) == pytest.approx([1.0])


def test_a_corpus_of_one_picture_says_nothing():
    assert References([["a dog", "a small dog"]]).cider(["a dog"]).tolist() == [0.0]


def test_several_candidates_of_some_pictures_score_as_alone():
    candidates, references = ragged(1)
    known = References(references)
    images = np.array([3, 3, 0, 7, 3])
    texts = [candidates[4], candidates[5], candidates[6], "never seen words never", candidates[4]]
    for score in (known.cider, known.rouge, lambda texts, images: known.bleu(texts, images)[1]):
        alone = np.concatenate([score([text], np.array([image])) for text, image in zip(texts, images, strict=True)])
        np.testing.assert_allclose(score(texts, images), alone, rtol=1e-13)
    assert known.cider(texts, images) == pytest.approx(known.cider(texts, images))  # nothing was added by asking


def test_frequencies_of_the_first_pictures_alone():
    candidates, references = ragged(2)
    known = References(references, counted=8)
    assert known.cider(candidates[:8], np.arange(8)) == pytest.approx(References(references[:8]).cider(candidates[:8]))


def test_an_empty_batch_and_an_empty_reference():
    known = References([["", "a dog"], ["a cat"]])
    nothing = np.zeros(0, dtype=np.int64)
    assert len(known.cider([], nothing)) == len(known.rouge([], nothing)) == len(known.bleu([], nothing)[1]) == 0
    assert known.bleu([], nothing)[0].tolist() == pytest.approx([0, 0, 0, 0])
    assert known.rouge(["", ""]).tolist() == [0.0, 0.0]
    assert known.bleu(["", ""])[0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_brevity():
    together, each = References([["a b c d e"]]).bleu(["a b c d"])
    assert each[0] == pytest.approx([math.exp(1 - 5 / 4)] * 4, abs=1e-8)
    assert together == pytest.approx(each[0])


def test_mistakes():
    with pytest.raises(UserError, match=r"each picture needs a reference caption; 1 of 2 have none"):
        References([["a"], []])
    with pytest.raises(UserError, match="counted=3 must be 1 to 1"):
        References([["a"]], counted=3)
    known = References([["a"], ["b"]])
    with pytest.raises(UserError, match="1 candidates do not fit 2 pictures"):
        known.cider(["a"])
    with pytest.raises(UserError, match="pictures are numbered 0 to 1, got 0 to 2"):
        known.rouge(["a", "b"], np.array([0, 2]))


def test_captions_as_written():
    scores = caption_scores(["A dog, running.", "Two cats"], [["a dog running!"], ["two cats", "cats"]])
    assert list(scores) == ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "cider"]
    assert scores["rouge_l"] == 1.0
    assert scores["bleu1"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man's dog, it don't run!", "a man 's dog it do n't run"),
        ("Black-and-white t-shirts (two) -- 1,000 or 3.5%...", "black-and-white t-shirts two 1,000 or 3.5 %"),
        ("I'm gonna go; cannot stay", "i 'm gon na go can not stay"),
        ("The U.S. flag\n& the boys' room", "the u.s. flag & the boys room"),
        ("O\u2019clock \u201cquoted\u201d", "o'clock quoted"),
        ("\u4e00\u53ea\u72d7\uff0ctwo", "\u4e00 \u53ea \u72d7 two"),
        ("scannot wanna-be", "scannot wanna-be"),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert " ".join(words(text)) == expected
    assert lines([text]) == [expected]


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_parity_with_pycocoevalcap(seed):
    peer = pytest.importorskip("pycocoevalcap.cider.cider")
    bleu, rouge = (pytest.importorskip(f"pycocoevalcap.{name}.{name}") for name in ("bleu", "rouge"))
    candidates, references = ragged(10 + seed, pictures=40)
    candidates[0] = "b"  # it scores empty captions otherwise
    known = References(references)
    texts, said = dict(enumerate(references)), {i: [text] for i, text in enumerate(candidates)}
    np.testing.assert_allclose(known.cider(candidates), peer.Cider().compute_score(texts, said)[1], atol=1e-9)
    together, each = bleu.Bleu().compute_score(texts, said, verbose=0)
    np.testing.assert_allclose(known.bleu(candidates)[0], together, atol=1e-9)
    np.testing.assert_allclose(known.bleu(candidates)[1].T, each, atol=1e-9)
    np.testing.assert_allclose(known.rouge(candidates), rouge.Rouge().compute_score(texts, said)[1], atol=1e-9)
