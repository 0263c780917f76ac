import pytest
import torch

from diptych.nn.graph import RegionGraph, RelationLayer


def woken(layer):
    """Give a layer a branch that counts."""
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.norm.bias)
    return layer


def test_a_relation_layer_starts_as_the_identity():
    nodes, mask = torch.randn(3, 5, 8), torch.ones(3, 5).bool()
    torch.testing.assert_close(RelationLayer(8)(nodes, mask), nodes, rtol=0, atol=0)


def test_a_relation_layer_by_hand():
    layer = woken(RelationLayer(4, hidden=3)).double()
    nodes = torch.randn(1, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    got = layer(nodes, mask)
    for i in range(2):
        taken = torch.zeros(3, dtype=torch.float64)
        for j in range(2):  # two real nodes: the weight is the product divided by 2, with no softmax
            taken += layer.query(nodes[0, i]) @ layer.key(nodes[0, j]) / 2 * layer.value(nodes[0, j])
        torch.testing.assert_close(got[0, i], nodes[0, i] + layer.norm(layer.out(taken)), rtol=1e-10, atol=1e-10)


def test_relations_are_divided_by_the_real_nodes_and_may_be_negative():
    layer = RelationLayer(6).double()
    nodes, mask = torch.randn(4, 7, 6, dtype=torch.float64), torch.arange(7) < torch.tensor([[7], [3], [1], [0]])
    weights = layer.relations(nodes, mask)
    assert (weights < 0).any()
    assert torch.equal(weights[1, :, 3:], torch.zeros(7, 4).double())
    assert torch.equal(weights[3], torch.zeros(7, 7).double())
    torch.testing.assert_close(weights[2, 0, 0], layer.query(nodes[2, 0]) @ layer.key(nodes[2, 0]))


@pytest.mark.parametrize("gather", ["gru", "mean"])
def test_padding_reaches_nothing_and_no_region_gives_zero(gather):
    graph = RegionGraph(5, 8, layers=2, gather=gather).eval()
    for layer in graph.relate:
        woken(layer)
    tokens, mask = torch.randn(3, 6, 5), torch.arange(6) < torch.tensor([[6], [4], [0]])
    got = graph(tokens, mask)
    torch.testing.assert_close(got[1:2], graph(tokens[1:2, :4], mask[1:2, :4]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got, graph(tokens.masked_fill(~mask[..., None], 9.0), mask), rtol=1e-5, atol=1e-6)
    assert torch.equal(got[2], torch.zeros(8))


def test_the_order_of_regions_matters_to_the_gru_alone():
    tokens, mask = torch.randn(2, 6, 5), torch.ones(2, 6).bool()
    turned = tokens[:, torch.tensor([3, 0, 5, 1, 4, 2])]
    for gather in ("mean", "gru"):
        graph = RegionGraph(5, 8, layers=2, gather=gather).eval()
        for layer in graph.relate:
            woken(layer)
        assert torch.allclose(graph(tokens, mask), graph(turned, mask), atol=1e-5) == (gather == "mean")


def test_dropped_regions_are_not_seen_in_training_alone():
    graph = RegionGraph(5, 8, layers=1, dropout=0.5)
    tokens, mask = torch.randn(2, 6, 5), torch.ones(2, 6).bool()
    assert not torch.equal(graph(tokens, mask), graph(tokens, mask))
    graph.eval()
    assert torch.equal(graph(tokens, mask), graph(tokens, mask))
