"""Attention VQA: without a picture it is question-only, a picture is encoded once, and it learns to look."""

import dataclasses

import pytest
import torch

from diptych import models
from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.models.answering import answers_to
from diptych.nn.fusion import FUSIONS
from tests.models.systems import SMALL_ASK, SPEC, make_batch

SMALL = {**SMALL_ASK, "dim": 16, "text_dim": 16, "text_heads": 2, "text_layers": 1}
EVERY = pytest.mark.parametrize("fusion", ["attention", "cross_attention", *FUSIONS])


def small(**changed):
    module = models.load("attention_vqa")
    torch.manual_seed(0)
    return module.build(module.Config.parse({**SMALL, **changed}), SPEC)


@EVERY
def test_a_question_without_picture_is_one_whose_cells_are_all_masked(fusion):
    model, batch = small(fusion=fusion).eval(), make_batch()
    blind = model.answer(dataclasses.replace(batch, image=None))
    torch.testing.assert_close(blind.sum(1), torch.ones(6))
    assert not torch.allclose(model.answer(batch), blind)
    model._see = lambda batch: (torch.randn(6, 9, 16), torch.zeros(6, 9, dtype=torch.bool), None)
    torch.testing.assert_close(model.answer(batch), blind)


@EVERY
def test_training_may_hide_every_picture(fusion):
    model, batch = small(fusion=fusion, blind=0.999, dropout=0.0), make_batch()
    model.train()
    model.image_tower.eval()
    torch.testing.assert_close(
        model.logits(batch), model.eval().logits(dataclasses.replace(batch, image=None)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("changed", [{}, {"fusion": "cross_attention", "layers": 2, "encoder_layers": 1}])
def test_pictures_in_a_row_are_encoded_once(changed):
    model, batch = small(**changed).eval(), make_batch()
    seen = []
    model.image_tower.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    whole = model.logits(batch)
    assert seen == [5], "the first two rows show one picture"
    each = torch.cat([model.logits(batch.part(slice(n, n + 1))) for n in range(6)])
    torch.testing.assert_close(whole, each, rtol=1e-4, atol=1e-5)


def test_learning_without_pictures_is_refused():
    with pytest.raises(UserError, match="needs 'image', but the data gives only tokens"):
        small().train().loss(dataclasses.replace(make_batch(), image=None))


def test_no_answers_no_system():
    module = models.load("attention_vqa")
    with pytest.raises(UserError, match="there are no answers to choose from"):
        module.build(module.Config.parse(SMALL), SPEC.model_copy(update={"answers": ()}))


def test_scores_are_judged_one_by_one():
    chances = small(objective="scores").eval().answer(make_batch())
    assert ((chances > 0) & (chances < 1)).all()
    assert not torch.allclose(chances.sum(1), torch.ones(6))


def test_features_of_frozen_towers_stand_in_for_pixels_and_are_standardised():
    model = small(image_train="frozen", text_train="frozen").eval()
    batch = make_batch()
    states = Batch(
        image_states=model.image_tower(batch.image),
        text_states=model.text_tower(batch.tokens, batch.token_mask),
        answer=batch.answer,
        pair_id=batch.pair_id,
    )
    torch.testing.assert_close(model.loss(states).total, model.loss(batch).total, rtol=1e-5, atol=1e-6)
    model.fit([states])
    even = model.question.even_words(states.text_states.tokens)[states.text_states.mask]
    torch.testing.assert_close(even.mean(0), torch.zeros(16), rtol=0, atol=1e-4)
    assert isinstance(states.image_states, States)


def test_answers_in_words():
    from diptych.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["what is it"] * 3, vocabulary=300)
    module = models.load("attention_vqa")
    spec = SPEC.model_copy(update={"vocabulary": tokenizer.vocabulary})
    model = module.build(module.Config.parse(SMALL), spec).eval()
    image = make_batch().image[0]
    one, two = answers_to(model, tokenizer, spec, image, ["what is it?", "is it what?"], count=9)
    assert {text for text, _ in one} == set(spec.answers)
    assert sum(chance for _, chance in two) == pytest.approx(1)
    assert [chance for _, chance in one] == sorted((chance for _, chance in one), reverse=True)
    assert answers_to(model, tokenizer, spec, image, "what is it?", count=1)[0][0] == pytest.approx(one[0])
    for question in ("", []):
        with pytest.raises(UserError, match="the question is empty"):
            answers_to(model, tokenizer, spec, image, question)
    clip = models.load("clip")
    with pytest.raises(UserError, match="CLIP does not answer questions; attention_vqa does"):
        answers_to(clip.build(clip.Config(), SPEC), tokenizer, spec, image, "what?")
