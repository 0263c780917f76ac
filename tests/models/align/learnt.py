"""Small systems that have learnt from small scenes, for tests that ask what came of it."""

from functools import cache

import numpy as np
import torch

from diptych import models
from diptych.core.batch import Batch, DataSpec
from diptych.core.model import AfterStep
from diptych.data.scenes import Scenes
from diptych.data.tokenizer import Tokenizer
from diptych.metrics.retrieval import retrieval

SMALL = {"image_dim": 64, "image_layers": 2, "text_dim": 64, "text_layers": 2, "dim": 64, "decoder_dim": 32}
CONTEXT = 32


@cache
def scenes(pictures=1200, objects=1):
    """Return one batch with the first caption of each picture, the truth about its first object, and the spec."""
    source = Scenes(pictures=pictures, size=32, objects=(objects, objects), distinct=False)
    rows = [source.row(index) for index in range(len(source))]
    tokenizer = Tokenizer.train([caption for row in rows for caption in row.captions])
    tokens, mask = tokenizer([row.captions[0] for row in rows], CONTEXT)
    image = torch.stack([torch.from_numpy(np.array(source.picture(i))).permute(2, 0, 1) for i in range(len(source))])
    truth = [source.scene(index).objects[0] for index in range(len(source))]
    spec = DataSpec(image_size=32, vocabulary=tokenizer.vocabulary, context=CONTEXT)
    return Batch(image=image, tokens=tokens, token_mask=mask, pair_id=torch.arange(len(rows))), truth, spec


def fresh(system, spec, **settings):
    torch.manual_seed(0)
    module = models.load(system)
    values = {name: value for name, value in SMALL.items() if name in module.Config.model_fields}
    return module.build(module.Config.parse(values | settings), spec)


def teach(model, train, *, steps, lr=2e-3, size=64):
    """Let a model learn from random parts of a batch."""
    optimizer = torch.optim.AdamW((value for value in model.parameters() if value.requires_grad), lr=lr)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 20) * (1 - step / steps)
        optimizer.zero_grad()
        model.loss(train.part(torch.randperm(len(train))[:size])).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if isinstance(model, AfterStep):
            model.after_step()
    return model.eval()


@torch.no_grad()
def recalls(model, test):
    """Return how often the right partner is among the first ten, both ways; the same words are the same text."""
    _, words = np.unique(test.tokens.numpy(), axis=0, return_inverse=True)
    found = retrieval(
        model.encode_image(test),
        model.encode_text(test),
        image_id=test.pair_id,
        text_id=test.pair_id,
        text_key=torch.from_numpy(words.reshape(-1)),
    )
    return [found[way]["r@10"] for way in ("image_to_text", "text_to_image")]
