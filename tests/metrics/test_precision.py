from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from diptych.core.errors import UserError
from diptych.metrics.precision import average_precision, mean_average_precision


def test_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6], [1.0, 1.0, 1.0, 1.0]])
    relevant = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]).bool()
    assert average_precision(scores, relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 4, 1 / 4], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_scikit_learn_with_ties(data):
    items = data.draw(st.integers(1, 12))
    scores = data.draw(st.lists(st.integers(-2, 2), min_size=items, max_size=items))
    relevant = data.draw(st.lists(st.booleans(), min_size=items, max_size=items).filter(any))
    found = average_precision(torch.tensor([scores]).float(), torch.tensor([relevant]))
    assert found.item() == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)


def test_mean_over_queries_that_can_be_answered():
    gallery, query = torch.randn(30, 6), torch.randn(20, 6)
    gallery_label, query_label = torch.randint(0, 4, (30,)), torch.randint(0, 5, (20,))  # nothing has class 4
    each = [
        average_precision_score((gallery_label == label).numpy(), (gallery @ vector).numpy())
        for vector, label in zip(query, query_label, strict=True)
        if label < 4
    ]
    for chunk in (3, 256):
        found = mean_average_precision(
            query, gallery, query_label=query_label, gallery_label=gallery_label, chunk=chunk
        )
        assert found == pytest.approx(sum(each) / len(each), abs=1e-9)


@pytest.mark.parametrize(
    ("query", "label", "line"),
    [(torch.eye(2), torch.tensor([5, 6]), "labels of the two sides"), (torch.eye(2) / 0, torch.tensor([0, 1]), "NaN")],
)
def test_bad_input_is_told(query, label, line):
    with pytest.raises(UserError, match=line):
        mean_average_precision(query, torch.eye(2), query_label=label, gallery_label=torch.tensor([0, 1]))
