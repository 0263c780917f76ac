"""The adapting systems: their formulas by hand, the reversal and its schedule, and what a weight of nothing does."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.errors import UserError
from diptych.core.model import Adapting, Classifier
from diptych.models.adapt import dann, fine_tune, mmd
from diptych.objectives.mmd import mmd as discrepancy

SPEC = DataSpec(image_size=16, classes=("a", "b", "c"))
TINY = {"image_patch": 8, "image_dim": 8, "image_layers": 1, "image_heads": 2, "dim": 6, "dropout": 0.0}


def built(system, **settings):
    torch.manual_seed(0)
    return system.build(system.Config(**TINY, **settings), SPEC)


def batch(rows: int = 8) -> Batch:
    random = torch.Generator().manual_seed(1)
    image = torch.rand(rows, 3, 16, 16, generator=random)
    domain = (torch.arange(rows) >= rows // 2).long()
    return Batch(image=image, label=torch.where(domain == 0, torch.arange(rows) % 3, -1), domain=domain)


def test_fine_tuning_is_cross_entropy_of_the_labelled_pictures():
    model, given = built(fine_tune), batch()
    logits = model.logits(model.features(given))
    wanted = F.cross_entropy(logits[:4], given.need("label")[:4])
    assert model.loss(given).total.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert model.loss(given.part(slice(0, 4))).total.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert isinstance(model, Classifier)
    assert not isinstance(model, Adapting)


@pytest.mark.parametrize("match", ["features", "both"])
def test_mmd_adds_the_weighted_discrepancy_of_each_layer(match):
    model, given = built(mmd, match=match, weight=0.7, ramp_steps=10), batch()
    model.steps += 5
    features = model.features(given)
    chances = model.logits(features).softmax(1)
    wanted = F.cross_entropy(model.logits(features)[:4], given.need("label")[:4])
    apart = discrepancy(features[:4], features[4:])
    apart = apart + (discrepancy(chances[:4], chances[4:]) if match == "both" else 0)
    wanted = wanted + 0.7 * 0.9866142981514303 * apart
    assert model.loss(given).total.item() == pytest.approx(wanted.item(), abs=1e-6)


def test_one_kernel_and_several_differ():
    given = batch()
    parts = [built(mmd, kernels=kernels, match="features").loss(given).parts["mmd"] for kernels in ("one", "several")]
    assert parts[0].item() != pytest.approx(parts[1].item(), abs=1e-4)


def test_mmd_without_a_target_says_so():
    with pytest.raises(UserError, match="discrepancy of 4 and 0 rows"):
        built(mmd).loss(batch().part(slice(0, 4)))


def test_dann_reverses_the_judges_gradient_by_the_strength_of_the_step():
    given = batch()

    def gradients(strength):
        model = built(dann, reversal=strength, ramp_steps=1, judge_dropout=0.0)
        model.steps += 1
        features = model.features(given).detach().requires_grad_()
        model.couple((features,), given).total.backward()
        classes = torch.autograd.grad(
            F.cross_entropy(model.logits(features)[:4], given.need("label")[:4]), features, retain_graph=True
        )[0]
        judge = model.judge(features)[:, 0]
        apart = F.binary_cross_entropy_with_logits(judge, (given.need("domain") == 0).float())
        return features.grad - classes, torch.autograd.grad(apart, features)[0]

    for top in (0.0, 0.3):
        reversed_, plain = gradients(top)
        torch.testing.assert_close(reversed_, -top * 0.9999092042625951 * plain, rtol=1e-4, atol=1e-7)


def test_the_strength_rises_as_in_the_paper():
    model = built(dann, reversal=1.0, ramp_steps=10)
    found = []
    for _ in range(12):
        found.append(model.ramp(1.0))
        model.after_step()
    assert found[0] == 0
    assert found[1] == pytest.approx(0.462117, abs=1e-6)
    assert found[5] == pytest.approx(0.986614, abs=1e-6)
    assert found[10] == found[11] == pytest.approx(0.999909, abs=1e-6)


def test_a_judge_that_knows_nothing_costs_ln_2():
    model = built(dann)
    for parameter in model.judge.parameters():
        torch.nn.init.zeros_(parameter)
    assert model.loss(batch()).parts["judge"].item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(("system", "off"), [(mmd, {"weight": 0.0}), (dann, {"reversal": 0.0})])
def test_without_weight_the_classifier_gets_the_gradient_of_fine_tuning(system, off):
    given, plain, model = batch(), built(fine_tune), built(system, **off)
    model.steps += 500
    for one in (plain, model):
        one.loss(given).total.backward()
    own = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-5, atol=1e-7)


def test_labels_of_the_target_are_not_looked_at_where_they_are_unknown():
    given = batch()
    assert given.need("label")[4:].tolist() == [-1] * 4
    for system in (fine_tune, mmd, dann):
        model = built(system).eval()
        told = replace(given, label=torch.where(given.need("domain") == 0, given.need("label"), -7))
        assert model.loss(told).total.item() == model.loss(given).total.item()


def test_frozen_features_are_standardised_by_what_training_shows():
    model = built(dann, image_train="frozen")
    summary = 5 + 3 * torch.randn(64, 8)
    states = States(torch.zeros(64, 0, 8), torch.zeros(64, 0, dtype=torch.bool), summary)
    model.fit([Batch(image_states=states)])
    even = model.read.even_summary(summary)
    torch.testing.assert_close(even.mean(0), torch.zeros(8), atol=1e-4, rtol=0)


def test_one_class_is_refused():
    with pytest.raises(UserError, match="there are 1 classes"):
        fine_tune.build(fine_tune.Config(**TINY), SPEC.model_copy(update={"classes": ("a",)}))
