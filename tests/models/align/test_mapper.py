import pytest
import torch

from diptych.core.batch import Batch
from tests.models.align.fixture import IMAGE, TEXT, compared, make, pairs


def test_hinges_have_the_known_sums():
    assert 3 * compared("mapper") == pytest.approx(1.872, abs=1e-9)
    assert 3 * compared("mapper", objective="hardest", hardest_after=0) == pytest.approx(1.536, abs=1e-9)
    assert compared("mapper", objective="contrastive") == pytest.approx(0.9315498879, abs=1e-9)


def test_hinges_can_compare_distances():
    distance = torch.cdist(IMAGE, TEXT)
    right = distance.diagonal()
    wrong = ~torch.eye(3, dtype=torch.bool)
    hinges = (0.2 + right[:, None] - distance).clamp(min=0) + (0.2 + right - distance).clamp(min=0)
    wanted = (hinges * wrong).sum().item()
    assert 3 * compared("mapper", similarity="euclidean") == pytest.approx(wanted, abs=3e-6)  # a root at 0 has a floor


def test_pairs_are_pulled_together_or_pushed_apart():
    square = torch.cdist(IMAGE, TEXT).square()
    right = square.diagonal().sum().item()
    wrong = ((0.7 - square.sqrt()).clamp(min=0).square() * ~torch.eye(3, dtype=torch.bool)).sum().item()
    found = 3 * compared("mapper", objective="pair", pair_margin=0.7)
    assert found == pytest.approx(right + wrong, abs=3e-6)  # two wrong partners are equal, and a root at 0 has a floor
    assert not make("mapper", objective="pair").log_scale.requires_grad


def test_two_pairs_have_one_wrong_partner_each():
    plain, hardest = (make("mapper", objective=name, hardest_after=0) for name in ("triplet", "hardest"))
    two = (torch.nn.functional.normalize(torch.randn(2, 8), dim=1), torch.nn.functional.normalize(torch.randn(2, 8)))
    torch.testing.assert_close(plain.couple(two, Batch()).total, hardest.couple(two, Batch()).total)


def test_the_way_to_the_hardest_is_counted_in_steps_and_saved():
    model = make("mapper", objective="hardest", hardest_after=4)
    shares = []
    for _ in range(6):
        shares.append(model.couple((IMAGE, TEXT), Batch()).parts["hardest"].item())
        model.after_step()
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1]
    again = make("mapper", objective="hardest", hardest_after=4)
    again.load_state_dict(model.state_dict())
    assert again.hardest() == 1
    assert make("mapper").hardest() == 0


def test_only_the_maps_are_learnt_and_stay_right_for_one_pair():
    model = make("mapper").train()
    assert {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad} == {
        "read_image",
        "read_text",
    }
    batch = pairs(1)
    before = {name: value.clone() for name, value in model.image_tower.state_dict().items()}
    assert model.loss(batch).total.item() == 0  # a batch of one has no wrong partner
    torch.testing.assert_close(model.image_tower.state_dict(), before)
    assert not model.image_tower.training
