"""Towers of transformers, read as their kind should be read; tiny random ones, saved like real ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.encoders import pretrained
from diptych.encoders.base import ImageEncoder, TextEncoder
from diptych.encoders.towers import TowerConfig, build_image, build_text, context_for, image_size_for
from tests.encoders.small import IMAGE, PIXELS, TEXTS, save

pytestmark = pytest.mark.parity


def image_tower(folder: Path, **settings: object) -> ImageEncoder:
    config = TowerConfig(**{"image_encoder": str(folder), "image_train": "all", **settings})
    return build_image(config, DataSpec(image_size=image_size_for(config))).eval()


def text_tower(folder: Path, **settings: object) -> TextEncoder:
    config = TowerConfig(**{"text_encoder": str(folder), "text_train": "all", **settings})
    return build_text(config, DataSpec(vocabulary=40, pad_id=0)).eval()


def pictures(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(PIXELS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    return (image / 255 - mean) / std


@pytest.fixture
def texts() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(3, 40, (3, 7))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    return torch.where(mask, tokens, 0), mask


@pytest.mark.parametrize("kind", IMAGE)
def test_every_image_kind(kind: str, tmp_path: Path):
    tower = image_tower(save(kind, tmp_path))
    image = pictures()
    states = tower(image)
    places = {"resnet": 4, "convnext": 4, "mobilenet_v1": 1, "mobilenet_v2": 1, "swin": 16}.get(kind, 16)
    assert states.tokens.shape == (2, places, tower.dim)
    assert states.summary.shape == (2, tower.dim)
    assert states.mask.all()
    torch.testing.assert_close(tower(image.flip(0)).tokens, states.tokens.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(tower(image / 255).summary, states.summary, atol=1e-5, rtol=0)

    again = image_tower_from_assets(tower, tmp_path / "again")
    again.load_state_dict(tower.state_dict())
    # not equal bit for bit: the order of sums in a convolution depends on where its memory happens to begin
    torch.testing.assert_close(again(image).summary, states.summary, atol=1e-6, rtol=1e-5)
    assert again.identity() == tower.identity()

    tower.train()(image).summary.square().sum().backward()
    missed = [name for name, value in tower.named_parameters() if value.requires_grad and value.grad is None]
    assert missed == []


def image_tower_from_assets(tower: ImageEncoder, folder: Path) -> ImageEncoder:
    folder.mkdir()
    for name, content in tower.assets().items():
        (folder / name).write_bytes(content)
    config = TowerConfig(image_encoder=f"config:{folder}", image_train="all")
    assert image_size_for(config) == tower.image_size
    return build_image(config, DataSpec(image_size=tower.image_size)).eval()


@pytest.mark.parametrize("kind", TEXTS)
def test_every_text_kind(kind: str, tmp_path: Path, texts: tuple[Tensor, Tensor]):
    tower = text_tower(save(kind, tmp_path, text=True))
    tokens, mask = texts
    states = tower(tokens, mask)
    assert states.tokens.shape == (3, 7, tower.dim)
    assert torch.equal(states.mask, mask)
    assert tower.context == {"t5": 512}.get(kind, 12)
    other = torch.where(mask, tokens, torch.randint(3, 40, tokens.shape))
    torch.testing.assert_close(tower(other, mask).summary, states.summary, atol=1e-5, rtol=0)
    torch.testing.assert_close(tower(tokens[2:, :2], mask[2:, :2]).summary, states.summary[2:], atol=1e-5, rtol=0)

    folder = tmp_path / "again"
    folder.mkdir()
    for name, content in tower.assets().items():
        (folder / name).write_bytes(content)
    again = text_tower(f"config:{folder}")  # type: ignore[arg-type]
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again(tokens, mask).summary, states.summary)
    assert again.identity() == tower.identity()

    tower.train()(tokens, mask).summary.square().sum().backward()
    missed = [name for name, value in tower.named_parameters() if value.requires_grad and value.grad is None]
    assert missed == []


def test_clip_reads_its_class_token_and_its_end_of_text(tmp_path: Path, texts: tuple[Tensor, Tensor]):
    save("clip", tmp_path)
    theirs = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    image, (tokens, mask) = pictures(), texts
    tokens = tokens.clamp(max=38)
    tokens = tokens.scatter(1, mask.sum(1, keepdim=True) - 1, 39)  # the highest id ends a text
    theirs.config.text_config.eos_token_id = theirs.text_model.eos_token_id = 2  # CLIP's own rule: the highest id
    vision = theirs.vision_model(normalised(image))
    states = image_tower(tmp_path)(image)
    torch.testing.assert_close(states.summary, vision.pooler_output, atol=1e-5, rtol=0)
    grid = theirs.vision_model.post_layernorm(vision.last_hidden_state)[:, 1:]
    torch.testing.assert_close(states.tokens, grid, atol=1e-5, rtol=0)
    words = theirs.text_model(tokens, attention_mask=mask.long())
    torch.testing.assert_close(text_tower(tmp_path)(tokens, mask).summary, words.pooler_output, atol=1e-5, rtol=0)


def test_siglip_pads_its_texts_to_the_full_length(tmp_path: Path, texts: tuple[Tensor, Tensor]):
    save("siglip", tmp_path, text=True)
    theirs = transformers.SiglipModel.from_pretrained(tmp_path).eval()
    tokens, mask = texts
    full = torch.zeros(3, 12, dtype=torch.long)
    full[:, :7] = tokens
    expected = theirs.text_model(full).pooler_output
    torch.testing.assert_close(text_tower(tmp_path)(tokens, mask).summary, expected, atol=1e-5, rtol=0)
    image = pictures()
    expected = theirs.vision_model(normalised(image)).pooler_output
    torch.testing.assert_close(image_tower(tmp_path)(image).summary, expected, atol=1e-5, rtol=0)


def test_masked_autoencoder_keeps_all_patches_in_order(tmp_path: Path):
    save("vit_mae", tmp_path)
    theirs = transformers.ViTMAEModel.from_pretrained(tmp_path, mask_ratio=0.0).eval()
    out = theirs(normalised(image := pictures()), noise=torch.arange(16.0).expand(2, -1))
    states = image_tower(tmp_path)(image)
    torch.testing.assert_close(states.tokens, out.last_hidden_state[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(states.summary, out.last_hidden_state[:, 1:].mean(1), atol=1e-5, rtol=0)
    assert torch.equal(image_tower(tmp_path)(image).tokens, states.tokens), "nothing is drawn"


def test_registers_are_not_part_of_the_grid(tmp_path: Path):
    save("dinov2_with_registers", tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    hidden = theirs(normalised(image := pictures())).last_hidden_state
    states = image_tower(tmp_path)(image)
    assert hidden.shape[1] == 1 + 9 + 16
    torch.testing.assert_close(states.tokens, hidden[:, 10:], atol=1e-5, rtol=0)
    torch.testing.assert_close(states.summary, hidden[:, 0], atol=1e-5, rtol=0)


def test_a_classifier_s_checkpoint_gives_its_tower(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    save("vit", tmp_path, head="ForImageClassification")
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    image = pictures()
    expected = theirs.vit(normalised(image)).last_hidden_state
    torch.testing.assert_close(image_tower(tmp_path)(image).summary, expected[:, 0], atol=1e-5, rtol=0)


def test_half_precision_weights_become_single(tmp_path: Path):
    save("vit", tmp_path)
    transformers.AutoModel.from_pretrained(tmp_path).half().save_pretrained(tmp_path)
    tower = image_tower(tmp_path)
    assert {value.dtype for value in tower.parameters()} == {torch.float32}
    assert tower(pictures()).summary.dtype == torch.float32


def test_the_activation_comes_from_the_config(tmp_path: Path):
    image = pictures()
    quick = image_tower(save("clip", tmp_path / "quick"))(image).summary
    vision = {**IMAGE["clip"][1]["vision_config"], "hidden_act": "gelu"}
    plain = image_tower(save("clip", tmp_path / "plain", vision_config=vision))(image).summary
    assert not torch.allclose(quick, plain, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "size", "crop", "mean", "std"),
    [
        ({}, 16, "squash", 0.4, 0.2),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16}}, 16, "center", 0.4, 0.2),
        ({"size": 16}, 16, "squash", 0.4, 0.2),
        ({"size": {"shortest_edge": 16}}, 16, "center", 0.4, 0.2),
        ({"do_normalize": False}, 16, "squash", 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, 16, "squash", 1.4 / 2, 0.2 / 2),
        ({"do_rescale": False}, 16, "squash", 0.4 / 255, 0.2 / 255),
    ],
)
def test_pixels_are_made_ready_as_the_processor_says(
    changes: dict[str, object], size: int, crop: str, mean: float, std: float, tmp_path: Path
):
    save("resnet", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PIXELS, **changes}))
    tower = image_tower(tmp_path)
    assert (tower.image_size, tower.crop) == (size, crop)
    assert tower.mean[0] == pytest.approx(mean)
    assert tower.std[0] == pytest.approx(std)


def test_a_convolution_tower_takes_other_sizes_and_a_transformer_does_not(tmp_path: Path):
    save("mobilenet_v2", tmp_path / "cnn")
    config = TowerConfig(image_encoder=str(tmp_path / "cnn"), image_size=64)
    tower = build_image(config, DataSpec(image_size=image_size_for(config)))
    assert tower(torch.rand(1, 3, 64, 64)).tokens.shape[1] == 4
    save("vit", tmp_path / "vit")
    with pytest.raises(UserError, match="cannot take pictures of 32 pixels"):
        build_image(TowerConfig(image_encoder=str(tmp_path / "vit")), DataSpec(image_size=32))


def test_summaries_can_be_chosen(tmp_path: Path, texts: tuple[Tensor, Tensor]):
    tokens, mask = texts
    save("bert", tmp_path, text=True)
    states = text_tower(tmp_path)(tokens, mask)
    torch.testing.assert_close(states.summary[2], states.tokens[2, :2].mean(0))
    assert torch.equal(text_tower(tmp_path, text_pool="class")(tokens, mask).summary, states.tokens[:, 0])
    assert torch.equal(text_tower(tmp_path, text_pool="last")(tokens, mask).summary[2], states.tokens[2, 1])
    assert torch.equal(text_tower(tmp_path, text_pool="max")(tokens, mask).summary[2], states.tokens[2, :2].amax(0))
    with pytest.raises(UserError, match="unknown text pool 'medium'"):
        text_tower(tmp_path, text_pool="medium")
    save("swin", tmp_path / "swin")
    with pytest.raises(UserError, match="gives no summary of the kind 'class'"):
        image_tower(tmp_path / "swin", image_pool="class")
    with pytest.raises(UserError, match="unknown image pool 'clas'"):
        image_tower(tmp_path / "swin", image_pool="clas")


def test_the_grid_can_come_from_another_depth(tmp_path: Path):
    image = pictures()
    for kind, folder in (("dinov2_with_registers", tmp_path / "vit"), ("resnet", tmp_path / "cnn")):
        theirs = transformers.AutoModel.from_pretrained(save(kind, folder)).eval()
        hidden = theirs(normalised(image), output_hidden_states=True).hidden_states
        plain, deep = image_tower(folder), image_tower(folder, image_grid=1)
        grid = hidden[1].flatten(2).transpose(1, 2) if hidden[1].ndim == 4 else hidden[1][:, 10:]
        torch.testing.assert_close(deep(image).tokens, grid, atol=1e-5, rtol=0)
        torch.testing.assert_close(deep(image).summary, plain(image).summary, atol=1e-5, rtol=0)
        assert (deep.dim, deep.token_dim) == (plain.dim, grid.shape[2])
        assert deep.identity() != plain.identity()
        with pytest.raises(UserError, match="has no hidden state 9: it has"):
            image_tower(folder, image_grid=9)


def test_the_summary_of_a_text_can_come_from_several_depths(tmp_path: Path, texts: tuple[Tensor, Tensor]):
    theirs = transformers.AutoModel.from_pretrained(save("bert", tmp_path, text=True)).eval()
    tokens, mask = texts
    hidden = theirs(tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    tower = text_tower(tmp_path, text_depths=(3, 0))
    states = tower(tokens, mask)
    expected = torch.cat([hidden[3][2, :2].mean(0), hidden[0][2, :2].mean(0)])
    torch.testing.assert_close(states.summary[2], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(states.tokens[mask], hidden[3][mask], atol=1e-5, rtol=0)
    assert (tower.dim, tower.token_dim) == (32, 16)
    with pytest.raises(UserError, match="has no hidden state -5: it has 4"):
        text_tower(tmp_path, text_depths=(-5,))


@pytest.mark.parametrize(("mode", "pool"), [("cls_token", "class"), ("mean_tokens", "mean"), ("max_tokens", "max")])
def test_sentence_encoders_pool_as_their_files_say(mode: str, pool: str, tmp_path: Path):
    save("bert", tmp_path, text=True)
    sentence_files(tmp_path, {"pooling_mode_cls_token": False, f"pooling_mode_{mode}": True})
    tower = text_tower(tmp_path)
    assert tower.pool == pool
    assert tower.context == context_for(TowerConfig(text_encoder=str(tmp_path))) == 9


def test_an_unknown_pooling_is_refused(tmp_path: Path):
    save("bert", tmp_path, text=True)
    sentence_files(tmp_path, {"pooling_mode_weightedmean_tokens": True})
    with pytest.raises(UserError, match=r"pools by pooling_mode_weightedmean_tokens .*set text_pool"):
        text_tower(tmp_path)


def sentence_files(folder: Path, pooling: dict[str, bool]) -> None:
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9}))


def test_mistakes_are_one_line_each(tmp_path: Path):
    def fails(match: str, **settings: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            image_size_for(TowerConfig(**settings)) if "image_encoder" in settings else text_tower(
                settings["text_encoder"]  # type: ignore[arg-type]
            )
        assert "\n" not in str(caught.value)

    fails("'vitt' is neither built in .*did you mean 'vit'", image_encoder="vitt")
    fails("'openai/clip-vit-none' is neither built in .*hub.*online", image_encoder="openai/clip-vit-none")
    fails("'tranformer' is neither .*did you mean 'transformer'", text_encoder="tranformer")
    fails("holds no config.json", image_encoder=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    fails("the config.json in .* cannot be used: .*JSON", image_encoder=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "vitt"}')
    fails("the config.json in .* cannot be used: .*`vitt`", image_encoder=str(tmp_path))
    fails("names no folder", image_encoder=f"config:{tmp_path}/none")
    fails("timm has image towers only", text_encoder="timm:vit_tiny")
    save("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    fails("no preprocessor_config.json at hand, which tells the pixel statistics", image_encoder=str(tmp_path))


def test_a_tower_of_the_other_side_is_refused(tmp_path: Path):
    save("bert", tmp_path / "bert", text=True)
    save("vit", tmp_path / "vit")
    with pytest.raises(UserError, match="is a bert model, which does not take pictures"):
        image_tower(tmp_path / "bert")
    with pytest.raises(UserError, match="is a vit model, which does not read text"):
        text_tower(tmp_path / "vit")


def test_a_checkpoint_cut_short_or_without_weights(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save("bert", tmp_path, text=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of its BertModel, such as encoder\.layer\.1\.output"):
        text_tower(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match="cannot take the weights of"):
        text_tower(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot take the weights of"):
        text_tower(tmp_path)


def test_a_foreign_vocabulary_is_refused(tmp_path: Path):
    save("bert", tmp_path, text=True)
    with pytest.raises(UserError, match="knows 40 token ids, but the tokenizer has 41"):
        build_text(TowerConfig(text_encoder=str(tmp_path)), DataSpec(vocabulary=41))


def test_an_architecture_has_no_tokenizer(tmp_path: Path):
    save("bert", tmp_path, text=True)
    assert pretrained.tokenizer_source(str(tmp_path)) == str(tmp_path)
    with pytest.raises(UserError, match="architecture without a tokenizer"):
        pretrained.tokenizer_source(f"config:{tmp_path}")


@pytest.mark.real
def test_real_mobilenet_tells_pictures_apart(real_data: Path):
    from PIL import Image

    tower = image_tower(real_data / "weights" / "mobilenet_v2")
    files = sorted((real_data / "flickr8k" / "images").iterdir())[:4]
    with warnings.catch_warnings(), torch.no_grad():
        pixels = [torch.tensor(list(Image.open(file).resize((224, 224)).convert("RGB").tobytes())) for file in files]
        image = torch.stack(pixels).view(-1, 224, 224, 3).permute(0, 3, 1, 2).to(torch.uint8)
        states = tower(image)
    assert states.tokens.shape == (4, 49, 1280)
    torch.testing.assert_close(states.summary, states.tokens.mean(1), atol=1e-5, rtol=0)
    likeness = torch.nn.functional.cosine_similarity(states.summary[:, None], states.summary[None], dim=-1)
    assert likeness.fill_diagonal_(0).max() < 0.9
