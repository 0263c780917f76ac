from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diptych.core.errors import UserError
from tests.models.align.fixture import make, pairs

SIZES = {"decoder_dim": 8, "decoder_layers": 1, "decoder_heads": 2}


def slopes(model, total):
    model.zero_grad(set_to_none=True)
    total.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def rebuilt(model, vector, batch):
    """Return the errors of what is painted and said from a vector, by hand."""
    patches = model.encoder.patches(batch.image)
    pixels = F.mse_loss(model.paint(vector * 8**0.5), patches)
    logits = model.say(vector * 8**0.5)[:, None].expand(-1, 6, -1).flatten(0, 1)
    return pixels, F.cross_entropy(logits, batch.tokens.flatten())


def test_both_modalities_use_the_same_blocks():
    model, batch = make("shared").eval(), pairs()
    of_image = slopes(model, model.encode_image(batch)[:, 0].sum())
    of_text = slopes(model, model.encode_text(batch)[:, 0].sum())
    both = {name for name in of_image.keys() & of_text.keys() if name.startswith("encoder.transformer")}
    assert both == {name for name, _ in model.named_parameters() if name.startswith("encoder.transformer")}
    assert all(
        of_image[name].abs().sum() > 0 and of_text[name].abs().sum() > 0 for name in both if "key.bias" not in name
    )


def test_a_modality_that_is_left_out_gives_its_stem_no_gradient():
    model, batch = make("shared", objective="autoencode", **SIZES).eval(), pairs()
    found = slopes(model, sum(rebuilt(model, model.encode_image(batch), batch)))
    assert not any(name.startswith("encoder.word") for name in found)
    assert found["encoder.patch_stem.weight"].abs().sum() > 0
    assert (found["encoder.modality"][1] == 0).all()
    found = slopes(model, sum(rebuilt(model, model.encode_text(batch), batch)))
    assert not any(name.startswith("encoder.patch") for name in found)


def test_the_autoencoder_rebuilds_both_from_both_and_from_each():
    model, batch = make("shared", objective="autoencode", left_out=0.4, **SIZES).double().eval(), pairs()
    picture, words = model.picture(batch), model.words(batch)
    wanted = [rebuilt(model, model.read(*parts), batch) for parts in ((picture, words), (picture,), (words,))]
    loss = model.loss(batch)
    for name, errors in zip(("pixels", "words"), zip(*wanted, strict=True), strict=True):
        mixed = 0.6 * errors[0] + 0.2 * errors[1] + 0.2 * errors[2]
        torch.testing.assert_close(loss.parts[name], mixed.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(loss.total.detach(), loss.parts["pixels"] + loss.parts["words"])


@pytest.mark.parametrize("rebuild", ["own", "other", "both"])
def test_correlation_is_the_distance_beside_what_is_rebuilt(rebuild):
    settings = {"rebuild": rebuild, "pull": 0.3, "image_weight": 2.0, "word_weight": 0.5}
    model, batch = make("shared", objective="correlate", **settings, **SIZES).double().eval(), pairs()
    image, text = model.encode_image(batch), model.encode_text(batch)
    of_image, of_text = rebuilt(model, image, batch), rebuilt(model, text, batch)
    own, other = (of_image[0], of_text[1]), (of_text[0], of_image[1])
    pixels, words = {"own": own, "other": other, "both": [a + b for a, b in zip(own, other, strict=True)]}[rebuild]
    wanted = 2 * pixels + 0.5 * words + 0.3 * (image - text).square().sum(1).mean()
    torch.testing.assert_close(model.loss(batch).total, wanted, rtol=1e-10, atol=1e-10)


def test_translation_goes_there_and_back():
    model, batch = (
        make("shared", objective="translate", rebuild="other", cycle_weight=0.7, **SIZES).double().eval(),
        pairs(),
    )
    image, text = model.encode_image(batch), model.encode_text(batch)
    chances = model.say(image * 8**0.5).softmax(1)
    heard = model.read(model.encoder.of_chances(chances))
    seen = model.read(model.encoder.of_patches(model.paint(text * 8**0.5)))
    pixels = rebuilt(model, text, batch)[0] + 0.7 * rebuilt(model, heard, batch)[0]
    words = rebuilt(model, image, batch)[1] + 0.7 * rebuilt(model, seen, batch)[1]
    torch.testing.assert_close(model.loss(batch).total, pixels + words, rtol=1e-10, atol=1e-10)


def test_a_word_that_is_certain_is_heard_as_that_word():
    model = make("shared").eval()
    chances = F.one_hot(torch.tensor([7, 9]), 50).float()
    heard, mask = model.encoder.of_chances(chances)
    torch.testing.assert_close(heard[:, 0], model.encoder.word_stem(torch.tensor([7, 9])) + model.encoder.modality[1])
    assert mask.all()


def test_contrast_can_stand_beside_what_is_rebuilt():
    model, batch = make("shared", objective="correlate", contrast_weight=0.5, **SIZES).eval(), pairs()
    plain = make("shared").eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(model.loss(batch).parts["contrast"], 0.5 * plain.loss(batch).total.detach())
    assert model.log_scale.requires_grad
    assert not make("shared", objective="correlate", **SIZES).log_scale.requires_grad


def test_mistakes_are_told():
    with pytest.raises(UserError, match="image_encoder='resnet'"):
        make("shared", image_encoder="resnet")
    with pytest.raises(UserError, match="patch=5 does not divide image_size=16"):
        make("shared", image_patch=5)
    model, batch = make("shared"), pairs()
    with pytest.raises(UserError, match="takes 3 x 16 x 16 pictures, got 3 x 8 x 8"):
        model.encode_image(replace(batch, image=batch.image[..., :8, :8]))
    with pytest.raises(UserError, match="reads 6 tokens, got 12"):
        model.encode_text(replace(batch, tokens=batch.tokens.repeat(1, 2), token_mask=batch.token_mask.repeat(1, 2)))
