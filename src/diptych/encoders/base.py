"""What a tower is: pixels or words in, token features and one summary out; and how little of it is trained."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from diptych.core.batch import States
from diptych.core.errors import UserError
from diptych.core.model import Pretrained
from diptych.nn.lora import LoRALinear

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_CACHED = 2**18  # numbers that stay in a processor's cache over several operations
_CPU_PIXELS = 4 * 224**2  # encoded at once on a CPU: larger pieces leave its caches, up to three times as slow


class Tower(nn.Module, Pretrained, ABC):
    """Either side. A fresh tower is trained whole; `train_only` leaves less to train, down to nothing.

    Attributes:
        dim: width of the summary.
        token_dim: width of the tokens, mostly the same.
        adopted: whether the weights came from elsewhere, and so are moved at the trainer's smaller rate.
    """

    dim: int
    token_dim: int
    adopted: bool = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = self.token_dim = dim
        self._still = False
        self._live: tuple[str, ...] = ("",)

    @property
    def frozen(self) -> bool:
        """Whether nothing of the tower is trained, so that its outputs can be kept."""
        return self._still

    def train_only(self, live: Iterable[str]) -> None:
        """Stop gradients everywhere but in the named submodules; what is stopped stays in evaluation mode for good.

        Args:
            live: names as in `named_modules`; none freezes the tower.
        """
        self._live = tuple(live)
        self._still = not self._live
        self.requires_grad_(False)
        for name in self._live:
            self.get_submodule(name).requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's signature)
        """Set training mode where the tower is trained; dropout and BatchNorm of the rest stay as in evaluation."""
        if self._live == ("",):
            return super().train(mode)
        super().train(False)
        self.training = mode and not self.frozen
        for name in self._live:
            self.get_submodule(name).train(mode)
        return self

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the weights that came from elsewhere; not those of adapters, and none of a built-in tower."""
        if not self.adopted:
            return []
        maps = [module for module in self.modules() if isinstance(module, LoRALinear)]
        added = {id(weight) for module in maps for part in (module.down, module.up) for weight in part.parameters()}
        return [weight for weight in self.parameters() if id(weight) not in added]

    def assets(self) -> dict[str, bytes]:
        """Return small files (configuration, never weights) that rebuild the architecture without its origin.

        Returns:
            File names and contents for a folder that `config:FOLDER` reads; empty for a built-in tower.
        """
        return {}

    @abstractmethod
    def recipe(self) -> str:
        """Return all that decides the output beside the weights, as text: kind, sizes, pixel statistics, pooling."""

    def identity(self) -> str:
        """Return 32 hexadecimal digits that change when the weights or the preprocessing do."""
        digest = hashlib.blake2b(f"{type(self).__name__}\n{self.recipe()}".encode(), digest_size=16)
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


class ImageEncoder(Tower):
    """Pictures to `States`: `tokens` are the places of the grid, row by row, without a class token.

    Args:
        dim: width of the tokens and of the summary.
        image_size: side of the square pictures it was made for, in pixels.
        mean: of each channel, subtracted from values in [0, 1].
        std: of each channel, by which values are divided then.
        crop: how a picture becomes square: "squash" or "center".
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        dim: int,
        *,
        image_size: int,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        crop: str = "squash",
    ) -> None:
        super().__init__(dim)
        self.image_size, self.crop = image_size, crop
        self.mean, self.std = tuple(mean), tuple(std)
        self.register_buffer("shift", torch.tensor(self.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(self.std).view(-1, 1, 1), persistent=False)

    def normalise(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Turn uint8 in [0, 255] or float in [0, 1] into what the first layer expects.

        Raises:
            UserError: when the picture's size or number of channels is not the tower's.
        """
        channels, side = len(self.mean), self.image_size
        if image.shape[1:] != (channels, side, side):
            raise UserError(
                f"this image tower takes {channels} x {side} x {side} pictures, got "
                f"{' x '.join(str(size) for size in image.shape[1:])}: decode pictures at image_size={side}"
            )
        if image.dtype == torch.uint8:  # in place: a new tensor for each operation costs several times the operation
            return self._normalise_bytes(image)
        pixels = (image - self.shift).div_(self.scale)
        return pixels.contiguous(memory_format=torch.channels_last)  # convolutions are up to 1.6 times as fast on it

    def _normalise_bytes(self, image: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        side = self.image_size
        wide = image.permute(0, 2, 3, 1).flatten(2)  # whole rows, so that a loop is longer than a pixel
        shift, scale = (values.flatten().repeat(side) for values in (self.shift, self.scale))
        pixels = torch.empty(wide.shape, dtype=scale.dtype, device=image.device)
        piece = max(1, _CACHED // wide[0].numel() if image.device.type == "cpu" and len(image) > 0 else len(image))
        for part, given in zip(torch.split(pixels, piece), torch.split(wide, piece), strict=True):
            part.copy_(given).mul_(1 / 255).sub_(shift).div_(scale)
        return pixels.view(-1, side, side, len(self.mean)).permute(0, 3, 1, 2)

    def forward(self, image: Shaped[Tensor, "b c h w"]) -> States:
        """Encode pictures, uint8 in [0, 255] or float in [0, 1]; without gradient when the tower is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if torch.is_grad_enabled() or self.training or image.device.type != "cpu":
                return self.encode(self.normalise(image))
            piece = max(1, _CPU_PIXELS // self.image_size**2)
            starts = range(0, max(1, len(image)), piece)
            return _join([self.encode(self.normalise(image[start : start + piece])) for start in starts])

    @abstractmethod
    def encode(self, pixels: Float[Tensor, "b c h w"]) -> States:
        """Encode normalised pixels."""


class TextEncoder(Tower):
    """Token ids to `States`; padding stands at the right and changes nothing.

    Args:
        dim: width of the tokens and of the summary.
        context: the most tokens it can read, first and last one included.
    """

    def __init__(self, dim: int, *, context: int) -> None:
        super().__init__(dim)
        self.context = context

    def forward(self, tokens: Int[Tensor, "b t"], token_mask: Bool[Tensor, "b t"]) -> States:
        """Encode token ids; `token_mask` says which are real. Without gradient when the tower is frozen.

        Raises:
            UserError: when there are more tokens than the tower can read.
        """
        if tokens.shape[1] > self.context:
            raise UserError(
                f"this text tower reads {self.context} tokens, got {tokens.shape[1]}: tokenize with that context"
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encode(tokens, token_mask)

    @abstractmethod
    def encode(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> States:
        """Encode token ids that are known to fit."""


def _join(parts: list[States]) -> States:
    """Put the pieces of a batch together."""
    if len(parts) == 1:
        return parts[0]
    return States(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.summary for part in parts]),
    )
