"""Regions against words: each word looks at a picture, and how well it finds itself becomes a vector, then a score."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Reason = Literal["sgr", "saf", "both"]

TINY = 1e-8
"""Added to lengths that something is divided by."""


def region_weights(
    regions: Float[Tensor, "m r d"],
    region_mask: Bool[Tensor, "m r"],
    words: Float[Tensor, "n t d"],
    word_mask: Bool[Tensor, "n t"],
    *,
    sharpness: float = 9.0,
) -> Float[Tensor, "m n t r"]:
    """Say how much each word of each text looks at each region of each picture.

    Products of regions and words pass a leaky ReLU (0.1) and are brought to length 1 over the words of a text, so that
    a region which answers to every word answers to none; a softmax over the regions follows.

    Args:
        regions: unit vectors.
        region_mask: which are real.
        words: unit vectors.
        word_mask: which are real; the others do not count in the length.
        sharpness: what is multiplied before the softmax; > 0.

    Returns:
        Weights that add up to 1 over the real regions.

    Reference:
        Lee et al. 2018, arXiv 1803.08024 (SCAN, text to image), as their code has it.
    """
    products = words.flatten(0, 1) @ regions.flatten(0, 1).T
    found = F.leaky_relu(products, 0.1).view(*words.shape[:2], *regions.shape[:2])
    found = found.masked_fill(~word_mask[:, :, None, None], 0.0)
    found = found * (sharpness / (found.square().sum(1, keepdim=True).sqrt() + TINY))
    found = found.masked_fill(~region_mask, torch.finfo(found.dtype).min)
    return found.softmax(-1).permute(2, 0, 1, 3)


def missed(
    weights: Float[Tensor, "m n t r"], regions: Float[Tensor, "m r d"], words: Float[Tensor, "n t d"]
) -> Float[Tensor, "m n t d"]:
    """Return what lies between each word and what it sees: the weighted regions, at length 1, minus the word.

    The length comes from the products of the regions with each other, and both steps are one product of matrices:
    the pairs of all words with all pictures are many, and each pass over them counts.
    """
    pictures, texts, length, _ = weights.shape
    flat = weights.reshape(pictures, texts * length, -1)
    square = ((flat @ (regions @ regions.transpose(1, 2))) * flat).sum(-1, keepdim=True)
    unit = flat / square.clamp(min=TINY**2).sqrt()
    below = words.reshape(1, texts * length, -1).expand(pictures, -1, -1)
    return torch.baddbmm(below, unit, regions, beta=-1).view(pictures, texts, length, -1)


class SimilarityVectors(nn.Module):
    """How two unit vectors differ, as a unit vector: W |x - y|^2, divided by its length.

    Args:
        dim: width of what is compared.
        out: width of a similarity vector.

    Reference:
        Diao et al. 2021, arXiv 2101.01368 (SGRAF).
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, out)
        nn.init.zeros_(self.map.bias)

    def forward(self, difference: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        """Turn differences into similarity vectors."""
        return F.normalize(self.map(difference.square()), dim=-1)

    def outer(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n k"]:
        """Compare every x with every y; |x - y|^2 is expanded, so that no pair of them is ever written out."""
        weight = self.map.weight
        cross = (y[:, None] * weight).flatten(0, 1) @ x.T
        own = (x.square() @ weight.T)[:, None] + (y.square() @ weight.T) + self.map.bias
        return F.normalize(own - 2 * cross.view(len(y), -1, len(x)).permute(2, 0, 1), dim=-1)


class GraphReason(nn.Module):
    """SGR: similarity vectors send each other messages, then the first one, that of the whole, gives the score.

    Args:
        dim: width of a similarity vector.
        steps: rounds of messages; in the last one only the first node listens.
    """

    def __init__(self, dim: int, *, steps: int = 3) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(GraphRound(dim) for _ in range(steps))
        self.out = nn.Linear(dim, 1)

    def forward(self, nodes: Float[Tensor, "b n k"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """Score each graph; its first node must be real."""
        for number, step in enumerate(self.rounds, start=1):
            nodes = step(nodes, mask, listeners=1 if number == len(self.rounds) else None)
        score: Tensor = self.out(nodes[:, 0])[:, 0]
        return score


class GraphRound(nn.Module):
    """One round of messages: each node takes the mean of all, weighted by a softmax of how the two relate."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def forward(
        self, nodes: Float[Tensor, "b n k"], mask: Bool[Tensor, "b n"], *, listeners: int | None = None
    ) -> Float[Tensor, "b l k"]:
        """Return the new nodes, or only the first `listeners` of them."""
        heard: Tensor = self.value(self.edges(nodes, mask, listeners=listeners) @ nodes)
        return F.relu(heard)

    def edges(
        self, nodes: Float[Tensor, "b n k"], mask: Bool[Tensor, "b n"], *, listeners: int | None = None
    ) -> Float[Tensor, "b l n"]:
        """Return how much of each node (last axis) each listener takes: rows add up to 1, padding gets 0."""
        query = self.query(nodes if listeners is None else nodes[:, :listeners])
        # The keys' map goes onto the queries: where few listen, that is far less to compute.
        products: Tensor = (query @ self.key.weight) @ nodes.transpose(1, 2) + (query @ self.key.bias).unsqueeze(-1)
        return products.masked_fill(~mask[:, None], torch.finfo(products.dtype).min).softmax(-1)


class FilterReason(nn.Module):
    """SAF: each similarity vector is let through by a gate of its own; their weighted sum, at length 1, is scored."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.out = nn.Linear(dim, 1)

    def forward(self, nodes: Float[Tensor, "b n k"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """Score each set of vectors; one of them at least must be real."""
        gates = torch.sigmoid(self.gate(nodes)[..., 0]) * mask
        gates = gates / gates.sum(1, keepdim=True).clamp(min=TINY)
        score: Tensor = self.out(F.normalize((gates[:, None] @ nodes)[:, 0], dim=-1))[:, 0]
        return score
