"""What is left of a digit and its name when one of them is missing: known only to who has learnt to do without."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from diptych import models
from diptych.core.batch import Batch, DataSpec

pytestmark = [pytest.mark.slow, pytest.mark.training]

SPEC = DataSpec(image_size=8, channels=1, vocabulary=14, context=3)
SETTINGS = {"image_patch": 2, "image_dim": 32, "image_layers": 2, "image_heads": 2, "dim": 16, "decoder_dim": 16}


def digits():
    images, labels = load_digits(return_X_y=True)
    label = torch.tensor(labels)
    image = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    tokens = torch.stack([torch.full_like(label, 1), 4 + label, torch.full_like(label, 2)], dim=1)
    batch = Batch(image=image, tokens=tokens, token_mask=torch.ones_like(tokens).bool(), label=label)
    return batch.part(slice(0, 1200)), batch.part(slice(1200, None))


def learnt(system, train, *, steps, **settings):
    """Train a small system on digits and their names."""
    torch.manual_seed(0)
    module = models.load(system)
    values = {name: value for name, value in SETTINGS.items() if name in module.Config.model_fields}
    model = module.build(module.Config.parse(values | settings), SPEC).train()
    optimizer = torch.optim.AdamW((value for value in model.parameters() if value.requires_grad), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(train.part(torch.randint(0, len(train), (64,)))).total.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, train, test, of):
    """Name digits with a classifier that learnt from both and now sees what `of` makes of the picture alone."""
    both = model.read(model.picture(train), model.words(train))
    judge = LogisticRegression(max_iter=1000).fit(10 * both.numpy(), train.label.numpy())
    return judge.score(10 * of(test).numpy(), test.label.numpy())


def test_pictures_alone_are_named_twice_as_well_when_one_input_was_left_out_in_training():
    train, test = digits()
    denoising, plain = (
        learnt("shared", train, steps=300, objective="autoencode", left_out=share) for share in (2 / 3, 0.0)
    )
    assert accuracy(denoising, train, test, denoising.encode_image) > 0.6
    assert accuracy(denoising, train, test, denoising.encode_image) > 2 * accuracy(
        plain, train, test, plain.encode_image
    )
