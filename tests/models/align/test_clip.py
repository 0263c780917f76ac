import math

import pytest
import torch

from diptych.core.batch import Batch, DataSpec
from diptych.models.align.clip import Config, build


def small(**settings):
    sizes = {"image_patch": 8, "image_dim": 16, "image_layers": 1, "image_heads": 2}
    words = {"text_dim": 16, "text_layers": 1, "text_heads": 2}
    return Config.parse({"dim": 8, **sizes, **words, **settings})


SPEC = DataSpec(image_size=16, vocabulary=50, context=6)


def batch(size=4):
    tokens = torch.randint(4, 49, (size, 6))
    return Batch(
        image=torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8),
        tokens=tokens,
        token_mask=torch.ones(size, 6, dtype=torch.bool),
        pair_id=torch.arange(size),
    )


def test_the_scale_begins_as_in_the_paper_and_never_passes_its_bound():
    model = build(small(), SPEC)
    assert model.scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    model.after_step()
    assert model.scale().item() == pytest.approx(100.0, rel=1e-6)


def test_two_captions_of_one_picture_are_both_right():
    model, pairs = build(small(), SPEC).eval(), batch(2)
    same = Batch(
        image=pairs.image[:1].expand(2, -1, -1, -1),
        tokens=pairs.tokens,
        token_mask=pairs.token_mask,
        pair_id=torch.zeros(2).long(),
    )
    assert model.loss(same).total.item() >= math.log(2) - 1e-6
    with torch.no_grad():
        model.log_scale.fill_(-20.0)  # all logits equal: no positive can be told from another
    assert model.loss(same).total.item() == pytest.approx(math.log(2), abs=1e-6)


def test_cached_states_stand_in_for_pixels_and_words():
    model, pairs = build(small(image_read="cells", text_read="cells", queries=2), SPEC).eval(), batch()
    states = Batch(
        image_states=model.image_tower(pairs.image),
        text_states=model.text_tower(pairs.tokens, pairs.token_mask),
        pair_id=pairs.pair_id,
    )
    torch.testing.assert_close(model.loss(states).total, model.loss(pairs).total)


@pytest.mark.parity
def test_equals_transformers_clip_at_equal_weights(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    text = CLIPTextConfig(
        **sizes, vocab_size=50, max_position_embeddings=6, bos_token_id=1, eos_token_id=49, pad_token_id=0
    )
    peer = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)).eval()
    peer.save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path)
    model = build(
        Config.parse({"image_encoder": str(tmp_path), "text_encoder": str(tmp_path), "dim": 8, "scale": 20.0}),
        SPEC.model_copy(update={"eos_id": 49, "bos_id": 1}),
    ).eval()
    with torch.no_grad():
        model.read_image.head.straight.weight.copy_(peer.visual_projection.weight)
        model.read_text.head.straight.weight.copy_(peer.text_projection.weight)
        peer.logit_scale.copy_(model.log_scale)
    pairs = batch()
    tokens = pairs.tokens.clone()
    tokens[:, 0], tokens[:, -1] = 1, 49  # transformers reads the end mark; with its old id 2, the largest id
    pixels = model.image_tower.normalise(pairs.image)
    wanted = peer(input_ids=tokens, pixel_values=pixels, attention_mask=torch.ones_like(tokens), return_loss=True)
    ours = Batch(image=pairs.image, tokens=tokens, token_mask=pairs.token_mask)
    torch.testing.assert_close(model.encode_image(ours), wanted.image_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.encode_text(ours), wanted.text_embeds, rtol=1e-5, atol=1e-5)
    logits = model.scale() * model.encode_text(ours) @ model.encode_image(ours).T
    torch.testing.assert_close(logits, wanted.logits_per_text, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.loss(ours).total, wanted.loss, rtol=1e-5, atol=1e-5)
