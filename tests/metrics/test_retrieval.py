from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from diptych.core.errors import UserError
from diptych.metrics.ranks import ranks
from diptych.metrics.retrieval import retrieval, retrieval_of_scores, rsum, summary

# Any matrix of small integers S is the exact product of S and the identity, so that a test can write its scores down.


def _ranks(scores: list[list[float]], image_id: list[int], text_id: list[int], **kwargs) -> tuple[list, list]:
    image = torch.tensor(scores, dtype=torch.float32)
    text = torch.eye(image.shape[1])
    of = ranks(image, text, image_id=torch.tensor(image_id), text_id=torch.tensor(text_id), **kwargs)
    return of[0].tolist(), of[1].tolist()


def _by_hand(scores: np.ndarray, positive: np.ndarray, ties: str) -> list[float]:
    """Rank of the best positive of each row, as the definition says it."""
    found = []
    for row, true in zip(scores, positive, strict=True):
        best, negatives = row[true].max(), row[~true]
        above, equal = int((negatives > best).sum()), int((negatives == best).sum())
        found.append(1 + above + {"pessimistic": equal, "optimistic": 0, "mean": equal / 2}[ties])
    return found


def test_three_by_three_by_hand():
    scores = [[3, 1, 2], [5, 4, 0], [1, 2, 9]]
    of_images, of_texts = _ranks(scores, [0, 1, 2], [0, 1, 2])
    assert of_images == [1, 2, 1]
    assert of_texts == [2, 1, 1]
    image = torch.tensor(scores).float()
    result = retrieval(image, torch.eye(3), image_id=torch.arange(3), text_id=torch.arange(3), ks=(1, 2))
    assert result == {
        "image_to_text": {
            "r@1": pytest.approx(2 / 3),
            "r@2": 1.0,
            "median_rank": 1.0,
            "mean_rank": pytest.approx(4 / 3),
        },
        "text_to_image": {
            "r@1": pytest.approx(2 / 3),
            "r@2": 1.0,
            "median_rank": 1.0,
            "mean_rank": pytest.approx(4 / 3),
        },
        "pairs": 3,
    }
    assert rsum(result) == pytest.approx(2 * (2 / 3 + 1))


def test_five_captions_a_picture_any_of_them_is_a_hit_and_the_others_are_not_in_the_way():
    # texts 0-4 tell of picture 0, 5-9 of picture 1
    scores = [[9, 8, 7, 6, 5, 4, 3, 2, 1, 0], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]
    of_images, of_texts = _ranks(scores, [7, 3], [7] * 5 + [3] * 5)
    assert of_images == [1, 6]  # picture 1: its best caption comes after the five of picture 0
    assert of_texts == [2] * 10  # both pictures score alike on every text: a tie counts against the query
    of_images, of_texts = _ranks([[0, 0, 0, 9, 0, 8], [1, 1, 1, 9, 9, 1]], [0, 1], [0, 0, 0, 0, 1, 1])
    assert of_images == [1, 2]
    assert of_texts == [2, 2, 2, 2, 1, 2]


def test_the_order_of_ids_does_not_matter():
    image, text = torch.randn(40, 8), torch.randn(100, 8)
    image_id, text_id = torch.arange(40), torch.arange(100) % 40
    of_images, of_texts = ranks(image, text, image_id=image_id, text_id=text_id)
    rows, columns = torch.randperm(40), torch.randperm(100)
    shuffled = ranks(image[rows], text[columns], image_id=image_id[rows] * 3 - 7, text_id=text_id[columns] * 3 - 7)
    torch.testing.assert_close(shuffled[0], of_images[rows], rtol=0, atol=0)
    torch.testing.assert_close(shuffled[1], of_texts[columns], rtol=0, atol=0)


@pytest.mark.parametrize(("ties", "rank"), [("pessimistic", 400.0), ("optimistic", 1.0), ("mean", 200.5)])
def test_constant_scores_give_the_last_rank(ties, rank):
    # vectors whose products do round: ties must be seen across tiles and in the padded last ones
    one = normalize(torch.randn(1, 77)).expand(400, 77)
    ids = torch.arange(400)
    for chunk in (16, 60, 256):
        for found in ranks(one, one, image_id=ids, text_id=ids, ties=ties, chunk=chunk):
            assert found.tolist() == [rank] * 400


