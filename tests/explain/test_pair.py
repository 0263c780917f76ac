import pytest
import torch
from torch import nn

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.encoders.base import TextEncoder
from diptych.explain.maps import shifted
from diptych.explain.occlusion import without_parts
from diptych.explain.pair import METHODS, explain_pair
from diptych.explain.passing import read, see
from diptych.explain.steps import by_rollout
from diptych.nn.attention import Attention, attend, visible, weigh
from diptych.nn.windows import WindowAttention
from tests.explain.models import CONTENT, MAKES, TOKENS, cosine, made, picture


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", MAKES)
def test_every_method_explains_every_built_in_tower(make, method):
    model, image = made(make), picture()
    found = explain_pair(model, image, TOKENS, CONTENT, method=method)
    assert found.score == pytest.approx(float(cosine(model, image)), abs=1e-6)
    assert found.grid.shape[0] == found.grid.shape[1] > 1
    assert found.grid.isfinite().all()
    assert (found.grid >= 0).all()
    assert found.grid.any() or method not in {"rollout", "random"}
    assert found.tokens.shape == (5,)
    assert not found.tokens[~CONTENT].any()


@pytest.mark.parametrize("make", MAKES)
def test_an_explanation_leaves_the_model_as_it_was(make):
    model, image = made(make), picture()
    with torch.no_grad():
        before = cosine(model, image)
    for method in METHODS:
        explain_pair(model, image, TOKENS, CONTENT, method=method, steady=False)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        if isinstance(module, Attention | WindowAttention):
            assert module.watch is None
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(cosine(model, image), before)


def test_hooks_go_also_when_the_tower_fails():
    model = made("vit")
    with pytest.raises(UserError, match="this image tower takes"):
        see(model.image_tower, torch.zeros(3, 8, 8, dtype=torch.uint8))
    model.text_tower.norm = nn.LayerNorm(7)
    with pytest.raises(RuntimeError):
        read(model.text_tower, TOKENS)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.watch is None for module in model.modules() if isinstance(module, Attention))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_watched_weights_are_those_of_the_fused_kernel(causal, masked):
    query, key, value = torch.randn(3, 2, 2, 5, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]]) if masked else None
    seen = visible(mask, causal=causal, queries=5)
    weights = weigh(query, key, seen=seen, causal=causal)
    assert torch.allclose(weights @ value, attend(query, key, value, seen=seen, causal=causal), atol=1e-10)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 5, dtype=torch.float64))


def test_a_query_that_sees_no_key_has_no_weight():
    query = torch.randn(1, 1, 2, 4)
    assert not weigh(query, query, seen=torch.zeros(1, 1, 1, 2, dtype=torch.bool)).any()


def test_a_watched_attention_computes_the_same():
    attention = Attention(8, 2).double()
    x, kept = torch.randn(2, 5, 8, dtype=torch.float64), []
    plain = attention(x)
    attention.watch = lambda weights: kept.append(weights) or weights
    assert torch.allclose(attention(x), plain, atol=1e-10)
    assert kept[0].shape == (2, 2, 5, 5)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "relevance"])
def test_the_words_asked_for_change_the_map(method):
    model, image = made("vit"), picture()
    one = explain_pair(model, image, TOKENS, CONTENT, method=method)
    other = explain_pair(model, image, torch.tensor([1, 20, 31, 7, 2]), CONTENT, method=method)
    assert not torch.allclose(one.grid, other.grid)


@pytest.mark.parametrize("make", ["vit", "vit, means", "resnet", "swin"])
def test_rollout_gives_the_same_map_for_every_text_and_its_rows_add_up_to_one_or_less(make):
    model, image = made(make), picture()
    one = explain_pair(model, image, TOKENS, CONTENT, method="rollout")
    other = explain_pair(model, image, torch.tensor([1, 20, 31, 7, 2]), CONTENT, method="rollout")
    assert torch.equal(one.grid, other.grid)
    seen = see(model.image_tower, image)
    row = by_rollout(seen, seen.states.summary.sum())
    assert 0.2 < float(row.sum()) <= 1 + 1e-5  # a class token keeps the rest
    if make in {"vit, means", "swin"}:
        assert float(row.sum()) == pytest.approx(1, abs=1e-5)


def test_a_shifted_picture_comes_back_to_its_place():
    image = torch.rand(1, 8, 8)
    there = shifted(image, 2, -1)
    assert torch.equal(there[0, 2:, :-1], image[0, :-2, 1:])
    assert torch.equal(there[0, 0, :-1], image[0, 0, 1:])
    assert torch.equal(shifted(there, -2, 1)[0, :-2, 1:], image[0, :-2, 1:])


def test_what_is_mirrored_is_turned_back():
    model, image = made("mirror"), picture()
    one = explain_pair(model, image, TOKENS, CONTENT, method="gradcam").grid
    other = explain_pair(model, image.flip(-1), TOKENS, CONTENT, method="gradcam").grid
    assert torch.allclose(one, other.flip(-1), atol=1e-5)


def test_a_text_against_itself_leaves_no_evidence():
    model, image = made("resnet"), picture()
    found = explain_pair(model, image, TOKENS, CONTENT, method="occlusion", against=[TOKENS])
    assert not found.grid.any()
    assert found.tokens.any()


def test_occlusion_sees_what_alone_matters():
    def values(images):
        return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, -1]], dim=1).float() / 255

    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, 0, 0] = 200
    corner, other = without_parts(values, image)
    assert corner.argmax() == 0
    assert not corner[3:].any()
    assert not other.any()


@pytest.mark.parametrize("method", ["relevance", "rollout"])
def test_a_tower_without_attention_says_what_can_explain_it(method):
    model = made("resnet")
    model.image_tower.pool = _Mean()
    with pytest.raises(UserError, match="image tower has no attention that can be read: method=gradcam and method=occ"):
        explain_pair(model, picture(), TOKENS, CONTENT, method=method)
    assert "by relevance" not in explain_pair(model, picture(), TOKENS, CONTENT).method


def test_a_text_tower_without_a_table_of_words_says_what_can_explain_it():
    class Other(TextEncoder):
        def recipe(self):
            return ""

        def encode(self, tokens, mask):
            return States(torch.zeros(1, 1, 1), mask[:, :1], torch.ones(1, 1))

    with pytest.raises(UserError, match=r"word vectors of this Other cannot be reached.*method=occlusion"):
        read(Other(1, context=8), TOKENS)


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"gradcan.*gradcam"):
        explain_pair(made("vit"), picture(), TOKENS, CONTENT, method="gradcan")


class _Mean(nn.Module):
    def forward(self, grid):
        return grid.mean(1)
