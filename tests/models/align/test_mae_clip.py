from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits

from diptych import models
from diptych.core.batch import Batch, States
from diptych.core.errors import UserError
from diptych.encoders.masked import patch_noise, reconstruct
from diptych.models.align.clip import CLIP
from diptych.nn.patches import patchify
from diptych.objectives.masked_pixels import masked_pixels
from diptych.train.checkpoint import load_weights, save_model
from tests.models.align.fixture import SPEC, make, pairs

SIZES = {"image_patch": 4, "image_layers": 2, "decoder_dim": 8, "decoder_layers": 1, "decoder_heads": 2}


def gradients(model, total):
    model.zero_grad(set_to_none=True)
    total.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def with_classes(**settings):
    module = models.load("mae_clip")
    spec = SPEC.model_copy(update={"classes": ("cat", "dog", "owl")})
    return module.build(make("mae_clip", **SIZES, **settings).config, spec)


def test_the_total_is_the_weighted_sum():
    weights = {"reconstruct_weight": 0.7, "align_weight": 0.3, "class_weight": 1.9}
    model, plain = with_classes(**weights).double(), with_classes().double()
    plain.load_state_dict(model.state_dict())
    batch = replace(pairs(), label=torch.tensor([0, 2, 1, 1]))
    embeddings = tuple(torch.rand(4, width, dtype=torch.float64) for width in (8, 8, 12 * 48, 12 * 48))
    parts, loss = plain.couple(embeddings, batch).parts, model.couple(embeddings, batch)
    wanted = 0.7 * parts["reconstruction"] + 0.3 * parts["alignment"] + 1.9 * parts["classification"]
    torch.testing.assert_close(loss.total.detach(), wanted, rtol=1e-12, atol=1e-12)
    logged = [loss.parts[name] for name in ("reconstruction", "alignment", "classification")]
    torch.testing.assert_close(loss.total.detach(), sum(logged), rtol=1e-12, atol=1e-12)


def test_without_alignment_its_gradients_are_those_of_mae():
    both, alone, batch = make("mae_clip", **SIZES, align_weight=0).eval(), make("mae", **SIZES).eval(), pairs()
    alone.load_state_dict({name: both.state_dict()[name] for name in alone.state_dict()})
    found, wanted = gradients(both, both.loss(batch).total), gradients(alone, alone.loss(batch).total)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert all((value == 0).all() for name, value in found.items() if name not in wanted)


def test_without_reconstruction_its_gradients_are_those_of_clip():
    both, batch = make("mae_clip", **SIZES, reconstruct_weight=0).eval(), pairs()
    clip = make("clip", **SIZES)
    clip = CLIP(make("mae_clip", **SIZES).image_tower, clip.text_tower, both.config).eval()
    clip.load_state_dict({name: both.state_dict()[name] for name in clip.state_dict()})
    ours, theirs = both.loss(batch).total, clip.loss(batch).total
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    found, wanted = gradients(both, ours), gradients(clip, theirs)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("align_from", ["visible", "all"])
def test_hidden_pixels_reach_the_alignment_only_in_the_unmasked_pass(align_from):
    model, batch = make("mae_clip", **SIZES, align_from=align_from).eval(), pairs()
    image = (batch.image / 255).requires_grad_()
    batch = replace(batch, image=image)
    model.terms(model.embed(batch), batch)["alignment"].backward()
    noise = patch_noise(4, 16, training=False, device=image.device)
    hidden = torch.ones(4, 16, dtype=torch.bool).scatter(1, noise.argsort(1)[:, : model.keep], value=False)
    pulled = image.grad.unflatten(2, (4, 4)).unflatten(4, (4, 4)).abs().amax((1, 3, 5)).flatten(1) > 0
    assert pulled[~hidden].all()
    assert pulled[hidden].all() == (align_from == "all")
    assert pulled[hidden].any() == (align_from == "all")


