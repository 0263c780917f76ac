import pytest
import torch

from diptych.core.errors import UserError
from diptych.explain.pair import explain_pair
from diptych.explain.passing import read, see
from diptych.models.align import clip
from tests.encoders.small import IMAGE, TEXTS, save
from tests.explain.models import CONTENT, TINY, TOKENS, cosine, picture
from tests.models.systems import SPEC

# Convolutions, and windows whose places are not said.
SILENT = {"resnet", "convnext", "mobilenet_v1", "mobilenet_v2", "swin"}

HIDDEN = {"mpnet": ("relevance", "rollout"), "t5": ("relevance", "rollout", "gradcam")}


def built(**settings):
    config = clip.Config(**{**TINY, **settings})
    return clip.build(config, SPEC).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", IMAGE)
def test_image_towers_of_transformers_are_explained_though_frozen(kind, tmp_path):
    model, image = built(image_encoder=str(save(kind, tmp_path)), image_size=16), picture()
    with torch.no_grad():
        before = cosine(model, image)
    attention = model.image_tower.model.config._attn_implementation
    found = explain_pair(model, image, TOKENS, CONTENT)
    assert found.score == pytest.approx(float(before), abs=1e-6)
    assert found.grid.isfinite().all()
    assert model.image_tower.model.config._attn_implementation == attention
    with torch.no_grad():
        assert torch.equal(cosine(model, image), before)
    seen = see(model.image_tower, image)
    if kind in SILENT:
        with pytest.raises(UserError, match=r"no attention that can be read|no square grid"):
            explain_pair(model, image, TOKENS, CONTENT, method="relevance")
    else:
        assert len(seen.record.attention) == 3, kind
        assert explain_pair(model, image, TOKENS, CONTENT, method="relevance").grid.any()


@pytest.mark.parametrize("kind", TEXTS)
def test_words_of_text_towers_of_transformers_are_weighed_though_frozen(kind, tmp_path):
    model, image = built(text_encoder=str(save(kind, tmp_path, text=True)), text_context=8), picture()
    with torch.no_grad():
        before = cosine(model, image)
    hidden = HIDDEN.get(kind, ())
    for method in {"auto", "gradcam", "relevance", "rollout", "occlusion"} - {*hidden}:
        found = explain_pair(model, image, TOKENS, CONTENT, method=method)
        assert found.tokens.shape == (5,)
        assert found.tokens.isfinite().all()
    for method in hidden:
        with pytest.raises(UserError, match=r"text tower has no attention|word vectors .* cannot be reached"):
            explain_pair(model, image, TOKENS, CONTENT, method=method)
    if not hidden:
        assert len(read(model.text_tower, TOKENS).record.attention) == 3
    with torch.no_grad():
        assert torch.equal(cosine(model, image), before)
