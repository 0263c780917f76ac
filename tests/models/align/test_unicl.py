import pytest
import torch

from diptych.core.batch import Batch, States
from diptych.models.align.unicl import groups, hashed, join
from tests.models.align.fixture import compared

TOKENS = torch.tensor([[1, 9, 8, 2], [1, 9, 2, 0], [1, 9, 8, 2]])
MASK = TOKENS > 0


def numbered(values):
    """Number groups by their first row."""
    return [values.index(value) for value in values]


@pytest.mark.parametrize(
    ("label", "wanted"), [((0, 1, 2), 0.9315498879), ((0, 1, 1), 0.8728832213), ((4, 4, 4), 1.2302165546)]
)
def test_the_loss_over_labels_is_the_known_one(label, wanted):
    batch = Batch(label=torch.tensor(label), tokens=TOKENS, token_mask=MASK)
    assert compared("unicl", batch=batch) == pytest.approx(wanted, abs=1e-9)


def test_the_same_caption_is_the_same_group():
    same = Batch(tokens=TOKENS, token_mask=MASK)
    assert numbered(groups(same).tolist()) == [0, 1, 0]
    assert compared("unicl", batch=same) == pytest.approx(
        compared("unicl", batch=Batch(label=torch.tensor([0, 1, 0]), tokens=TOKENS, token_mask=MASK)), abs=1e-12
    )


def test_a_row_without_label_is_known_by_its_caption():
    batch = Batch(label=torch.tensor([-1, 3, -1]), tokens=TOKENS, token_mask=MASK)
    assert numbered(groups(batch).tolist()) == [0, 1, 0]
    other = TOKENS + torch.tensor([[0], [0], [1]])
    assert numbered(groups(Batch(label=batch.label, tokens=other, token_mask=MASK)).tolist()) == [0, 1, 2]


def test_the_words_of_a_label_have_that_label_and_never_join_two():
    texts = torch.tensor([[1, 9, 8, 2], [1, 9, 2, 0], [1, 9, 8, 2], [1, 9, 2, 0], [1, 7, 2, 0], [1, 9, 2, 0]])
    batch = Batch(label=torch.tensor([3, 5, -1, 3, -1, -1]), tokens=texts, token_mask=texts > 0)
    assert numbered(groups(batch).tolist()) == [0, 1, 0, 0, 4, 0], "words of two labels have the smaller one"


def test_the_hash_is_blind_to_padding_and_sees_order_and_every_token():
    longer = torch.cat([TOKENS, torch.full((3, 2), 7)], dim=1)
    kept = torch.cat([MASK, torch.zeros(3, 2, dtype=torch.bool)], dim=1)
    assert hashed(longer, kept).tolist() == hashed(TOKENS, MASK).tolist()
    rows = torch.cartesian_prod(*[torch.arange(12)] * 3)
    assert len(set(hashed(rows, torch.ones_like(rows, dtype=torch.bool)).tolist())) == 12**3


def test_pictures_join_groups_and_what_these_join():
    names, pictures = torch.tensor([7, 5, 5, 9, 1]), torch.tensor([0, 0, 1, 2, 2])
    assert numbered(join(names, pictures).tolist()) == [0, 0, 0, 3, 3]
    batch = Batch(tokens=TOKENS, token_mask=MASK, pair_id=torch.tensor([4, 4, 6]))
    assert len(set(groups(batch).tolist())) == 1


def test_cached_texts_are_equal_when_their_vectors_are():
    summary = torch.tensor([[0.5, 1.0], [0.5, 2.0], [0.5, 1.0]])
    states = States(torch.zeros(3, 0, 2), torch.zeros(3, 0, dtype=torch.bool), summary)
    assert numbered(groups(Batch(text_states=states)).tolist()) == [0, 1, 0]