def test_perfect_scores():
    vectors = normalize(torch.randn(300, 16))
    ids = torch.arange(300)
    result = retrieval(vectors, vectors, image_id=ids, text_id=ids)
    perfect = {"r@1": 1.0, "r@5": 1.0, "r@10": 1.0, "median_rank": 1.0, "mean_rank": 1.0}
    assert result == {"image_to_text": perfect, "text_to_image": perfect, "pairs": 300}


def test_the_same_sentence_of_another_picture_is_a_hit_only_when_told():
    scores = [[2, 3, 0], [3, 2, 0], [0, 0, 1]]
    assert _ranks(scores, [0, 1, 2], [0, 1, 2]) == ([2, 2, 1], [2, 2, 1])
    key = torch.tensor([5, 5, 6])
    assert _ranks(scores, [0, 1, 2], [0, 1, 2], text_key=key) == ([1, 1, 1], [1, 1, 1])


def test_two_pictures_with_one_id_are_both_hits():
    assert _ranks([[0, 5], [9, 4], [8, 0]], [0, 0, 1], [0, 1]) == ([2, 1, 2], [1, 3])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_definition(data):
    groups = data.draw(st.integers(1, 5))
    image_id = [*range(groups), *data.draw(st.lists(st.integers(0, groups - 1), max_size=6))]
    text_id = [*range(groups), *data.draw(st.lists(st.integers(0, groups - 1), max_size=12))]
    keys = data.draw(st.lists(st.integers(0, 6), min_size=len(text_id), max_size=len(text_id)))
    text_key = keys if data.draw(st.booleans()) else list(range(len(text_id)))
    ties = data.draw(st.sampled_from(["pessimistic", "optimistic", "mean"]))
    cells = st.lists(st.integers(-2, 2), min_size=len(text_id), max_size=len(text_id))
    scores = np.array([data.draw(cells) for _ in image_id])
    said = [{k for k, i in zip(text_key, text_id, strict=True) if i == image} for image in image_id]
    positive = np.array([[key in keys_of for key in text_key] for keys_of in said])
    chunk = data.draw(st.sampled_from([1, 2, 3, 8]))
    found = _ranks(scores.tolist(), image_id, text_id, text_key=torch.tensor(text_key), ties=ties, chunk=chunk)
    assert found == (_by_hand(scores, positive, ties), _by_hand(scores.T, positive.T, ties))


def test_tiles_do_not_change_the_ranks_of_real_valued_scores():
    image_id = torch.arange(500) % 333
    text_id = torch.arange(1300) % 333
    image, text = normalize(torch.randn(500, 64)), normalize(torch.randn(1300, 64))
    key = torch.randint(0, 700, (1300,))
    whole = ranks(image, text, image_id=image_id, text_id=text_id, text_key=key, chunk=512)
    tiled = ranks(image, text, image_id=image_id, text_id=text_id, text_key=key, chunk=64)
    for one, other in zip(whole, tiled, strict=True):
        # another tile shape may round the last bit of a score otherwise, which can swap two near-equal scores
        assert (one != other).double().mean() < 0.01
        assert (one - other).abs().max() <= 1


def test_bf16_vectors_are_scored_in_float32():
    exact = torch.tensor([[1.0, 1 / 256], [1.0, 0.0]])  # products differ by 2^-8 / 256: lost in bfloat16 scores
    text = torch.tensor([[1.0, 1 / 256], [1.0, 0.0]])
    ids = torch.arange(2)
    found = retrieval(exact.bfloat16(), text.bfloat16(), image_id=ids, text_id=ids, ties="pessimistic")
    assert found["image_to_text"]["r@1"] == 0.5  # picture 1 scores both texts 1: a true tie
    assert found["text_to_image"]["r@1"] == 0.5
    assert ranks(exact.bfloat16(), text.bfloat16(), image_id=ids, text_id=ids)[0].tolist() == [1, 2]


