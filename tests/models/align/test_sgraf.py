from dataclasses import replace

import pytest
import torch

from diptych.core.batch import States
from diptych.models.align import sgraf
from diptych.tasks.retrieval import score_all
from tests.models.align import compositions
from tests.models.align.fixture import make, pairs

REASONS = ("sgr", "saf", "both", "scan")


def parts(model, size=4):
    batch = pairs(size)
    mask = torch.arange(6) < torch.tensor([6, 3, 5, 2])[:size, None]
    batch = replace(batch, token_mask=mask)
    return model.image_parts(batch), model.text_parts(batch)


@pytest.mark.parametrize("reason", REASONS)
def test_the_order_of_regions_changes_no_score(reason):
    model = make("sgraf", reason=reason).eval()
    image, text = parts(model)
    order = torch.randperm(image.mask.shape[1])
    turned = States(image.tokens[:, order], image.mask[:, order], image.summary)
    torch.testing.assert_close(model.score(turned, text), model.score(image, text), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reason", REASONS)
def test_padding_changes_no_score(reason):
    model = make("sgraf", reason=reason).eval()
    image, text = parts(model)
    more = States(
        torch.nn.functional.pad(text.tokens, (0, 0, 0, 3), value=7.0),
        torch.nn.functional.pad(text.mask, (0, 3)),
        text.summary,
    )
    less = States(
        torch.nn.functional.pad(image.tokens, (0, 0, 0, 3), value=7.0),
        torch.nn.functional.pad(image.mask, (0, 3)),
        image.summary,
    )
    torch.testing.assert_close(model.score(less, more), model.score(image, text), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reason", REASONS)
def test_in_pieces_and_computed_again_it_gives_the_same(reason, monkeypatch):
    model = make("sgraf", reason=reason)
    wanted = model.loss(batch := pairs())
    wanted.total.backward()
    slopes = [value.grad.clone() for value in model.parameters() if value.grad is not None]
    model.zero_grad()
    monkeypatch.setattr(sgraf, "AT_ONCE", 1)
    monkeypatch.setattr(sgraf, "KEPT", 0)
    again = model.loss(batch)
    again.total.backward()
    torch.testing.assert_close(again.total, wanted.total)
    for got, slope in zip((v.grad for v in model.parameters() if v.grad is not None), slopes, strict=True):
        torch.testing.assert_close(got, slope, rtol=1e-4, atol=2e-5)  # the scale, 14, multiplies the order of sums


def test_scan_is_the_mean_cosine_of_words_and_what_they_see():
    model = make("sgraf", reason="scan").eval()
    image, text = parts(model)
    got = model.score(image, text)
    weights = sgraf.region_weights(image.tokens, image.mask, text.tokens, text.mask)
    for i in range(4):
        for j in range(4):
            real = text.mask[j]
            seen = weights[i, j, real] @ image.tokens[i]
            wanted = torch.cosine_similarity(seen, text.tokens[j, real], dim=1).mean()
            torch.testing.assert_close(got[i, j], wanted, rtol=1e-5, atol=1e-6)


def test_a_score_does_not_depend_on_what_else_is_scored():
    model = make("sgraf").eval()
    image, text = parts(model)
    alone = model.score(image.map(lambda part: part[1:2]), text.map(lambda part: part[2:3]))
    torch.testing.assert_close(alone, model.score(image, text)[1:2, 2:3], rtol=1e-5, atol=1e-6)


def test_a_gallery_is_scored_whole_in_pieces():
    model, batch = make("sgraf"), pairs(4)
    images = replace(batch, tokens=None, token_mask=None)
    texts = [replace(batch.part(slice(i, i + 3)), image=None) for i in (0, 3)]
    scores, image_id, text_id, keys = score_all(model, [images.part(slice(0, 3)), images.part(slice(3, 4)), *texts])
    assert model.training
    assert text_id.tolist() == image_id.tolist() == [0, 1, 2, 3]
    assert len(keys) == 4
    model.eval()
    wanted = model.score(model.image_parts(batch), model.text_parts(batch))
    torch.testing.assert_close(scores, wanted.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.training
def test_it_tells_apart_sentences_of_the_same_words_and_a_bag_of_features_does_not():
    batch = compositions.draw(100, seed=10**6)
    plain = compositions.make("sgraf", reason="scan", match_dim=32)
    compositions.learn(plain, steps=20, change=compositions.bag)
    loose = compositions.bag(batch)
    chance = compositions.told_apart(plain.score(plain.image_parts(loose), plain.text_parts(loose)))
    assert chance == [0.5, 0.5]
    judging = compositions.make("sgraf", match_dim=32, similarity_dim=16, add_cosine=False)
    model = compositions.learn(judging, steps=150)
    places, colours = compositions.told_apart(model.score(model.image_parts(batch), model.text_parts(batch)))
    assert places > 0.9
    assert colours > 0.9
