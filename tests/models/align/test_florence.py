"""Florence as a composition: its recipes are plans, and labels beside captions are worth something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych import models
from diptych.data.prompts import PROMPTS
from diptych.data.scenes import open_scenes
from diptych.data.source import Row
from diptych.data.view import View
from diptych.metrics.classes import accuracy
from diptych.metrics.zero_shot import zero_shot_weights
from diptych.models.align.unicl import groups
from diptych.tasks import pairs
from diptych.tasks.pair_data import PairData
from diptych.tasks.task import Task
from diptych.train.config import TrainConfig
from diptych.train.plan import make_plan, read_recipe
from diptych.train.trainer import train

SMALL = {
    "image_encoder": "resnet",
    "image_size": 32,
    "image_blocks": (1, 1),
    "text_dim": 64,
    "text_layers": 1,
    "text_pool": "mean",
    "dim": 64,
    "text_vocabulary": 512,
}


class Mixed(View):
    """Scenes of which every tenth training picture has its captions alone, and the others their label alone."""

    def change(self, row: Row, place: int) -> Row:
        if row.split != "train":
            return row
        return replace(row, captions=()) if place % 10 else replace(row, fields={})


def mixed(text: str, *, labels: bool) -> Mixed:
    scenes = open_scenes(text)
    kept = np.flatnonzero((scenes.splits() != 0) | (np.arange(len(scenes)) % 10 == 0) | labels).astype(np.int64)
    return Mixed(scenes, how="mixed", kept=kept)


def built(source: View, **settings: object) -> PairData:
    module = models.load("unicl")
    config, asked = module.Config.parse(SMALL), pairs.Settings.parse({"workers": 0, **settings})
    tokenizer, spec = pairs.facts(source, config, asked)
    return pairs.join(source, module.build(config, spec), tokenizer, spec, asked)


def test_the_stages_have_the_same_model():
    first, second = (make_plan("unicl", recipe=read_recipe(name)) for name in ("florence", "florence-2"))
    assert first.model == second.model
    assert first.model.image_encoder == "swin"
    assert second.train.lr < first.train.lr


def test_labels_told_in_words_are_the_groups():
    data = built(mixed("scenes?pictures=200&size=16&captions=1&objects=1-1", labels=True), batch_size=160)
    (batch,) = data.training().epoch(0)
    real = [data.source.row(int(row)) for row in batch.need("pair_id")]
    labels = [row.fields.get("label", "") for row in real]
    assert [data.spec.classes[label] if label >= 0 else "" for label in batch.need("label").tolist()] == labels
    number = groups(batch)
    words = [bytes(row[mask].numpy()) for row, mask in zip(batch.tokens, batch.token_mask, strict=True)]
    for one in range(0, len(real), 7):
        for other in range(len(real)):
            same = labels[one] == labels[other] if labels[one] and labels[other] else False
            if same or words[one] == words[other]:
                assert number[one] == number[other]
            elif labels[one] and labels[other]:
                assert number[one] != number[other]
    told = {data.source.row(int(row)).captions for row in data.source.rows("train")}
    assert any(len(captions) == len(PROMPTS) for captions in told)
    again = next(iter(data.training().epoch(1)))
    first, second = (
        dict(zip(one.pair_id.tolist(), map(data.tokenizer.decode, one.tokens.tolist()), strict=True))
        for one in (batch, again)
    )
    assert sum(first[row] != second[row] for row in first) > 40, "another epoch draws other prompts"


def zero_shot(data: PairData, *, steps: int, out: Path) -> float:
    """Train for some steps, then name the main object of every test picture."""
    torch.manual_seed(0)
    model = models.load("unicl").build(models.load("unicl").Config.parse(SMALL), data.spec)
    config = TrainConfig(steps=steps, lr=2e-3, evaluate_every=0, device="cpu")
    train(model, Task(spec=data.spec, train=data.training()), config, out=out, quiet=True)
    rows = data.source.rows("test")
    names = sorted({data.source.row(int(row)).fields["label"] for row in data.source.rows("all") if row in rows})
    truth = torch.tensor([names.index(data.source.row(int(row)).fields["label"]) for row in rows])
    told = [prompt.replace("{}", name) for name in names for prompt in PROMPTS]
    tokens, mask = data.tokens(told)
    with torch.no_grad():
        pictures = [batch for batch in data.gallery("test").epoch(0) if batch.image is not None]
        image = torch.cat([model.encode_image(batch) for batch in pictures])
        texts = model.encode_text(replace(pictures[0], image=None, tokens=tokens, token_mask=mask, pair_id=None))
    weights = zero_shot_weights(texts.view(len(names), len(PROMPTS), -1))
    return accuracy(image @ weights.T, truth)["top1"]


@pytest.mark.slow
@pytest.mark.training
def test_labels_and_captions_name_classes_better_than_captions_alone(tmp_path):
    """Equal steps, on 160 pictures with captions, or on 1,440 more that have a label alone."""
    given = "scenes?pictures=2000&size=32&captions=2&objects=1-1"
    found = {
        labels: zero_shot(built(mixed(given, labels=labels), batch_size=64), steps=300, out=tmp_path / str(labels))
        for labels in (False, True)
    }
    assert found[True] > found[False] + 0.05, found
