"""Fusions against their formulas in float64, and what each is a special case of."""

import pytest
import torch

from diptych.core.errors import UserError
from diptych.nn.fusion import (
    FUSIONS,
    MLB,
    Concat,
    Gated,
    LowRank,
    Mutan,
    Sum,
    TensorFusion,
    Weighted,
    build_fusion,
    outer,
)

DIMS, OUT = (5, 3, 4), 6
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def parts(dims=DIMS, *, rows=7, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=random) for dim in dims]


def test_concat_and_a_linear_map_is_the_sum_of_maps():
    concat, total, given = Concat(DIMS, OUT), Sum(DIMS, OUT), parts()
    weights = concat.down.weight.split(DIMS, dim=1)
    with torch.no_grad():
        for layer, weight in zip(total.maps, weights, strict=True):
            layer.weight.copy_(weight)
        total.maps[0].bias.copy_(concat.down.bias)
    torch.testing.assert_close(concat(given), total(given), **EXACT)
    gone = [given[0], torch.zeros_like(given[1]), given[2]]  # a missing modality is a dropped block
    kept = given[0] @ weights[0].T + given[2] @ weights[2].T + concat.down.bias
    torch.testing.assert_close(concat(gone), kept, **EXACT)


def test_concat_with_an_mlp():
    concat, given = Concat(DIMS, OUT, hidden=8).eval(), parts()
    whole = torch.cat(given, 1)
    inside = (whole @ concat.up.weight.T + concat.up.bias).clamp(min=0)
    torch.testing.assert_close(concat(given), inside @ concat.down.weight.T + concat.down.bias, **EXACT)


def test_a_gated_unit_of_two_is_the_papers():
    gated, given = Gated((5, 3), OUT), parts((5, 3))
    image, text = (torch.tanh(x @ m.weight.T + m.bias) for x, m in zip(given, gated.maps, strict=True))
    logits = torch.cat(given, 1) @ gated.gate.weight.T + gated.gate.bias
    z = torch.sigmoid(logits[:, :OUT] - logits[:, OUT:])
    fused = gated(given)
    torch.testing.assert_close(fused, z * image + (1 - z) * text, **EXACT)
    assert (fused <= torch.maximum(image, text) + 1e-12).all()
    assert (fused >= torch.minimum(image, text) - 1e-12).all()
    with torch.no_grad():
        gated.gate.bias[:OUT] = 50.0
        torch.testing.assert_close(gated(given), image, rtol=0, atol=1e-12)
        gated.gate.bias[:OUT] = -50.0
        torch.testing.assert_close(gated(given), text, rtol=0, atol=1e-12)


def test_gates_do_not_matter_where_both_sides_say_the_same():
    gated = Gated((5, 5), OUT)
    with torch.no_grad():
        gated.maps[1].load_state_dict(gated.maps[0].state_dict())
    x = parts((5,))[0]
    gated([x, x]).sum().backward()
    torch.testing.assert_close(gated.gate.weight.grad, torch.zeros_like(gated.gate.weight), rtol=0, atol=1e-12)


def test_gates_of_three_need_not_add_up():
    gated, given = Gated(DIMS, OUT, gates="sigmoid"), parts()
    logits = (torch.cat(given, 1) @ gated.gate.weight.T + gated.gate.bias).split(OUT, 1)
    wanted = sum(
        torch.sigmoid(z) * torch.tanh(x @ m.weight.T + m.bias)
        for z, x, m in zip(logits, given, gated.maps, strict=True)
    )
    torch.testing.assert_close(gated(given), wanted, **EXACT)
    with pytest.raises(UserError, match="unknown gates 'sigmoids'; did you mean 'sigmoid'"):
        Gated(DIMS, OUT, gates="sigmoids")


def test_the_outer_product_keeps_single_features_and_pairs():
    a, b, c = parts()
    whole = outer([a, b, c]).view(7, 6, 4, 5)
    torch.testing.assert_close(whole[:, 1:, 0, 0], a, **EXACT)
    torch.testing.assert_close(whole[:, 0, 1:, 1:], b[:, :, None] * c[:, None, :], **EXACT)
    torch.testing.assert_close(whole[:, 1:, 1:, 1:], torch.einsum("bi,bj,bk->bijk", a, b, c), **EXACT)
    scaled = outer([3 * a, b, c]).view(7, 6, 4, 5)
    torch.testing.assert_close(scaled[:, 1:], 3 * whole[:, 1:], **EXACT)
    torch.testing.assert_close(scaled[:, 0], whole[:, 0], **EXACT)