def test_the_pull_of_each_term_is_the_norm_of_its_gradient_on_the_encoder():
    model, batch = make("mae_clip", **SIZES, gradient_norms=True, align_weight=0.5).eval(), pairs()
    parts = model.loss(batch).parts
    for name in ("reconstruction", "alignment"):
        found = gradients(model, model.terms(model.embed(batch), batch)[name])
        squares = [value.square().sum() for key, value in found.items() if key.startswith("image_tower")]
        torch.testing.assert_close(parts[f"{name}_pull"], sum(squares).sqrt())
    with torch.no_grad():
        assert "alignment_pull" not in model.loss(batch).parts


def test_the_judge_learns_to_tell_what_the_encoders_unlearn():
    model, batch = make("mae_clip", **SIZES, align="adversarial", reversal=0.25).eval(), pairs()
    plain = make("mae_clip", **SIZES).eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    both, contrast = gradients(model, model.loss(batch).total), gradients(plain, plain.loss(batch).total)
    vectors = torch.cat([model.encode_image(batch), model.encode_text(batch)])
    told = torch.nn.functional.binary_cross_entropy_with_logits(
        model.judge(vectors)[:, 0], torch.tensor([1.0] * 4 + [0.0] * 4)
    )
    for name, value in gradients(model, told).items():
        factor, rest = (1.0, 0.0) if name.startswith("judge") else (-0.25, contrast[name])
        torch.testing.assert_close(both[name] - rest, factor * value, rtol=1e-3, atol=1e-5)


def test_rows_without_a_label_count_for_nothing():
    model = with_classes().eval()
    batch = replace(pairs(), label=torch.tensor([0, -1, 2, -1]))
    found = model.loss(batch).parts["classification"]
    wanted = torch.nn.functional.cross_entropy(model.classify(model.encode_image(batch))[::2], batch.label[::2])
    torch.testing.assert_close(found, wanted.detach())
    unlabelled = replace(batch, label=torch.full((4,), -1))
    assert model.loss(unlabelled).parts["classification"].item() == 0
    with pytest.raises(UserError, match="this model needs 'label'"):
        model.loss(pairs())


@pytest.mark.parametrize("align", ["contrastive", "distillation", "adversarial"])
def test_all_terms_come_back_from_disk(align, tmp_path):
    torch.manual_seed(1)
    model, batch = with_classes(align=align, condition=True), replace(pairs(), label=torch.tensor([0, 2, 1, -1]))
    model.train().loss(batch)
    model.after_step()
    save_model(tmp_path, model, {})
    again = with_classes(align=align, condition=True)
    load_weights(again, tmp_path)
    found, wanted = again.eval().loss(batch).parts, model.eval().loss(batch).parts
    assert {"reconstruction", "alignment", "classification"} <= wanted.keys()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_distillation_begins_as_contrast_and_moves_its_targets():
    model, batch = make("mae_clip", **SIZES, align="distillation", alpha=0.5, alpha_steps=2).eval(), pairs()
    plain = make("mae_clip", **SIZES).eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(model.loss(batch).total, plain.loss(batch).total, rtol=1e-6, atol=1e-6)
    assert not any(name.startswith("slow") for name in gradients(model, model.loss(batch).total))
    assert not any(name.startswith("decoder") for name, _ in model.slow.encoder.named_parameters())
    for _ in range(2):
        model.after_step()
    loss = model.loss(batch)
    assert loss.parts["alpha"].item() == 0.5
    assert not torch.equal(loss.parts["alignment"], plain.loss(batch).parts["alignment"])
    torch.testing.assert_close(loss.total.detach(), loss.parts["reconstruction"] + loss.parts["alignment"])


