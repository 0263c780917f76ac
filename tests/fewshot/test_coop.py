"""CoOp: its beginning is the plain prompt's zero-shot, and nothing but the context gets a gradient."""

from dataclasses import replace

import pytest
import torch

import diptych
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.fewshot.coop import ContextEncoder, CoOpConfig, Prompts, coop, lay_out
from diptych.fewshot.shots import Shots
from diptych.models.align import clip
from tests.fewshot.fakes import Lonely
from tests.models.systems import SPEC

NAMES = ("red circle", "blue star", "a very green square")


@pytest.fixture
def predictor(run_folder):
    return diptych.load(run_folder, device="cpu")


def encoder_of(predictor, **settings):
    config = CoOpConfig(**settings)
    prompts = lay_out(NAMES, predictor.tokenizer, config, longest=predictor.spec.context)
    return ContextEncoder(predictor.model, prompts), config


def shots_of(predictor, text):
    image = torch.nn.functional.normalize(torch.randn(6, text.shape[1]), dim=1)
    label = torch.arange(6) % 3
    return Shots(image, label, image[:3], label[:3], text, float(predictor.model.scale()))


@pytest.mark.parametrize("words", ["a photo of a", "two", "one red"])
def test_context_of_words_is_that_prompts_zero_shot(predictor, words):
    encoder, config = encoder_of(predictor, init=words)
    plain = torch.from_numpy(predictor.label_vectors(NAMES, prompts=[words + " {}."]))
    torch.testing.assert_close(encoder(encoder.begin(config, seed=0)), plain, atol=1e-6, rtol=0)
    image = torch.randn(4, plain.shape[1])
    learnt = coop(replace(shots_of(predictor, plain), image=image[:0], label=torch.zeros(0).long()), encoder, config)
    assert learnt.score(image).shape == (4, 3)


def test_a_context_a_class_begins_as_the_shared_one(predictor):
    encoder, config = encoder_of(predictor, per_class=True)
    shared, _ = encoder_of(predictor)
    context = encoder.begin(config, seed=0)
    assert context.ndim == 3
    torch.testing.assert_close(encoder(context), shared(context[0]))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_random_contexts_have_their_length_and_leave_the_names_in_place(predictor, count):
    encoder, config = encoder_of(predictor, context=count)
    context = encoder.begin(config, seed=0)
    assert context.shape[0] == count
    assert 0.01 < context.std() < 0.03
    plain = predictor.tokenizer(["red circle."])[0][0, 1:]
    assert encoder.tokens[0, 1 + count :][: len(plain)].tolist() == plain.tolist()
    assert encoder.mask[0].sum() == 1 + count + len(plain)


def test_only_the_context_gets_a_gradient_and_the_model_is_left_as_it_was(predictor):
    encoder, config = encoder_of(predictor, steps=3)
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    text = encoder(encoder.begin(config, seed=0).requires_grad_())
    assert text.requires_grad
    learnt = coop(shots_of(predictor, text.detach()), encoder, config)
    assert all(part.grad is None and not part.requires_grad for part in predictor.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
    assert not encoder.table._forward_hooks
    assert learnt.score(text.detach()).isfinite().all()


def test_learning_fits_the_shots_and_validation_chooses_the_step(predictor):
    encoder, config = encoder_of(predictor, steps=60, lr=0.05)
    text = encoder(encoder.begin(config, seed=0)).detach()
    shots = shots_of(predictor, text)
    learnt = coop(shots, encoder, config)

    def loss(scores):
        return torch.nn.functional.cross_entropy(scores, shots.label)

    assert loss(learnt.score(shots.image)) < loss(shots.scale * shots.image @ text.T) - 0.1
    wrong = replace(shots, valid_image=text, valid_label=torch.arange(3))
    assert coop(wrong, encoder, config).chosen["step"] < 60


def test_a_pretrained_tower_takes_vectors_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertModel(transformers.BertConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path)
    settings = {"text_encoder": str(tmp_path), "image_dim": 16, "image_layers": 1, "image_heads": 2, "dim": 12}
    model = clip.build(clip.Config.parse(settings), SPEC).eval().requires_grad_(False)
    tokens = torch.tensor([[1, 7, 8, 9, 2], [1, 7, 8, 10, 2]])
    prompts = Prompts(tokens, torch.ones_like(tokens).bool(), first=1, length=2)
    encoder = ContextEncoder(model, prompts)
    context = encoder.begin(CoOpConfig(), seed=0).requires_grad_()
    text = encoder(context)
    plain = model.encode_text(Batch(tokens=tokens, token_mask=prompts.mask))
    torch.testing.assert_close(text, plain, atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad(text[0].sum(), [context])
    assert (grad != 0).any(1).all()


def test_what_cannot_be_laid_out_is_told(predictor):
    with pytest.raises(UserError, match="reads 32"):
        encoder_of(predictor, context=40)
    with pytest.raises(UserError, match="another --context-init"):
        encoder_of(predictor, init=" ")
    with pytest.raises(UserError, match="no text tower"):
        ContextEncoder(Lonely(), Prompts(torch.zeros(1, 3).long(), torch.ones(1, 3).bool(), 1, 1))
