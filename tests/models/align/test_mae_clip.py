from dataclasses import replace

import pytest
import torch

from diptych import models
from diptych.encoders.masked import patch_noise
from diptych.models.align.clip import CLIP
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
