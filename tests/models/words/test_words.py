"""Skip-gram and its multimodal sisters: the paper's formulas by hand, and what they find on toy corpora."""

import math

import pytest
import torch

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.models.words import multimodal_skipgram, skipgram
from diptych.objectives.skipgram import picture_hinge, windows
from diptych.objectives.skipgram import skipgram as objective

SPEC = DataSpec(image_size=16, vocabulary=12, pad_id=0, bos_id=-1, eos_id=-1, unk_id=1)
TINY = {"image_encoder": "vit", "image_patch": 8, "image_dim": 6, "image_layers": 1, "image_heads": 2}


def rows(seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    tokens = torch.randint(2, 12, (2, 5), generator=random) * mask
    return Batch(tokens=tokens, token_mask=mask, negatives=torch.randint(2, 12, (2, 7), generator=random))


def by_hand(model, batch, *, window, count):
    """Transcribe the loss pair by pair, with the expectation over drawn windows written as a sum over them."""
    total = 0.0
    v, u = model.centre.weight.tolist(), model.around.weight.tolist()

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    for words, mask, noise in zip(
        batch.tokens.tolist(), batch.token_mask.tolist(), batch.negatives.tolist(), strict=True
    ):
        words = [w for w, real in zip(words, mask, strict=True) if real]
        for reach in range(1, window + 1):  # drawn with probability 1 / window
            for i, w in enumerate(words):
                for j in range(max(0, i - reach), min(len(words), i + reach + 1)):
                    if i == j:
                        continue
                    pair = math.log1p(math.exp(-dot(u[words[j]], v[w])))
                    far = sum(math.log1p(math.exp(dot(u[n], v[w]))) for n in noise if n != words[j])
                    total += (pair + count * far / len(noise)) / window
    return total / len(batch.tokens)


def test_the_loss_is_that_of_the_paper_in_expectation():
    model = skipgram.build(skipgram.Config(dim=4, window=3, noise=5), SPEC).double()
    torch.nn.init.normal_(model.centre.weight)
    torch.nn.init.normal_(model.around.weight)
    assert model.loss(rows()).total.item() == pytest.approx(by_hand(model, rows(), window=3, count=5), abs=1e-10)


def test_zero_vectors_cost_six_times_ln_2_a_pair():
    model = skipgram.build(skipgram.Config(dim=4), SPEC)
    tokens = torch.tensor([[2, 3, 4]])
    batch = Batch(tokens=tokens, token_mask=tokens > 0, negatives=torch.tensor([[5, 6]]))
    assert model.loss(batch).parts["pair"].item() == pytest.approx(4.1588830834, abs=1e-6)  # neighbours begin at zero


def test_the_gradient_is_sigma_minus_label_times_the_other_vector():
    v, u, n = (torch.randn(4, dtype=torch.float64) for _ in range(3))
    centre = torch.stack([v, torch.zeros_like(v)])[None].requires_grad_()
    around = torch.stack([torch.zeros_like(u), u])[None].requires_grad_()
    noise = n.view(1, 1, 4).clone().requires_grad_()
    weight = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)  # the pair (first word, second) alone
    loss = objective(centre, around, noise, torch.tensor([[2, 3]]), torch.tensor([[4]]), weight, count=1)
    loss.sum().backward()
    torch.testing.assert_close(around.grad[0, 1], (torch.sigmoid(u @ v) - 1) * v, rtol=0, atol=1e-12)
    torch.testing.assert_close(noise.grad[0, 0], torch.sigmoid(n @ v) * v, rtol=0, atol=1e-12)
    wanted = (torch.sigmoid(u @ v) - 1) * u + torch.sigmoid(n @ v) * n
    torch.testing.assert_close(centre.grad[0, 0], wanted, rtol=0, atol=1e-12)


def test_windows_weigh_by_how_often_a_drawn_window_would_reach():
    weight = windows(torch.ones(1, 5, dtype=torch.bool), 3)[0]
    torch.testing.assert_close(weight[0], torch.tensor([0, 1, 2 / 3, 1 / 3, 0]))


