import numpy as np
import pytest
from scipy import linalg

from diptych.core.errors import UserError
from diptych.metrics.images import frechet_distance, frechet_of_normals, inception_score


def test_two_normals_have_the_distance_known_by_hand():
    found = frechet_of_normals(np.zeros(2), np.eye(2), np.array([1.0, 2.0]), 4 * np.eye(2))
    assert found == pytest.approx(7, abs=1e-12)  # 1 + 4 + 2 (1 + 4 - 2 * 2)


def test_equal_sets_are_at_no_distance_and_order_of_rows_and_sides_does_not_matter():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(40, 5)), random.normal(size=(30, 5)) * 2 + 1
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other[::-1], one[::-1]), rel=1e-10)


def test_it_is_the_definition_with_a_matrix_root():
    random = np.random.default_rng(1)
    one, other = random.normal(size=(60, 6)) @ random.normal(size=(6, 6)), random.normal(size=(50, 6))
    covariances = [np.cov(values.T) for values in (one, other)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-8)


def test_singular_covariances_do_no_harm():
    flat = np.array([[0.0, 1, 2], [1, 1, 2], [2, 1, 2]])  # one direction only
    up = np.array([[1.0, 0, 2], [1, 1, 2], [1, 2, 2]])  # another one
    # both have variance 1, in directions that do not meet: nothing under the root
    assert frechet_distance(flat, up) == pytest.approx(1 + 1, abs=1e-9)  # the means are (1, 1, 2) both
    assert frechet_distance(np.ones((3, 4)), np.ones((5, 4))) == 0
    many = np.random.default_rng(2).normal(size=(8, 64))  # fewer rows than features
    assert frechet_distance(many, many) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(frechet_distance(many.astype(np.float32), many[:4].astype(np.float32)))


def test_one_feature_is_enough():
    # means 1 apart, deviations 1 and 2 (of two and two rows): 1 + (2 - 1)^2
    one, other = np.array([[-1.0], [1.0]]) / np.sqrt(2), np.array([[-2.0], [2.0]]) / np.sqrt(2) + 1
    assert frechet_distance(one, other) == pytest.approx(2)


def test_sets_that_have_no_distribution_are_refused():
    with pytest.raises(UserError, match="two pictures in each set, got 1"):
        frechet_distance(np.ones((1, 2)), np.ones((3, 2)))
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(np.full((3, 2), np.nan), np.ones((3, 2)))


def test_sure_and_balanced_guesses_score_the_number_of_classes():
    assert inception_score(np.tile(np.eye(4), (10, 1))) == pytest.approx((4, 0))


def test_the_same_guess_for_all_scores_one():
    assert inception_score(np.tile([[0.7, 0.2, 0.1]], (20, 1))) == pytest.approx((1, 0))
    assert inception_score(np.tile([[1.0, 0.0]], (20, 1))) == pytest.approx((1, 0))


def test_it_is_the_mean_divergence_of_each_part():
    guesses = np.random.default_rng(3).dirichlet(np.ones(5), size=21)
    scores = []
    for part in (guesses[:11], guesses[11:]):
        divergence = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        scores.append(np.exp(divergence.mean()))
    assert inception_score(guesses, splits=2) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-12)
    assert inception_score(guesses[:3], splits=10)[0] == pytest.approx(1)  # parts of one picture say nothing


def test_no_pictures_have_no_score():
    with pytest.raises(UserError, match="at least one"):
        inception_score(np.zeros((0, 3)))