def test_tensor_fusion_by_hand():
    fusion, given = TensorFusion((5, 3), OUT, width=2).eval(), parts((5, 3))
    a, b = (torch.tanh(x @ m.weight.T + m.bias) for x, m in zip(given, fusion.maps, strict=True))
    one = torch.ones(7, 1)
    products = torch.einsum("bi,bj->bij", torch.cat([one, a], 1), torch.cat([one, b], 1)).flatten(1)
    inside = (products @ fusion.up.weight.T + fusion.up.bias).relu()
    torch.testing.assert_close(fusion(given), inside @ fusion.down.weight.T + fusion.down.bias, **EXACT)


def test_low_rank_is_a_linear_map_of_the_outer_product():
    fusion, given = LowRank(DIMS, OUT, rank=3), parts()
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([0.5, -2.0, 1.5]))
        fusion.bias.normal_()
    one, two, three = fusion.factors
    whole = torch.einsum("r,rio,rjo,rko->ijko", fusion.weights, one, two, three).reshape(6 * 4 * 5, OUT)
    torch.testing.assert_close(fusion(given), outer(given) @ whole + fusion.bias, **EXACT)


def test_enough_ranks_make_any_linear_map_of_the_outer_product():
    given, whole = parts((2, 1)), torch.randn(3 * 2, OUT)
    fusion = LowRank((2, 1), OUT, rank=6)
    with torch.no_grad():
        fusion.weights.fill_(1)
        for factor in fusion.factors:
            factor.zero_()
        for rank, (i, j) in enumerate((i, j) for i in range(3) for j in range(2)):
            fusion.factors[0][rank, i], fusion.factors[1][rank, j] = whole[2 * i + j], 1.0
    torch.testing.assert_close(fusion(given), outer(given) @ whole, **EXACT)


def test_mutan_of_one_term_without_cores_is_mlb():
    mlb, mutan, given = MLB((5, 3), OUT), Mutan((5, 3), OUT, width=OUT, rank=1), parts((5, 3))
    with torch.no_grad():
        for layer, core in zip(mutan.maps, mutan.cores, strict=True):
            core.weight.copy_(torch.eye(OUT))
            core.bias.zero_()
            mlb.maps[list(mutan.maps).index(layer)].load_state_dict(layer.state_dict())
    torch.testing.assert_close(mutan(given), mlb(given), **EXACT)


@pytest.mark.parametrize("squash", [False, True])
def test_mutan_by_hand(squash):
    fusion, given = Mutan((5, 3), OUT, width=4, rank=2, squash=squash), parts((5, 3))
    sides = []
    for x, layer, core in zip(given, fusion.maps, fusion.cores, strict=True):
        side = torch.tanh(x @ layer.weight.T + layer.bias) @ core.weight.T + core.bias
        sides.append((side.tanh() if squash else side).view(7, 2, OUT))
    torch.testing.assert_close(fusion(given), (sides[0] * sides[1]).sum(1), **EXACT)


def test_attention_over_modalities_is_even_where_they_say_the_same():
    fusion, given = Weighted((5, 3), OUT), parts((5, 3))
    values = torch.stack([x @ m.weight.T + m.bias for x, m in zip(given, fusion.maps, strict=True)], 1)
    scores = (values @ fusion.hidden.weight.T + fusion.hidden.bias).tanh() @ fusion.score.weight.T
    weights = torch.softmax(scores, 1)
    torch.testing.assert_close(fusion(given), (weights * values).sum(1), **EXACT)
    same = values[:, :1].expand(-1, 2, -1)
    torch.testing.assert_close(fusion.weights(same), torch.full((7, 2, 1), 0.5), **EXACT)


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_factor_is_registered_and_moves(kind):
    fusion, given = build_fusion(kind, (5, 3), OUT, width=4, rank=3), parts((5, 3))
    before = {name: value.clone() for name, value in fusion.state_dict().items()}
    assert set(before) == {name for name, _ in fusion.named_parameters()}
    optimizer = torch.optim.SGD(fusion.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (fusion(given) - 1).square().mean().backward()
        optimizer.step()
    for name, value in fusion.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} did not move"
    parameters = {"low_rank": 3 * (6 + 4) * OUT + 3 + OUT, "sum": (5 + 3 + 1) * OUT}
    if kind in parameters:
        assert sum(value.numel() for value in fusion.parameters()) == parameters[kind]


def test_an_unknown_fusion_is_refused():
    with pytest.raises(UserError, match="unknown fusion 'lowrank'; did you mean 'low_rank'"):
        build_fusion("lowrank", (5, 3), OUT, width=4, rank=3)
    with pytest.raises(UserError, match="at least two modalities, got 1"):
        build_fusion("sum", (5,), OUT, width=4, rank=3)
