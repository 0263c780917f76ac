"""Canvas and Critic: convolutions that grow a picture out of a vector, and those that judge one beside a vector.

Reference:
    Radford, Metz, Chintala 2015, arXiv 1511.06434 (DCGAN). Conditional gains and shifts: de Vries et al. 2017, arXiv
    1707.00683. Spectral normalisation: Miyato et al. 2018, arXiv 1802.05957; projection: Miyato, Koyama 2018, arXiv
    1802.05637.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from diptych.core.errors import UserError, unknown

FIRST = 4
"""Side of the grid that a picture begins as and is judged on."""
LEAK, STD = 0.2, 0.02
NORMS, MATCHES = ("batch", "spectral", "none"), ("concat", "projection")


def doublings(size: int) -> int:
    """Count how often the first grid must be doubled to have a side of `size` pixels.

    Raises:
        UserError: when no number of doublings does.
    """
    count = (size // FIRST).bit_length() - 1
    if count < 1 or FIRST * 2**count != size:
        raise UserError(f"pictures of image_size={size} cannot be drawn: give 8, 16, 32, 64 or another power of two")
    return count


class Modulation(nn.Module):
    """Batch normalisation, whose gains and shifts may come from a vector.

    Args:
        channels: of the grid.
        code: width of the vector; 0 learns gains and shifts by themselves.
    """

    def __init__(self, channels: int, code: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=code == 0)
        self.steer = nn.Linear(code, 2 * channels) if code > 0 else None
        if self.steer is not None:
            nn.init.normal_(self.steer.weight, std=STD)
            nn.init.zeros_(self.steer.bias)

    def forward(self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        """Normalise a grid."""
        normed: Tensor = self.norm(x)
        if self.steer is None:
            return normed
        gain, shift = self.steer(code)[:, :, None, None].chunk(2, dim=1)
        steered: Tensor = normed * (1 + gain) + shift
        return steered


class Canvas(nn.Module):
    """From a vector to a picture: a 4 x 4 grid that is doubled by transposed convolutions.

    Args:
        code: width of the vector.
        size: side of the picture in pixels: 4 times a power of two.
        width: channels of the last grid before the picture; each grid before it has twice as many.
        channels: of the picture.
        everywhere: let the vector give the gains and shifts of every grid, not the first grid alone.
    """

    def __init__(self, code: int, *, size: int, width: int, channels: int = 3, everywhere: bool = False) -> None:
        super().__init__()
        widths = [width * 2**power for power in reversed(range(doublings(size)))]
        self.first = nn.Linear(code, widths[0] * FIRST**2)
        steered = code if everywhere else 0
        self.norms = nn.ModuleList([Modulation(each, steered) for each in widths])
        ends = [*widths, channels]
        grow = [nn.ConvTranspose2d(inside, outside, 4, 2, 1) for inside, outside in pairwise(ends)]
        for layer in grow:
            nn.init.normal_(layer.weight, std=STD)
        self.grow = nn.ModuleList(grow)

    def forward(self, code: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        """Draw; pixels in [-1, 1]."""
        x = self.first(code).unflatten(1, (-1, FIRST, FIRST))
        x = x.contiguous(memory_format=torch.channels_last)  # convolutions are quicker on it
        for norm, grow in zip(self.norms, self.grow, strict=True):
            x = grow(F.relu(norm(x, code)))
        return torch.tanh(x)


class Critic(nn.Module):
    """From a picture and a vector to a logit; the picture is read once, whatever it is judged with.

    Args:
        code: width of the vector.
        size: side of the picture in pixels.
        width: channels of the first grid; each further grid has twice as many.
        dim: to how many numbers the vector is brought before it is laid beside the last grid.
        channels: of the picture.
        norm: "batch" normalises grids over the batch, as DCGAN does; "spectral" bounds every layer; "none".
        match: "concat" lays the vector beside every place of the last grid, as GAN-CLS does; "projection" adds its
            product with the sum of the last grid.
        beside: channels of a grid that another network sees in the picture and `also` joins to the last grid; 0: none.
    """

    def __init__(
        self,
        code: int,
        *,
        size: int,
        width: int,
        dim: int,
        channels: int = 3,
        norm: str = "batch",
        match: str = "concat",
        beside: int = 0,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise unknown("norm of the critic", norm, NORMS)
        if match not in MATCHES:
            raise unknown("match of the critic", match, MATCHES)
        self.bounded, self.match = norm == "spectral", match
        widths = [width * 2**power for power in range(doublings(size))]
        layers: list[nn.Module] = []
        for place, (inside, outside) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers.append(self._bound(nn.Conv2d(inside, outside, 4, stride=2, padding=1)))
            layers += [nn.BatchNorm2d(outside)] if norm == "batch" and place > 0 else []
            layers.append(nn.LeakyReLU(LEAK))
        self.look = nn.Sequential(*layers)
        last = widths[-1]
        self.other = self._bound(nn.Conv2d(beside, last, 3, padding=1)) if beside > 0 else None
        known = last if self.other is None else 2 * last
        said = dim if match == "concat" else 0
        self.text = self._bound(nn.Linear(code, dim if match == "concat" else last))
        self.join = self._bound(nn.Conv2d(known + said, last, 1 if said > 0 else 3, padding=0 if said > 0 else 1))
        self.tell = self._bound(nn.Conv2d(last, 1, FIRST))

    def _bound(self, layer: nn.Conv2d | nn.Linear) -> nn.Module:
        if self.bounded:
            return spectral_norm(layer)
        nn.init.normal_(layer.weight, std=STD)
        return layer

    def also(self, grid: Float[Tensor, "b d 4 4"], seen: Float[Tensor, "b f h w"]) -> Float[Tensor, "b e 4 4"]:
        """Join to what `look` makes of pictures what another network does, brought to the same places."""
        assert self.other is not None
        return torch.cat([grid, F.adaptive_avg_pool2d(F.leaky_relu(self.other(seen), LEAK), FIRST)], 1)

    def forward(self, grid: Float[Tensor, "b d 4 4"], code: Float[Tensor, "b e"]) -> Float[Tensor, " b"]:
        """Judge what `look` made of pictures, beside vectors; float32 whatever the layers compute in."""
        text = self.text(code)
        if self.match == "projection":
            grid = F.leaky_relu(self.join(grid), LEAK)
            matching = (grid.mean((2, 3)) * text).sum(1)
            taken: Tensor = self.tell(grid).flatten().float() + matching.float()
            return taken
        beside = F.leaky_relu(text, LEAK)[:, :, None, None].expand(-1, -1, FIRST, FIRST)
        logits: Tensor = self.tell(F.leaky_relu(self.join(torch.cat([grid, beside], 1)), LEAK))
        return logits.flatten().float()
