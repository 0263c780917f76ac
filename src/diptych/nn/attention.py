"""Multi-head attention on torch's fused kernels; True in a mask means real, and a query that sees no key gives zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diptych.core.errors import UserError
from diptych.nn.linear import Linear

Watch: TypeAlias = Callable[[Tensor], Tensor]
"""Gets the weights of an attention, (..., h, q, k), and gives them back, or what is to stand in for them."""


def visible(mask: Bool[Tensor, "b k"] | None, *, causal: bool, queries: int) -> Bool[Tensor, "_ 1 _ _"] | None:
    """Say which keys each query may see.

    Args:
        mask: which keys are real; None when all are.
        causal: whether query i sees only keys 0 to i.
        queries: how many queries there are.

    Returns:
        A mask that broadcasts to (b, heads, queries, k), or None when the kernel needs none (`causal` alone included).
    """
    if mask is None:
        return None
    seen = mask[:, None, None, :]
    if causal:
        seen = seen & torch.ones(queries, mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    return seen


def attend(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    *,
    seen: Bool[Tensor, "_ 1 _ k"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "b h q e"]:
    """Mix the values by the softmax of the scaled products of queries and keys.

    Args:
        query: what each position asks.
        key: what each position answers to.
        value: what is mixed.
        seen: the keys each query may see (see `visible`); with it, `causal` is not read.
        causal: whether query i sees only keys 0 to i.
        dropout: chance in [0, 1) that a weight is dropped.

    Returns:
        The mixtures; exactly zero for a query that sees no key.
    """
    if _slow_backward(query):
        with torch.autocast("cpu", enabled=False):
            mixed = attend(query.float(), key.float(), value.float(), seen=seen, causal=causal, dropout=dropout)
        return mixed.to(query.dtype)
    if seen is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, dropout_p=dropout)
    blind = ~seen.any(-1, keepdim=True)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen | blind, dropout_p=dropout)
    return mixed.masked_fill(blind, 0.0)


def weigh(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    *,
    seen: Bool[Tensor, "_ 1 _ k"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h q k"]:
    """Return the weights with which `attend` mixes the values, which its fused kernels never write down.

    Returns:
        Rows that add up to one; zeros for a query that sees no key.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if seen is None and causal:
        seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()[None, None]
    if seen is None:
        plain: Tensor = logits.softmax(-1)
        return plain
    weights: Tensor = logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(~seen, 0.0)


def _slow_backward(query: Tensor) -> bool:
    """Tell bf16 training on a CPU, where the fused kernel's backward is four times slower than in float32."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad


class Attention(nn.Module):
    """Attention of some tokens over others, with a projection in and out.

    Args:
        dim: width of the tokens that ask.
        heads: parts that the width is split into.
        context: width of the tokens looked at, where it is another.
        causal: whether token i sees only tokens 0 to i (self-attention only).
        dropout: chance in [0, 1) that an attention weight is dropped in training.

    Attributes:
        watch: who gets to see the weights, without dropout; None, and the fused kernel, but for an explanation.

    Raises:
        UserError: when the heads do not divide the width.
    """

    watch: Watch | None = None

    def __init__(
        self, dim: int, heads: int, *, context: int | None = None, causal: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if dim % heads != 0:
            raise UserError(f"the width must be a multiple of the heads, got dim={dim} and heads={heads}")
        self.heads, self.causal, self.dropout = heads, causal, dropout
        width = dim if context is None else context
        self.query = Linear(dim, dim)
        self.key = Linear(width, dim)
        self.value = Linear(width, dim)
        self.out = Linear(dim, dim)
        self.reset(out_scale=1.0)

    def reset(self, *, out_scale: float) -> None:
        """Draw the weights as CLIP does: std d^-1/2, that of the way out times `out_scale`; biases are zero."""
        for linear, scale in ((self.query, 1.0), (self.key, 1.0), (self.value, 1.0), (self.out, out_scale)):
            nn.init.normal_(linear.weight, std=scale * self.out.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "i k c"] | None = None,
        mask: Bool[Tensor, "b k"] | None = None,
        owner: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Let each token of `x` look at the context, or at `x` itself.

        Args:
            x: the tokens that ask.
            context: the tokens looked at; `x` when None.
            mask: which of the tokens looked at are real, for each row of `x`.
            owner: whose context each row of `x` looks at, where rows share them; keys and values are made once for all.

        Returns:
            The answers; exactly zero for a token that sees nothing.
        """
        source = x if context is None else context
        keys, values = self.key(source), self.value(source)
        if owner is not None:
            keys, values = keys.index_select(0, owner), values.index_select(0, owner)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), keys, values)
        )
        seen = visible(mask, causal=self.causal, queries=x.shape[1])
        dropout = self.dropout if self.training else 0.0
        if self.watch is None:
            mixed = attend(query, key, value, seen=seen, causal=self.causal, dropout=dropout)
        else:
            mixed = self.watch(weigh(query, key, seen=seen, causal=self.causal)) @ value
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        if seen is not None:  # the bias of the way out must not fill rows that saw nothing
            out = out.masked_fill(~seen.any(-1)[:, 0, :, None], 0.0)
        return out
