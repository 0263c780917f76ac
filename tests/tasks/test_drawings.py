"""Drawings: what is learnt from, by whom drawn pictures are judged, and that a perfect artist scores like reality."""

import numpy as np
import pytest
import torch
from torch import nn

from diptych import models, tasks
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import ImageGenerator, Loss, Model
from diptych.data.scene_truth import parse
from diptych.data.sources import open_data
from diptych.metrics.images import frechet_distance, inception_score
from diptych.tasks.drawings import DrawingData, spread
from diptych.tasks.recogniser import Recogniser
from diptych.train.experiment import data_for, load_run, prepare, run
from diptych.train.plan import make_plan
from tests.tasks.test_classes import Unlabelled

SCENES = "scenes:300?objects=1&distinct=no&size=16"
GAN = {"image_size": "16", "generator_width": "4", "critic_width": "4", "noise": "6", "text_code": "6"}
GAN |= {"text_dim": "16", "text_layers": "1", "text_heads": "2", "text_vocabulary": "300", "batch_size": "16"}
JUDGE = {"image_encoder": "resnet", "image_size": "16", "image_width": "8", "image_blocks": "1,1", "dim": "12"}


class Copyist(Model, ImageGenerator):
    """Draws what the batch shows, or the same pictures a row further."""

    def __init__(self, *, shifted: bool = False) -> None:
        super().__init__()
        self.weight, self.shifted = nn.Parameter(torch.zeros(())), shifted

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        raise AssertionError("nothing asks for it here")

    def draw(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        image = batch.need("image") / 255
        return image.roll(1, 0) if self.shifted else image


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A classifier of scenes that has learnt nothing: enough to count with."""
    out = tmp_path_factory.mktemp("judge") / "run"
    plan = make_plan("fine_tune", settings={**JUDGE, "steps": "1", "batch_size": "64"})
    experiment = prepare(plan, open_data(SCENES + "&seed=1"), out=out, named="real scenes")
    run(experiment, out=out)
    return out


def joined(judge="", source=None, **settings) -> DrawingData:
    plan = make_plan("gan_cls", settings={**GAN, "recogniser": str(judge), **settings})
    source = open_data(SCENES) if source is None else source
    kind = tasks.load("drawings")
    tokenizer, spec = kind.facts(source, plan.model, plan.data)
    torch.manual_seed(0)
    return kind.join(source, models.load("gan_cls").build(plan.model, spec), tokenizer, spec, plan.data)


def test_one_object_scenes_always_say_the_colour_and_shape_that_the_judge_names():
    source = open_data(SCENES)
    for row in range(100):
        colour, shape = source.row(row).fields["label"].split()
        for caption in source.row(row).captions:
            meaning = parse(caption)
            assert meaning is not None
            told = [one.properties for one in meaning.mentions if one.properties]  # "one shape: a red star"
            assert [(one["colour"], one["shape"]) for one in told] == [(colour, shape)]


def test_without_a_judge_nothing_is_scored_and_the_last_weights_are_kept(tmp_path):
    data = joined()
    assert data.judged("dev", Copyist()) is None
    assert data.protocol("test") == ""
    out = tmp_path / "run"
    plan = make_plan("gan_cls", settings={**GAN, "steps": "2", "ema": "0.5"})
    result, scores = run(prepare(plan, open_data(SCENES), out=out, named="scenes"), out=out)
    assert (result.steps, scores) == (2, {})
    load_run(out)


def test_who_draws_what_is_real_scores_as_reality_does(judge):
    data = joined(judge)
    scores = data.scores(Copyist(), "test")
    assert scores["frechet"] == pytest.approx(0, abs=1e-9)
    for name in ("recognised", "colour", "shape", "inception"):
        assert scores[name] == pytest.approx(scores[f"real/{name}"])
    shifted = data.scores(Copyist(shifted=True), "test")
    assert shifted["frechet"] == pytest.approx(0, abs=1e-9)  # the same pictures, under wrong texts
    assert shifted["inception"] == pytest.approx(scores["inception"])


def test_shares_and_distances_are_those_of_the_judge(judge):
    data, recogniser = joined(judge), Recogniser(str(judge))
    batches = list(data.judged("test", Copyist()).epoch(0))
    images = torch.cat([batch.need("image") for batch in batches])
    rows = torch.cat([batch.need("pair_id") for batch in batches]).tolist()
    labels = [data.source.row(row).fields["label"] for row in rows]
    seen = recogniser.look(images)
    told = [recogniser.spec.classes[place] for place in seen.logits.argmax(1).tolist()]
    scores = data.scores(Copyist(), "test")
    assert scores["recognised"] == np.mean([one == other for one, other in zip(told, labels, strict=True)])
    shapes = [one.split()[1] == other.split()[1] for one, other in zip(told, labels, strict=True)]
    assert scores["shape"] == np.mean(shapes)
    assert scores["inception"] == inception_score(seen.logits.double().softmax(1).numpy(), splits=1)[0]
    train = spread(data.source.rows("train"), len(rows))
    pictures = torch.from_numpy(np.stack([data.source.picture(row) for row in train.tolist()])).permute(0, 3, 1, 2)
    apart = frechet_distance(recogniser.look(pictures).features.numpy(), seen.features.numpy())
    assert scores["real/frechet"] == pytest.approx(apart, rel=1e-4)
    assert f"Drawn: {len(rows)} pictures of 16 px" in data.protocol("test")
    assert "fine_tune trained on real scenes" in data.protocol("test")


def test_the_same_weights_get_the_same_scores_and_few_captions_may_do(judge):
    data = joined(judge, judged="7")
    model = models.load("gan_cls").build(make_plan("gan_cls", settings=GAN).model, data.spec).eval()
    assert len(data.judged("test", model).rows) == 7
    assert data.scores(model, "test") == data.scores(model, "test")


def test_pictures_of_another_size_are_resized_for_the_judge(judge):
    recogniser = Recogniser(str(judge))
    small = torch.rand(3, 3, 16, 16)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(recogniser.look(large).logits, recogniser.look(small).logits, rtol=0.2, atol=0.2)
    assert torch.equal(recogniser.look((small * 255).byte()).logits, recogniser.look((small * 255).byte() / 255).logits)


def test_a_judge_that_cannot_be_right_is_refused(judge, tmp_path, run_folder):
    with pytest.raises(UserError, match="no run in"):
        joined(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"names .* but the classes of .* are none"):
        joined(judge, source=Unlabelled(open_data(SCENES), how="unlabelled"))
    recogniser = Recogniser(str(run_folder))
    with pytest.raises(UserError, match="is a 'clip', which names no classes; train fine_tune"):
        recogniser.look(torch.zeros(1, 3, 64, 64))


def test_a_system_that_does_not_draw_is_told_so(judge):
    data = joined(judge)
    other = models.load("clip").build(make_plan("clip").model, data.spec)
    with pytest.raises(UserError, match="CLIP draws no pictures; gan_cls does"):
        data.scores(other, "test")


def test_a_run_is_judged_again_as_it_was(judge, tmp_path):
    plan = make_plan("gan_cls", settings={**GAN, "recogniser": str(judge), "steps": "3", "evaluate_every": "0.1"})
    out = tmp_path / "run"
    _, scores = run(prepare(plan, open_data(SCENES), out=out, named="scenes"), out=out)
    opened = load_run(out)
    again = data_for(opened, open_data(SCENES), split="test").scores(opened.model, "test")
    assert again == pytest.approx(scores, rel=1e-4, abs=1e-6)


def test_a_frozen_tower_is_asked_once_and_its_outputs_train(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    data = joined(text_train="frozen")
    batch = next(data.training().epoch(0))
    assert batch.tokens is None
    assert batch.need("text_states").summary.shape == (16, 16)
    assert batch.need("image").shape == (16, 3, 16, 16)
