from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diptych import models
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.objectives.triplet import triplet
from tests.models.align.fixture import IMAGE, SPEC, TEXT, make, pairs


def slopes(model, total):
    model.zero_grad(set_to_none=True)
    total.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def after(steps, **settings):
    model = make("adversarial", **settings).eval()
    model.steps.fill_(steps)
    return model


def test_the_strength_rises_with_the_steps_and_is_saved():
    model = make("adversarial", reversal=0.3, reversal_steps=10)
    found = []
    for _ in range(12):
        found.append(model.strength())
        model.after_step()
    assert found[0] == 0
    assert found[5] == pytest.approx(0.3 * 0.986614, abs=1e-6)
    assert found[10] == found[11] == pytest.approx(0.3, abs=1e-4)
    again = make("adversarial", reversal=0.3, reversal_steps=10)
    again.load_state_dict(model.state_dict())
    assert again.strength() == found[11]


def test_without_reversal_the_encoders_learn_from_pairs_alone():
    model, batch = after(0), pairs()
    found = slopes(model, model.loss(batch).total)
    hinges = triplet(*model.embed(batch), group=batch.pair_id, similarity="euclidean")
    for name, value in slopes(model, hinges).items():
        torch.testing.assert_close(found[name], value)
    assert any((value != 0).any() for name, value in found.items() if name.startswith("judge"))


def test_the_judge_learns_to_tell_what_the_encoders_unlearn():
    model, batch = after(10**6, reversal=0.25, pair_weight=0.0), pairs()
    found = slopes(model, model.loss(batch).total)
    vectors = torch.cat(model.embed(batch))
    told = F.binary_cross_entropy_with_logits(model.judge(vectors)[:, 0], torch.tensor([1.0] * 4 + [0.0] * 4))
    for name, value in slopes(model, told).items():
        factor = 1.0 if name.startswith("judge") else -0.25
        torch.testing.assert_close(found[name], factor * value, rtol=1e-4, atol=1e-6)


def test_classes_are_named_from_either_side_and_make_no_wrong_partners():
    module = models.load("adversarial")
    spec = SPEC.model_copy(update={"classes": ("cat", "dog")})
    model = module.build(make("adversarial", dim=2, pair_weight=0.5, class_weight=3.0).config, spec).double()
    batch = Batch(label=torch.tensor([0, 1, 1]))
    loss = model.couple((IMAGE, TEXT), batch)
    named = [F.cross_entropy(model.classify(side), batch.label) for side in (IMAGE, TEXT)]
    torch.testing.assert_close(loss.parts["classes"], 3 * sum(named) / 2)
    hinges = triplet(IMAGE, TEXT, group=batch.label, similarity="euclidean")
    torch.testing.assert_close(loss.parts["pairs"], 0.5 * hinges)
    torch.testing.assert_close(loss.total, loss.parts["pairs"] + loss.parts["judge"] + loss.parts["classes"])
    with pytest.raises(UserError, match="this model needs 'label'"):
        model.couple((IMAGE, TEXT), replace(batch, label=None, pair_id=torch.arange(3)))