def test_the_best_vectors_are_shifted_pointwise_mutual_information():
    """Levy & Goldberg 2014: with noise by plain counts, u_c . v_w is PMI - log K at the optimum."""
    counts = torch.tensor([[4, 2, 1], [2, 6, 3], [1, 3, 2]])
    own, k = counts.sum(1), 2.0
    word, other = (place.flatten() for place in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    around = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    centre = torch.eye(3, dtype=torch.float64)[torch.stack([word, other], 1)]
    negatives = torch.arange(3).repeat_interleave(own).expand(9, -1)  # every word as often as it is there
    weight = torch.zeros(9, 2, 2, dtype=torch.float64)
    weight[:, 0, 1] = counts.flatten()
    none = torch.full((9, 2), -1)  # leaves no noise out, which the theorem does not
    optimizer = torch.optim.LBFGS([around], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = objective(
            centre, around[torch.stack([word, other], 1)], around[negatives], none, negatives, weight, count=k
        ).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    wanted = torch.log(counts * own.sum() / (own[:, None] * own)) - math.log(k)
    torch.testing.assert_close(around.detach().T, wanted, rtol=0, atol=1e-4, check_dtype=False)  # the optimizer's


@pytest.mark.parametrize(("margin", "wanted"), [(0.5, 0.3), (0.0, 0.0)])
def test_the_hinge_needs_its_margin(margin, wanted):
    right, wrong = torch.tensor([[0.8]]), torch.tensor([[[0.6]]])
    found = picture_hinge(right, wrong, torch.ones(1, 1, 1, dtype=torch.bool), margin=margin, count=1)
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def multimodal(variant: str, dim: int = 6, **changed):
    config = multimodal_skipgram.Config(**TINY, variant=variant, dim=dim, penalty=0, **changed)
    return multimodal_skipgram.build(config, SPEC)


def pictured(model, words):
    has = torch.zeros(12, dtype=torch.bool)
    has[list(words)] = True
    random = torch.Generator().manual_seed(3)
    model.show(torch.randn(12, 6, generator=random) * has[:, None], has, torch.zeros_like(has))
    return model


def test_words_without_pictures_get_the_gradient_of_plain_skipgram():
    both, plain = multimodal("B"), skipgram.build(skipgram.Config(dim=6), SPEC)
    plain.load_state_dict({name: value for name, value in both.state_dict().items() if name in plain.state_dict()})
    for model in (both, plain):
        model.loss(rows()).total.backward()
    torch.testing.assert_close(both.centre.weight.grad, plain.centre.weight.grad, rtol=0, atol=0)
    torch.testing.assert_close(both.around.weight.grad, plain.around.weight.grad, rtol=0, atol=0)


def test_with_the_identity_for_a_map_b_is_a():
    a, b = pictured(multimodal("A"), range(2, 9)), pictured(multimodal("B"), range(2, 9))
    with torch.no_grad():
        b.map.weight.copy_(torch.eye(6))
        b.pictures.copy_(a.pictures)
        for name in ("centre", "around"):
            getattr(b, name).weight.copy_(torch.randn(12, 6))
            getattr(a, name).weight.copy_(getattr(b, name).weight)
    torch.testing.assert_close(b.loss(rows()).total, a.loss(rows()).total, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(b.imagine(torch.arange(12)), a.imagine(torch.arange(12)))


@pytest.mark.parametrize("variant", ["A", "B"])
def test_hinges_are_those_of_cosines_taken_one_by_one(variant):
    model, batch = pictured(multimodal(variant, wrong=20.0), range(2, 9)), rows(1)
    torch.nn.init.normal_(model.centre.weight)
    total, z = 0.0, model.imagine(torch.arange(12))
    for words, mask, noise in zip(
        batch.tokens.tolist(), batch.token_mask.tolist(), batch.negatives.tolist(), strict=True
    ):
        for w, real in zip(words, mask, strict=True):
            others = [n for n in noise if n != w and model.pictured[n]]
            if real and model.pictured[w] and others:
                gaps = [0.5 - z[w] @ model.pictures[w] + z[w] @ model.pictures[n] for n in others]
                total += 20 * sum(max(0.0, gap.item()) for gap in gaps) / len(others)
    found = model.loss(batch).parts["picture"] * windows(batch.token_mask, 5).sum()
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_the_gradient_of_the_cosine_counts_the_norms():
    model = pictured(multimodal("B"), range(2, 9)).double()
    torch.nn.init.normal_(model.centre.weight)
    centre = model.centre(rows().tokens).detach().requires_grad_()
    hinges = model._hinges(rows(), centre)
    hinges.sum().backward()
    step = 1e-6
    moved = centre.detach().clone()
    moved[0, 1, 2] += step
    back = centre.detach().clone()
    back[0, 1, 2] -= step
    slope = (model._hinges(rows(), moved) - model._hinges(rows(), back)).sum() / (2 * step)
    assert slope.item() == pytest.approx(centre.grad[0, 1, 2].item(), abs=1e-6)


def test_a_tower_that_learns_and_words_too_wide_are_refused():
    with pytest.raises(UserError, match="frozen image tower: image_train='all'"):
        multimodal_skipgram.build(multimodal_skipgram.Config(**TINY, image_train="all"), SPEC)
    with pytest.raises(UserError, match="dim <= 6"):
        multimodal("A", dim=7)
