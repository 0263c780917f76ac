import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import PairEncoder
from diptych.encoders.image import CLIP_MEAN, CLIP_STD
from tests.models.align.fixture import make, pairs

SIZES = {"image_patch": 4, "image_layers": 2, "decoder_dim": 8, "decoder_layers": 1, "decoder_heads": 2}


def test_it_needs_pictures_alone():
    model, batch = make("mae", **SIZES), pairs()
    assert not isinstance(model, PairEncoder)
    assert model.keep == 4
    assert model.eval().loss(Batch(image=batch.image)).total == model.loss(batch).total
    with pytest.raises(UserError, match="this model needs 'image'"):
        model.loss(Batch(tokens=batch.tokens))


def test_the_loss_is_the_mean_square_over_hidden_patches():
    model = make("mae", **SIZES, normalise_patches=False).double().eval()
    batch = pairs()
    made = model.reconstruct(batch.image)
    each = (made.predicted - made.patches).square().mean(-1)
    torch.testing.assert_close(model.loss(batch).total, each[made.hidden].mean(), rtol=1e-10, atol=1e-10)
    pixels = (batch.image.double() / 255 - torch.tensor(CLIP_MEAN).view(-1, 1, 1)) / torch.tensor(CLIP_STD).view(
        -1, 1, 1
    )
    torch.testing.assert_close(
        made.patches[1, 5], pixels[1, :, 4:8, 4:8].permute(1, 2, 0).flatten(), rtol=1e-6, atol=1e-6
    )


def test_predictions_of_visible_patches_get_no_gradient():
    model, batch = make("mae", **SIZES), pairs()
    made = []
    model.decoder.register_forward_hook(lambda _, __, predicted: made.append(predicted) or predicted.retain_grad())
    torch.manual_seed(3)
    model.train().loss(batch).total.backward()
    torch.manual_seed(3)
    hidden = model.reconstruct(batch.image).hidden
    assert (made[0].grad[~hidden] == 0).all()
    assert (made[0].grad[hidden] != 0).any(-1).all()


def test_training_hides_other_patches_each_time():
    model, batch = make("mae", **SIZES), pairs()
    assert not torch.equal(model.reconstruct(batch.image).hidden, model.reconstruct(batch.image).hidden)
    with pytest.raises(UserError, match="setting mask=0"):
        make("mae", mask=0)


def copy_blocks(ours, peer):
    """Give the peer our blocks' weights."""
    for block, layer in zip(ours.blocks, peer, strict=True):
        names = {
            "layernorm_before": block.attention_norm,
            "layernorm_after": block.mlp_norm,
            "attention.q_proj": block.attention.query,
            "attention.k_proj": block.attention.key,
            "attention.v_proj": block.attention.value,
            "attention.o_proj": block.attention.out,
            "mlp.fc1": block.mlp.up,
            "mlp.fc2": block.mlp.down,
        }
        for name, module in names.items():
            layer.get_submodule(name).load_state_dict(module.state_dict())


@pytest.mark.parity
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_transformers_vit_mae_at_equal_weights_and_noise(normalise):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = make("mae", **SIZES, normalise_patches=normalise).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))  # so that no bias is zero and no norm is the identity
    config = ViTMAEConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        image_size=16,
        patch_size=4,
        norm_pix_loss=normalise,
        layer_norm_eps=1e-5,
    )
    peer, tower, decoder = ViTMAEForPreTraining(config).eval(), model.image_tower, model.decoder
    with torch.no_grad():
        peer.vit.embeddings.cls_token.copy_(tower.class_token)
        peer.decoder.mask_token.copy_(decoder.mask_token)
        # transformers 5 leaves these at zero in a model that was not loaded
        peer.vit.embeddings.position_embeddings[0, 1:] = tower.positions
        peer.decoder.decoder_pos_embed[0, 1:] = decoder.positions
    for theirs, mine in (
        (peer.vit.embeddings.patch_embeddings.projection, tower.patches.projection),
        (peer.vit.layernorm, tower.norm_after),
        (peer.decoder.decoder_embed, decoder.enter),
        (peer.decoder.decoder_norm, decoder.norm),
        (peer.decoder.decoder_pred, decoder.pixels),
    ):
        theirs.load_state_dict(mine.state_dict())
    copy_blocks(tower.transformer, peer.vit.layers)
    copy_blocks(decoder.transformer, peer.decoder.decoder_layers)
    image, noise = pairs().image, torch.rand(4, 16)
    made = model.reconstruct(image, noise)
    with torch.no_grad():
        wanted = peer(pixel_values=tower.normalise(image), noise=noise)
    assert torch.equal(made.hidden, wanted.mask.bool())
    torch.testing.assert_close(made.predicted, wanted.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.error(made), wanted.loss, rtol=1e-5, atol=1e-5)
