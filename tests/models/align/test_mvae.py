import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.objectives.elbo import product_of_experts
from tests.models.align.fixture import make, pairs

SIZES = {"kl_steps": 0, "decoder_dim": 8, "decoder_layers": 1, "decoder_heads": 2}


def test_one_expert_and_no_words_make_a_plain_vae():
    """The posterior is the encoder's Gaussian times the prior; the loss its KL and the error of its rebuilt picture."""
    model = make("mvae", word_weight=0, kl_weight=0.3, image_weight=2.0, **SIZES).double().eval()
    batch = pairs()
    mean, log = model.expert_image(batch)
    precision = 1 + 1 / log.exp()
    posterior = Normal(mean / log.exp() / precision, precision**-0.5)
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    pixels = F.mse_loss(model.paint(posterior.mean), model.patches(batch.image))
    terms = model.bound([(mean, log)], batch, pixels=True, words=True)
    torch.testing.assert_close(sum(terms.values()), 0.3 * kl + 2 * pixels, rtol=1e-10, atol=1e-10)


def test_the_latent_is_drawn_in_training_alone():
    model, batch = make("mvae", **SIZES), pairs()
    expert = model.expert_image(batch)
    drawn = [model.train().bound([expert], batch, pixels=True, words=False)["pixels"] for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert model.eval().loss(batch).total == model.loss(batch).total


@pytest.mark.parametrize("rebuild", ["own", "both"])
def test_a_lone_modality_rebuilds_itself_or_both(rebuild):
    model, batch = make("mvae", rebuild=rebuild, **SIZES).double().eval(), pairs()
    image, text = model.expert_image(batch), model.expert_text(batch)
    everything = rebuild == "both"
    terms = [
        model.bound([image, text], batch, pixels=True, words=True),
        model.bound([image], batch, pixels=True, words=everything),
        model.bound([text], batch, pixels=everything, words=True),
    ]
    wanted = sum(sum(each.values()) for each in terms) / 3
    torch.testing.assert_close(model.loss(batch).total, wanted, rtol=1e-10, atol=1e-10)


def test_what_is_compared_is_the_posterior_of_each_side_alone():
    model, batch = make("mvae", **SIZES).eval(), pairs()
    wanted = F.normalize(product_of_experts([model.expert_text(batch)])[0], dim=1)
    torch.testing.assert_close(model.encode_text(Batch(tokens=batch.tokens, token_mask=batch.token_mask)), wanted)


def test_a_missing_modality_gives_its_tower_no_gradient():
    model, batch = make("mvae", **SIZES), pairs()
    sum(model.bound([model.expert_image(batch)], batch, pixels=True, words=True).values()).backward()
    assert all(value.grad is None for name, value in model.named_parameters() if "text" in name)
    assert any(value.grad.abs().sum() > 0 for name, value in model.named_parameters() if "image_tower" in name)


def test_the_weight_of_the_prior_rises_with_the_steps_and_is_saved():
    model = make("mvae", **SIZES | {"kl_steps": 4, "kl_weight": 0.2})
    found = []
    for _ in range(6):
        found.append(model.kl_weight())
        model.after_step()
    assert found == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2])
    again = make("mvae", **SIZES | {"kl_steps": 4, "kl_weight": 0.2})
    again.load_state_dict(model.state_dict())
    assert again.kl_weight() == 0.2


def test_mistakes_are_told():
    with pytest.raises(UserError, match="towers cannot be frozen"):
        make("mvae", text_train="frozen")
    with pytest.raises(UserError, match="image_patch=5 does not divide"):
        make("mvae", image_encoder="resnet", image_patch=5, image_width=8, image_blocks=(1, 1))