def test_words_enter_the_decoder_and_padding_does_not():
    model, batch = make("mae_clip", **SIZES, condition=True, text_pool="mean").eval(), pairs()
    painted = model.embed(batch)[2]
    others = replace(batch, tokens=batch.tokens.flip(0))
    assert not torch.equal(model.embed(others)[2], painted)
    mask = batch.token_mask.clone()
    mask[:, 4:] = False
    short = replace(batch, tokens=batch.tokens[:, :4], token_mask=mask[:, :4])
    scribbled = replace(batch, tokens=torch.where(mask, batch.tokens, 7), token_mask=mask)
    torch.testing.assert_close(model.embed(scribbled)[2], model.embed(short)[2], rtol=1e-5, atol=1e-5)
    wordless = replace(batch, token_mask=torch.zeros_like(mask))
    unread = model.decoder.enter_words
    model.decoder.enter_words = None
    without = model.embed(batch)[2]
    model.decoder.enter_words = unread
    torch.testing.assert_close(model.embed(wordless)[2], without, rtol=1e-5, atol=1e-5)
    plain = make("mae_clip", **SIZES)
    assert plain.decoder.enter_words is None


def test_words_pull_at_the_painting_of_hidden_patches_alone():
    model, batch = make("mae_clip", **SIZES, condition=True, align_weight=0).eval(), pairs()
    found = gradients(model, model.loss(batch).total)
    assert found["text_tower.embedding.weight"].abs().sum() > 0
    assert found["decoder.enter_words.weight"].abs().sum() > 0
    assert "read_text.head.straight.weight" not in found or not found["read_text.head.straight.weight"].any()


def test_a_decoder_that_reads_words_wants_more_than_a_summary():
    model, batch = make("mae_clip", **SIZES, condition=True, text_train="frozen").eval(), pairs()
    states = model.text_tower(batch.tokens, batch.token_mask)
    kept = replace(batch, text_states=states, tokens=None, token_mask=None)
    torch.testing.assert_close(model.loss(kept).total, model.loss(batch).total)
    summary = States(states.tokens[:, :0], states.mask[:, :0], states.summary)
    with pytest.raises(UserError, match="condition=true reads every word, but only summaries are kept"):
        model.loss(replace(kept, text_states=summary))


@pytest.mark.slow
@pytest.mark.training
def test_it_learns_to_paint_and_to_find_words_at_once():
    """Digits of 8 pixels and their names: hidden patches are better than their mean over the training pictures."""
    images, labels = load_digits(return_X_y=True)
    image, label = torch.tensor(images / 16).float().view(-1, 1, 8, 8), torch.tensor(labels)
    sizes = {"image_patch": 2, "image_dim": 48, "image_layers": 3, "decoder_dim": 32, "decoder_layers": 1, "dim": 32}
    words = {"text_dim": 16, "text_layers": 1, "text_heads": 2}
    kind = models.load("mae_clip")
    config = kind.Config.parse({**sizes, **words, "normalise_patches": False, "align_weight": 0.1, "mask": 0.5})
    model = kind.build(config, SPEC.model_copy(update={"image_size": 8, "channels": 1, "vocabulary": 14}))
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=450)
    for _ in range(450):
        rows = torch.randint(0, 1400, (128,))
        optimizer.zero_grad()
        model.loss(replace(named(label[rows]), image=image[rows], pair_id=label[rows])).total.backward()
        optimizer.step()
        schedule.step()
        model.after_step()
    train, test = image[:1400], image[1400:]
    with torch.no_grad():
        noise = patch_noise(len(test), 16, training=False, device=test.device)
        made = reconstruct(model.eval().image_tower, model.decoder, test, noise, keep=model.keep)
        guess = patchify(model.image_tower.normalise(train), 2).mean(0).expand_as(made.patches)
        cosines = model.encode_image(Batch(image=test)) @ model.encode_text(named(torch.arange(10))).T
    painted, guessed = (masked_pixels(p, made.patches, made.hidden, normalise=False) for p in (made.predicted, guess))
    assert painted < 0.85 * guessed
    assert (cosines.argmax(1) == label[1400:]).float().mean() > 0.7


def named(label):
    """Return the name of each digit as one word between marks."""
    tokens = torch.stack([torch.full_like(label, 1), 4 + label, torch.full_like(label, 2)], dim=1)
    return Batch(tokens=tokens, token_mask=torch.ones_like(tokens, dtype=torch.bool))