def test_a_lowered_matmul_precision_is_not_used_and_comes_back():
    vectors, ids = normalize(torch.randn(300, 64)), torch.arange(300)
    other = normalize(vectors + 0.3 * torch.randn(300, 64))
    expected = ranks(vectors, other, image_id=ids, text_id=ids)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = ranks(vectors, other, image_id=ids, text_id=ids)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_cosine_and_euclid_rank_unit_vectors_alike():
    image, text, ids = normalize(torch.randn(50, 8)), normalize(torch.randn(50, 8)), torch.arange(50)
    nearer = (torch.cdist(image.double(), text.double()) <= (image - text).norm(dim=1).double()[:, None] + 1e-6).sum(1)
    assert ranks(image, text, image_id=ids, text_id=ids)[0].tolist() == nearer.tolist()


def test_summary_takes_the_middle_of_an_even_number():
    assert summary(torch.tensor([1.0, 2.0, 5.0, 100.0]).double(), ks=(1, 5)) == {
        "r@1": 0.25,
        "r@5": 0.75,
        "median_rank": 3.5,
        "mean_rank": 27.0,
    }


def _bad(**change) -> dict[str, Tensor]:
    good = {"image": torch.eye(3), "text": torch.eye(3), "image_id": torch.arange(3), "text_id": torch.arange(3)}
    return good | change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"text_id": torch.tensor([0, 1, 1])}, "1 of 3 image ids have no text"),
        ({"text_id": torch.tensor([0, 1, 9])}, "1 of 3 texts have an id that no image has"),
        ({"image": torch.full((3, 3), torch.nan)}, "NaN or infinity"),
        ({"text": torch.full((3, 3), torch.inf)}, "NaN or infinity"),
        ({"text": torch.empty(0, 3), "text_id": torch.arange(0)}, "3 images and 0 texts"),
        ({"ties": "pesimistic"}, "did you mean 'pessimistic'"),
        ({"ks": (0, 5)}, "K must be 1 or more, not 0"),
    ],
)
def test_bad_input_is_told(change, line):
    given_ = _bad(**change)
    with pytest.raises(UserError, match=line):
        retrieval(given_.pop("image"), given_.pop("text"), **given_)


def test_memory_stays_bounded():
    """20,000 x 20,000 float32 scores alone would be 1.5 GiB; the tiles and sorted copies need a few MiB."""
    code = """
import resource, torch
from diptych.metrics.ranks import ranks
torch.set_num_threads(1)
vectors = torch.randn(20_000, 8)
ids = torch.arange(20_000)
ranks(vectors[:300], vectors[:300], image_id=ids[:300], text_id=ids[:300])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ranks(vectors, vectors, image_id=ids, text_id=ids, text_key=ids % 3000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "mean"])
def test_a_matrix_of_scores_is_judged_as_the_vectors_are_that_give_it(ties):
    random = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 6, (700, 2300), generator=random).float()  # three tiles of rows, many ties
    names = {
        "image_id": torch.randint(0, 500, (700,), generator=random),
        "text_key": torch.randint(0, 1500, (2300,), generator=random),
    }
    there = torch.unique(names["image_id"])
    every = torch.cat([there, there[torch.randint(0, len(there), (2300 - len(there),), generator=random)]])
    names["text_id"] = every[torch.randperm(2300, generator=random)]
    assert retrieval_of_scores(scores, **names, ties=ties) == retrieval(scores, torch.eye(2300), **names, ties=ties)


def test_a_matrix_of_scores_that_are_not_numbers_is_refused():
    ids = torch.arange(2)
    with pytest.raises(UserError, match="some scores hold NaN"):
        retrieval_of_scores(torch.full((2, 2), torch.nan), image_id=ids, text_id=ids)
    assert retrieval_of_scores(torch.zeros(2, 2), image_id=ids, text_id=ids)["image_to_text"]["r@1"] == 0.0
