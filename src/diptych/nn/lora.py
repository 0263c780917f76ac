"""LoRA: a linear map that stays as it is, and a learnt map of low rank beside it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LoRALinear(nn.Module):
    """W x + b + (alpha / rank) B A x with W and b fixed; B is zero at first, so that nothing changes at the start.

    Args:
        base: the linear map, whose parameters stop learning.
        rank: of the map beside it.
        alpha: size of what is learnt; twice the rank when None.

    Reference:
        Hu et al. 2021, arXiv 2106.09685.
    """

    def __init__(self, base: nn.Linear, rank: int, *, alpha: float | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = 2.0 if alpha is None else alpha / rank
        place = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Linear(base.in_features, rank, bias=False, **place)
        self.up = nn.Linear(rank, base.out_features, bias=False, **place)
        nn.init.zeros_(self.up.weight)

    @property
    def weight(self) -> Float[Tensor, "e d"]:
        """The weight of the one linear map that this amounts to; some towers read it."""
        return self.base.weight + self.scale * self.up.weight @ self.down.weight

    @property
    def bias(self) -> Float[Tensor, " e"] | None:
        """The bias of the fixed map."""
        return self.base.bias

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        """Map each row."""
        y: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return one plain linear map that does the same."""
        whole = nn.Linear(self.base.in_features, self.base.out_features, bias=self.base.bias is not None)
        whole = whole.to(self.base.weight)
        whole.weight.copy_(self.weight)
        if self.base.bias is not None:
            whole.bias.copy_(self.base.bias)
        return whole


def add_lora(module: nn.Module, names: Iterable[str], rank: int, *, alpha: float | None = None) -> None:
    """Put a `LoRALinear` in the place of each named linear layer of a module."""
    for name in names:
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear), name
        module.set_submodule(name, LoRALinear(linear, rank, alpha=alpha))


def merge_lora(module: nn.Module) -> None:
    """Put one plain linear layer in the place of each `LoRALinear`; the outputs stay the same."""
    for name, part in list(module.named_modules()):
        if isinstance(part, LoRALinear):
            module.set_submodule(name, part.merged())
