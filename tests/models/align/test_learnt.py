"""What the systems of this family learn in a minute: partners are found, and captions teach pictures."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.models.align.learnt import fresh, recalls, scenes, teach

pytestmark = [pytest.mark.slow, pytest.mark.training]

ALIGNED = {
    "shared": ("shared", {"objective": "contrast"}),
    "autoencode": ("shared", {"objective": "autoencode"}),
    "correlate": ("shared", {"objective": "correlate"}),
    "translate": ("shared", {"objective": "translate"}),
    "mvae": ("mvae", {}),
    "mutual": ("mutual", {}),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_partners_are_found_far_above_chance(name):
    system, settings = ALIGNED[name]
    batch, _, spec = scenes()
    train, test = batch.part(slice(0, 1000)), batch.part(slice(1000, None))
    model = fresh(system, spec, **settings)
    before = recalls(model.eval(), test)
    after = recalls(teach(model, train, steps=300, lr=3e-3), test)
    assert max(before) < 0.15  # 10 of 200, and a few that say the same
    assert min(after) > 0.3


@torch.no_grad()
def probe(model, train, test, answers):
    """Fit a linear classifier to what the image tower makes of pictures; name others."""
    sides = [model.eval().image_tower(batch.image).summary for batch in (train, test)]
    mean, deviation = sides[0].mean(0), sides[0].std(0)
    known, asked = (((side - mean) / deviation).numpy() for side in sides)
    return LogisticRegression(max_iter=300).fit(known, answers[: len(train)]).score(asked, answers[len(train) :])


def test_captions_teach_the_picture_encoder_what_a_linear_probe_finds():
    batch, truth, spec = scenes(pictures=2000)
    train, test = batch.part(slice(0, 1400)), batch.part(slice(1400, None))
    tower = {"image_encoder": "resnet", "image_width": 16, "image_blocks": (1, 1)}
    model = fresh("mutual", spec, feedback="one-way", contrast_weight=0.0, **tower)
    answers = {"colour": [thing.colour for thing in truth], "shape": [thing.shape for thing in truth]}
    before = {name: probe(model, train, test, given) for name, given in answers.items()}
    teach(model, train, steps=250)
    after = {name: probe(model, train, test, given) for name, given in answers.items()}
    assert after["colour"] > before["colour"] + 0.1
    assert after["shape"] > before["shape"] + 0.03
