"""Fusion: ways to make one vector of several, one a modality; every factor is a registered parameter."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.core.errors import UserError, unknown
from diptych.nn.linear import Linear


class Fusion(nn.Module, ABC):
    """What makes one vector of a vector of each modality.

    Args:
        dims: width of each modality.
        out: width of the result.
    """

    def __init__(self, dims: Sequence[int], out: int) -> None:
        super().__init__()
        self.dims, self.out = tuple(dims), out

    @abstractmethod
    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse the vectors, given in the order of `dims`."""


class Concat(Fusion):
    """The vectors side by side, then an MLP; with `hidden=0` one linear map, which is the same as `Sum`."""

    def __init__(self, dims: Sequence[int], out: int, *, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__(dims, out)
        whole = sum(dims)
        self.up = Linear(whole, hidden) if hidden > 0 else None
        self.dropout = nn.Dropout(dropout)
        self.down = Linear(hidden if hidden > 0 else whole, out)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        whole = torch.cat(list(parts), dim=1)
        if self.up is not None:
            whole = self.dropout(self.up(whole).relu())
        fused: Tensor = self.down(whole)
        return fused


class Sum(Fusion):
    """A linear map of each vector, added up."""

    def __init__(self, dims: Sequence[int], out: int) -> None:
        super().__init__(dims, out)
        self.maps = nn.ModuleList(Linear(dim, out, bias=place == 0) for place, dim in enumerate(dims))

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        return torch.stack(_mapped(self.maps, parts)).sum(0)


class Gated(Fusion):
    """A gate for each feature of each modality, read off all of them: h = sum_m z_m * tanh(W_m x_m).

    Args:
        dims: width of each modality.
        out: width of the result.
        gates: "softmax" (they add up to one; of two modalities z and 1 - z, as in the paper) or "sigmoid" (each by
            itself, as in the paper for more than two).

    Reference:
        Arevalo et al. 2017, Gated Multimodal Units, arXiv 1702.01992. Their released code normalises each projection
        by its batch first; here an example does not depend on the others.
    """

    def __init__(self, dims: Sequence[int], out: int, *, gates: str = "softmax") -> None:
        super().__init__(dims, out)
        if gates not in ("softmax", "sigmoid"):
            raise unknown("gates", gates, ("softmax", "sigmoid"))
        self.gates = gates
        self.maps = nn.ModuleList(Linear(dim, out) for dim in dims)
        self.gate = Linear(sum(dims), len(dims) * out)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        values = torch.stack(_mapped(self.maps, parts), dim=1).tanh()
        logits = self.gate(torch.cat(list(parts), dim=1)).unflatten(1, (len(self.dims), self.out))
        gates = logits.softmax(1) if self.gates == "softmax" else logits.sigmoid()
        fused: Tensor = (gates * values).sum(1)
        return fused


def outer(parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b k"]:
    """Return all products of one feature, or a one, of each vector: the outer product of the vectors [1; x_m].

    Returns:
        Flat, the last vector's features running fastest; k is the product of all widths, each one more.
    """
    whole = parts[0].new_ones(len(parts[0]), 1)
    for part in parts:
        longer = torch.cat([part.new_ones(len(part), 1), part], dim=1)
        whole = (whole.unsqueeze(2) * longer.unsqueeze(1)).flatten(1)
    return whole


class TensorFusion(Fusion):
    """All products of features up to one of each modality, then two layers.

    Args:
        dims: width of each modality.
        out: width of the result.
        width: features to which each modality is brought first, since their number is multiplied.
        dropout: chance in [0, 1), of the products.

    Reference:
        Zadeh et al. 2017, Tensor Fusion Network, arXiv 1707.07250.
    """

    def __init__(self, dims: Sequence[int], out: int, *, width: int = 24, dropout: float = 0.0) -> None:
        super().__init__(dims, out)
        self.maps = nn.ModuleList(Linear(dim, width) for dim in dims)
        self.dropout = nn.Dropout(dropout)
        self.up = Linear((width + 1) ** len(dims), out)
        self.down = Linear(out, out)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        products = self.dropout(outer([part.tanh() for part in _mapped(self.maps, parts)]))
        fused: Tensor = self.down(self.up(products).relu())
        return fused


class LowRank(Fusion):
    """A linear map of all those products whose weights are a sum of few outer products, so that none is ever made.

    h = sum_r w_r * prod_m [1; x_m] W_m^(r) + b.

    Args:
        dims: width of each modality.
        out: width of the result.
        rank: terms of the sum, r.

    Reference:
        Liu et al. 2018, Low-rank Multimodal Fusion, arXiv 1806.00064; the weights w of the terms are their code's.
    """

    def __init__(self, dims: Sequence[int], out: int, *, rank: int = 8) -> None:
        super().__init__(dims, out)
        self.factors = nn.ParameterList(
            nn.Parameter(torch.randn(rank, dim + 1, out) / math.sqrt(dim + 1)) for dim in dims
        )
        self.weights = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        product: Tensor | None = None
        for part, factor in zip(parts, self.factors, strict=True):
            term = part @ factor[:, 1:] + factor[:, :1]  # (r, b, e): the one of [1; x] times its row
            product = term if product is None else product * term
        assert product is not None
        return torch.einsum("r,rbe->be", self.weights.to(product.dtype), product) + self.bias


class MLB(Fusion):
    """The product of squashed linear maps: h = prod_m tanh(U_m x_m).

    Reference:
        Kim et al. 2016, Hadamard Product for Low-rank Bilinear Pooling, arXiv 1610.04325.
    """

    def __init__(self, dims: Sequence[int], out: int) -> None:
        super().__init__(dims, out)
        self.maps = nn.ModuleList(Linear(dim, out) for dim in dims)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        return torch.stack([part.tanh() for part in _mapped(self.maps, parts)]).prod(0)


class Mutan(Fusion):
    """Tucker's decomposition with a core of low rank: h = sum_r prod_m M_m^(r) tanh(W_m x_m).

    Args:
        dims: width of each modality.
        out: width of the result.
        width: of each modality after W.
        rank: terms of the sum, r.
        squash: tanh after each M too, as the paper allows.

    Reference:
        Ben-younes et al. 2017, MUTAN, arXiv 1705.06676.
    """

    def __init__(self, dims: Sequence[int], out: int, *, width: int, rank: int = 5, squash: bool = False) -> None:
        super().__init__(dims, out)
        self.rank, self.squash = rank, squash
        self.maps = nn.ModuleList(Linear(dim, width) for dim in dims)
        self.cores = nn.ModuleList(Linear(width, rank * out) for _ in dims)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        terms = _mapped(self.cores, [part.tanh() for part in _mapped(self.maps, parts)])
        if self.squash:
            terms = [term.tanh() for term in terms]
        return torch.stack(terms).prod(0).view(-1, self.rank, self.out).sum(1)


class Weighted(Fusion):
    """Attention over the modalities: h = sum_m a_m h_m with h_m = V_m x_m and a = softmax_m(w . tanh(W h_m)).

    Reference:
        The additive attention of Bahdanau et al. 2014, arXiv 1409.0473, with modalities in the place of words.
    """

    def __init__(self, dims: Sequence[int], out: int) -> None:
        super().__init__(dims, out)
        self.maps = nn.ModuleList(Linear(dim, out) for dim in dims)
        self.hidden = Linear(out, out)
        self.score = Linear(out, 1, bias=False)

    def forward(self, parts: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b e"]:
        """Fuse."""
        values = torch.stack(_mapped(self.maps, parts), dim=1)
        return (self.weights(values) * values).sum(1)

    def weights(self, values: Float[Tensor, "b m e"]) -> Float[Tensor, "b m 1"]:
        """Return how much each modality counts; they add up to one."""
        weights: Tensor = self.score(self.hidden(values).tanh()).softmax(1)
        return weights


FUSIONS = ("concat", "sum", "gated", "tensor", "low_rank", "mlb", "mutan", "weighted")


def build_fusion(kind: str, dims: Sequence[int], out: int, *, width: int, rank: int, dropout: float = 0.0) -> Fusion:
    """Build a fusion by its name.

    Args:
        kind: one of `FUSIONS`.
        dims: width of each modality.
        out: width of the result.
        width: tensor, mutan: features to which each modality is brought first.
        rank: low_rank, mutan: terms of the sum.
        dropout: chance in [0, 1), concat and tensor: of what is inside.

    Raises:
        UserError: for another name, or fewer than two modalities.
    """
    if len(dims) < 2:
        raise UserError(f"fusion needs at least two modalities, got {len(dims)}")
    if kind == "sum":
        return Sum(dims, out)
    if kind == "mlb":
        return MLB(dims, out)
    if kind == "weighted":
        return Weighted(dims, out)
    if kind == "concat":
        return Concat(dims, out, hidden=out, dropout=dropout)
    if kind == "gated":
        return Gated(dims, out)
    if kind == "tensor":
        return TensorFusion(dims, out, width=width, dropout=dropout)
    if kind == "low_rank":
        return LowRank(dims, out, rank=rank)
    if kind == "mutan":
        return Mutan(dims, out, width=width, rank=rank)
    raise unknown("fusion", kind, FUSIONS)


def _mapped(maps: nn.ModuleList, parts: Sequence[Tensor]) -> list[Tensor]:
    return [part_map(part) for part_map, part in zip(maps, parts, strict=True)]
