"""Prototypes, probe and Tip-Adapter against formulas written out, scikit-learn, and their limits."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from diptych.fewshot import tip_adapter as tip
from diptych.fewshot.probe import fit_logistic, linear_probe
from diptych.fewshot.prototype import class_means, prototype, prototype_text
from diptych.fewshot.zero_shot import zero_shot
from tests.fewshot.fakes import made

METHODS = (zero_shot, prototype, prototype_text, linear_probe, tip.tip_adapter, tip.tip_adapter_f)


def right(classifier, test):
    image, label = test
    return (classifier.score(image).argmax(1) == label).double().mean().item()


def test_a_prototype_is_the_normalised_mean_of_its_class():
    shots, _ = made()
    means = class_means(shots.image, shots.label, classes=4)
    torch.testing.assert_close(means[1], normalize(shots.image[shots.label == 1].mean(0), dim=0), atol=1e-12, rtol=0)
    assert means[3].tolist() == [0.0] * 8


def test_mixed_prototypes_are_the_names_at_0_and_the_means_at_1():
    shots, (image, _) = made()
    flawless = replace(shots, text=class_means(shots.valid_image, shots.valid_label, classes=3))
    assert prototype_text(flawless).chosen["share of pictures"] < 1
    useless = replace(shots, text=torch.zeros_like(shots.text))
    torch.testing.assert_close(prototype_text(useless).score(image), prototype(shots).score(image))


@pytest.mark.parametrize("shape", [(40, 6), (9, 30)], ids=["many pictures", "few pictures"])
@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_the_probe_equals_scikit_learn(shape, strength):
    linear_model = pytest.importorskip("sklearn.linear_model")
    image = torch.randn(*shape, dtype=torch.float64)
    label = torch.arange(shape[0]) % 3
    weight, bias = fit_logistic(image, label, classes=3, strength=strength, tolerance=1e-10)
    theirs = linear_model.LogisticRegression(C=strength, max_iter=5000, tol=1e-10).fit(image.numpy(), label.numpy())
    # theirs also stops where the loss changes by less than 64 rounding errors, some 1e-5 from the minimum
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, torch.from_numpy(theirs.intercept_), atol=1e-4, rtol=1e-4)


def test_the_basis_of_few_pictures_changes_nothing():
    shots, _ = made(shots=2, dim=30)
    basis = torch.linalg.qr(shots.image.T).Q
    settings = {"classes": 3, "strength": 10.0, "tolerance": 1e-10}
    weight, bias = fit_logistic(shots.image, shots.label, **settings)
    within, same = fit_logistic(shots.image @ basis, shots.label, **settings)
    torch.testing.assert_close(within @ basis.T, weight, atol=1e-4, rtol=0)  # L-BFGS stops some 1e-5 away
    torch.testing.assert_close(same, bias, atol=1e-4, rtol=0)


def test_alpha_0_is_zero_shot():
    shots, (image, _) = made()
    values = tip._one_hot(shots)
    scores = tip._classifier(shots, shots.image, values, 0.0, 5.5).score(image)
    assert torch.equal(scores, zero_shot(shots).score(image))
    flawless = replace(shots, text=class_means(shots.valid_image, shots.valid_label, classes=3), scale=1e4)
    assert tip.tip_adapter(flawless).chosen["alpha"] == 0.0


def test_a_large_beta_returns_the_label_of_the_key_that_equals_the_query():
    shots, _ = made()
    values = tip._one_hot(shots)
    said = tip.remembered(shots.image, shots.image, values, beta=1e6)
    torch.testing.assert_close(said, values, atol=1e-6, rtol=0)


def test_the_memory_is_the_formula_of_the_paper():
    shots, (image, _) = made()
    scores = tip._classifier(shots, shots.image, tip._one_hot(shots), 1.7, 5.5).score(image[:2])
    for row, x in enumerate(image[:2]):
        for c in range(3):
            total = 20.0 * float(x @ shots.text[c])
            for key, label in zip(shots.image, shots.label, strict=True):
                total += 1.7 * float(torch.exp(-5.5 * (1 - x @ key))) * int(label == c)
            assert float(scores[row, c]) == pytest.approx(total, abs=1e-10)


def test_learning_the_keys_hides_each_from_its_own_picture_and_choosing_sees_no_test():
    shots, test = made(shots=8)
    values = tip._one_hot(shots)
    rows = torch.tensor([2, 9])
    hidden = tip._scores_of_others(shots, shots.image, values, rows, alpha=1.0, beta=tip.BETA)
    whole = tip._classifier(shots, shots.image, values, 1.0, tip.BETA).score(shots.image[rows])
    torch.testing.assert_close(whole - hidden, values[rows], atol=1e-12, rtol=0)
    assert right(tip.tip_adapter_f(shots), test) >= right(zero_shot(shots), test)


def test_worthless_keys_are_not_kept():
    shots, _ = made(shots=4)
    silent = replace(shots, text=class_means(shots.valid_image, shots.valid_label, classes=3), scale=1e4)
    assert tip.tip_adapter_f(silent, epochs=2).chosen["epoch"] == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_every_method_beats_chance_and_works_without_validation(method):
    shots, test = made(shots=8)
    assert right(method(shots), test) > 0.5
    alone = replace(shots, valid_image=shots.valid_image[:0], valid_label=shots.valid_label[:0])
    assert right(method(alone), test) > 0.5


@pytest.mark.parametrize("method", METHODS[3:], ids=lambda method: method.__name__)
def test_features_in_single_precision_stay_finite(method):
    shots, (image, _) = made(dtype=torch.float32, shots=1, noise=0.0, valid=1)
    assert method(shots).score(image).isfinite().all()
