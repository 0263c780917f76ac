import math

import pytest
import torch
import torch.nn.functional as F

from diptych.nn.matching import FilterReason, GraphReason, GraphRound, SimilarityVectors, missed, region_weights


def sides(pictures=2, texts=3, regions=5, words=4, dim=6):
    """Ragged unit vectors in float64, with their masks."""
    v, w = (F.normalize(torch.randn(*shape, dim).double(), dim=-1) for shape in ((pictures, regions), (texts, words)))
    region_mask = torch.arange(regions) < torch.tensor([[regions], [regions - 2]])[:pictures]
    word_mask = torch.arange(words) < torch.tensor([[words], [2], [1]])[:texts]
    return v, region_mask, w, word_mask


def test_scan_attention_by_hand():
    v, region_mask, w, word_mask = sides()
    got = region_weights(v, region_mask, w, word_mask, sharpness=9.0)
    below = missed(got, v, w)
    for i in range(2):
        for j in range(3):
            r, t = int(region_mask[i].sum()), int(word_mask[j].sum())
            leaky = [[max(0.1 * float(x), float(x)) for x in w[j, k] @ v[i, :r].T] for k in range(t)]
            for k in range(t):
                length = [math.sqrt(sum(leaky[q][p] ** 2 for q in range(t))) + 1e-8 for p in range(r)]
                raised = [math.exp(9 * leaky[k][p] / length[p]) for p in range(r)]
                weights = torch.tensor([x / sum(raised) for x in raised], dtype=torch.float64)
                torch.testing.assert_close(got[i, j, k, :r], weights, rtol=1e-10, atol=1e-10)
                context = got[i, j, k, :r] @ v[i, :r]
                wanted = context / context.norm() - w[j, k]
                torch.testing.assert_close(below[i, j, k], wanted, rtol=1e-10, atol=1e-10)
    assert torch.equal(got[1, ..., 3:], torch.zeros(3, 4, 2).double())


def test_with_one_region_every_word_sees_that_region_normalised():
    v, w = F.normalize(torch.randn(2, 1, 6), dim=-1), F.normalize(torch.randn(3, 4, 6), dim=-1)
    context = missed(region_weights(3 * v, torch.ones(2, 1).bool(), w, torch.ones(3, 4).bool()), 3 * v, w) + w
    torch.testing.assert_close(context, v[:, :, None].expand(2, 3, 4, 6), rtol=1e-5, atol=1e-6)


def test_similarity_vectors_by_hand_one_by_one_and_all_with_all():
    layer = SimilarityVectors(6, 4).double()
    torch.nn.init.normal_(layer.map.bias)
    x, y = torch.randn(3, 6).double(), torch.randn(5, 6).double()
    for i in range(3):
        for j in range(5):
            raw = layer.map.weight @ (x[i] - y[j]).square() + layer.map.bias
            torch.testing.assert_close(layer.outer(x, y)[i, j], raw / raw.norm(), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(layer(x[i] - y[j]), raw / raw.norm(), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def graph_by_hand(graph, nodes):
    for step in graph.rounds:
        scores = [[float(step.query(p) @ step.key(q)) for q in nodes] for p in nodes]
        edges = torch.tensor([[math.exp(s - max(row)) for s in row] for row in scores], dtype=torch.float64)
        edges = edges / edges.sum(1, keepdim=True)
        nodes = F.relu(F.linear(edges @ nodes, step.value.weight, step.value.bias))
    return graph.out(nodes[0])[0]


def test_graph_reasoning_by_hand_with_padding():
    graph = GraphReason(4, steps=3).double()
    nodes, mask = torch.randn(2, 5, 4).double(), torch.arange(5) < torch.tensor([[5], [3]])
    got = graph(nodes, mask).detach()
    torch.testing.assert_close(got[0], graph_by_hand(graph, nodes[0]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got[1], graph_by_hand(graph, nodes[1, :3]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("listeners", [None, 1])
def test_rows_of_edges_add_up_to_one_and_padding_gets_nothing(listeners):
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    edges = GraphRound(4).edges(torch.randn(2, 5, 4), mask, listeners=listeners)
    assert edges.shape == (2, 5 if listeners is None else 1, 5)
    torch.testing.assert_close(edges.sum(2), torch.ones(edges.shape[:2]))
    assert torch.equal(edges[1, :, 3:], torch.zeros(edges.shape[1], 2))


def test_filtration_by_hand_with_padding():
    saf = FilterReason(4).double()
    nodes, mask = torch.randn(2, 5, 4).double(), torch.arange(5) < torch.tensor([[5], [3]])
    gates = [1 / (1 + math.exp(-saf.gate(node).item())) for node in nodes[1, :3]]
    summed = sum(gate / sum(gates) * node for gate, node in zip(gates, nodes[1, :3], strict=True))
    wanted = saf.out(summed / summed.norm())[0]
    torch.testing.assert_close(saf(nodes, mask)[1], wanted, rtol=1e-10, atol=1e-10)
