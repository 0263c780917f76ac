"""A linear map whose float32 products run at full speed on AMD's processors too; elsewhere it is torch's own.

torch multiplies float32 matrices with MKL, which takes its AVX2 path on processors that are not Intel's: 110 GFLOP/s a
core where oneDNN, which torch carries as well, reaches 250 (Zen 5). There the product is given to oneDNN, forward and
backward, in strict float32. The choice is by vendor, never by a measurement, so that a run repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_FEW = 16  # rows below which reading the weights is what costs


class Linear(nn.Linear):
    """As `torch.nn.Linear` in everything but the speed."""

    def forward(self, input: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:  # noqa: A002 (torch's name)
        """Map each row."""
        return linear(input, self.weight, self.bias)


def linear(
    x: Float[Tensor, "... d"], weight: Float[Tensor, "e d"], bias: Float[Tensor, " e"] | None = None
) -> Float[Tensor, "... e"]:
    """Return x @ weight.T + bias, by whichever of torch's libraries is the faster here."""
    if slow_products() and _plain(x, weight):
        y: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y
    return F.linear(x, weight, bias)


@cache
def slow_products() -> bool:
    """Tell whether torch's own float32 products waste half of this processor while oneDNN would not."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return False
    text = facts.read_text(encoding="utf-8", errors="replace")
    return "AuthenticAMD" in text and "avx512f" in text and _offered()


def _offered() -> bool:
    """Tell whether this torch has the operator, which is not documented, and it does what it did."""
    x, weight = torch.eye(3), torch.arange(6.0).view(2, 3)
    try:
        return torch.equal(_onednn(x, weight, None), weight.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


@contextmanager
def quick_products() -> Iterator[None]:
    """Let plain products inside (`torch.mm`, also into a buffer) run at full speed where torch's own are slow.

    torch gives them to oneDNN when it may round them to bfloat16, which without matrix units (AMX) oneDNN does not do;
    that it does not is checked once, and nothing is changed where it does.
    """
    if not (slow_products() and _rounds_nothing()):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _rounds_nothing() -> bool:
    """Tell whether products that may be rounded are as exact as others."""
    values = torch.linspace(-1, 1, 256 * 256).view(256, 256)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = torch.mm(values, values.T).double()
    finally:
        torch.set_float32_matmul_precision(before)
    exact = values.double() @ values.double().T
    return bool((found - exact).norm() <= 1e-5 * exact.norm())


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Leave to torch what is not an ordinary float32 product on a processor, or not worth the detour."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and type(x) in (Tensor, nn.Parameter)  # sharded and traced tensors have classes of their own
        and type(weight) in (Tensor, nn.Parameter)
        and x.numel() >= _FEW * weight.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _Product(torch.autograd.Function):
    """x @ weight.T + bias by oneDNN; the backward pass is made of the same, so that it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        rows = grad.reshape(-1, grad.shape[-1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = linear(grad, weight.T)
        if ctx.needs_input_grad[1]:
            of_weight = linear(rows.T, x.reshape(-1, x.shape[-1]).T)
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias
