"""Dropout whose mask is made of random bytes, eight of each draw: on a CPU drawing is most of what dropout costs."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`, which it is on a GPU; on a CPU the chance is rounded to whole 256ths."""

    def forward(self, input: Float[Tensor, "..."]) -> Float[Tensor, "..."]:  # noqa: A002 (torch's name)
        """Set numbers to zero at random in training, and make up for it."""
        dropped = round(256 * self.p)
        if not self.training or not 0 < dropped < 256 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        lost = random_bytes(input) < dropped
        return input.masked_fill(lost, 0.0) * (256 / (256 - dropped))


def random_bytes(like: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Draw a byte for each number, from torch's own generator."""
    count = like.numel()
    drawn = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    return drawn.view(torch.uint8)[:count].view(like.shape)
