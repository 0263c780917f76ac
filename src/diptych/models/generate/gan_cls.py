"""GAN-CLS: a generator draws pictures for texts, and a critic tells real from drawn and right texts from wrong ones.

The critic sees three kinds of pairs: real pictures with their texts, real ones with texts of others, and drawn ones
with the texts they were drawn for. With `interpolation` (GAN-INT-CLS) the generator also answers for texts between
two texts, which no real picture belongs to. `cls_weight=0` is the conditional GAN without wrong texts.

Reference:
    Reed et al. 2016, arXiv 1605.05396; Goodfellow et al. 2014, arXiv 1406.2661; DCGAN, arXiv 1511.06434. The text tower
    is any of diptych's, frozen once it is trained elsewhere (`init` takes that of an earlier run, `text_encoder` a
    pretrained one), rather than a char-CNN-RNN; one that is not frozen learns with the critic. The networks are DCGAN's
    at any size, without the paper's residual bottlenecks. Options that are not the paper's: `game=hinge`,
    `critic_norm=spectral` and `match=projection` (see `nn/canvas.py`), `condition=everywhere`, and `onlooker`: a critic
    that also sees what a trained tower makes of the picture (Sauer et al. 2021, Projected GANs, arXiv 2111.01007), here
    one grid of it beside the critic's own and without differentiable augmentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec, States
from diptych.core.model import Fitted, ImageGenerator, Loss, Model, Phased
from diptych.core.runtime import gather
from diptych.encoders.base import TextEncoder
from diptych.encoders.offers import Reads, Worded
from diptych.encoders.towers import Count, TowerConfig, build_text
from diptych.models.onlooker import Onlooker
from diptych.nn.canvas import LEAK, Canvas, Critic
from diptych.nn.standardise import Standardise
from diptych.objectives.gan import as_false, as_real, critic_loss, generator_loss, mixed

LOOKED_AT = 100
"""Batches from whose texts the statistics of a frozen tower are taken."""
SAME = 1e-4
"""Texts whose features differ by less say the same: such a text is not wrong."""


class Config(TowerConfig):
    """The text tower, the two networks and the game; of the image tower's settings only `image_size` is read."""

    learns: ClassVar[str] = "drawings"

    image_size: Count | None = Field(default=32, description="pixels of a drawn picture: 8, 16, 32, 64 ...")
    noise: Count = Field(default=100, description="numbers drawn for each picture")
    text_code: Count = Field(default=128, description="numbers to which either network brings a text")
    generator_width: Count = Field(default=64, description="channels of the generator's last grid")
    critic_width: Count = Field(default=64, description="channels of the critic's first grid")
    condition: Literal["input", "everywhere"] = Field(
        default="input", description="where the generator hears of text and noise: first, or at every grid"
    )
    critic_norm: Literal["batch", "spectral", "none"] = Field(default="batch", description="of the critic's layers")
    match: Literal["concat", "projection"] = Field(default="concat", description="how the critic compares a text")
    game: Literal["logistic", "hinge"] = Field(default="logistic", description="what the two play for")
    cls_weight: float = Field(default=0.5, ge=0, lt=1, description="of wrong texts among what is false; 0: none")
    interpolation: float = Field(default=1.0, ge=0, description="weight of texts between two texts; 0 is GAN-CLS")
    mix: float = Field(default=0.5, ge=0, le=1, description="share of a picture's own text in such a mixture")
    onlooker: str = Field(
        default="", description="run through whose frozen image tower the critic looks too; empty: none"
    )
    onlooker_width: Count = Field(
        default=128, description="numbers that the onlooker tells of each place; its tower says how many"
    )


class GanCls(Model, Phased, Fitted, Worded, ImageGenerator):
    """A text tower, a generator and a critic.

    Args:
        text: the text tower.
        config: of the system.
        spec: the data it is built for.
    """

    def __init__(self, text: TextEncoder, config: Config, spec: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.text_tower = text
        self.even = Standardise(text.dim) if text.frozen else None
        size, channels = spec.image_size, spec.channels
        self.onlooker = Onlooker(config.onlooker, config.onlooker_width) if config.onlooker else None
        self.describe = nn.Linear(text.dim, config.text_code)
        self.canvas = Canvas(
            config.noise + config.text_code,
            size=size,
            width=config.generator_width,
            channels=channels,
            everywhere=config.condition == "everywhere",
        )
        self.critic = Critic(
            text.dim,
            size=size,
            width=config.critic_width,
            dim=config.text_code,
            channels=channels,
            norm=config.critic_norm,
            match=config.match,
            beside=0 if self.onlooker is None else config.onlooker_width,
        )

    def phases(self) -> dict[str, list[nn.Parameter]]:
        """Return what the critic moves, then what the generator does; a text tower that learns is the critic's."""
        live = [weight for weight in self.text_tower.parameters() if weight.requires_grad]
        generator = [*self.describe.parameters(), *self.canvas.parameters()]
        return {"critic": [*self.critic.parameters(), *live], "generator": generator}

    def reads(self) -> Reads:
        """Say what is read of the text tower's outputs: the summary."""
        return Reads()

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the loss of the generator in its phase, else of the critic: in nats, or of hinges.

        In evaluation nothing is left to chance: the noise is 0, and every wrong text counts.
        """
        image, text = batch.need("image"), self.understand(batch)
        if phase == "generator":
            return self._generator(text.detach())
        return self._critic(_centred(image), text, batch)

    def draw(self, batch: Batch, random: torch.Generator) -> Float[Tensor, "b c h w"]:
        """Draw a picture for each text."""
        text = self.understand(batch)
        noise = torch.randn(len(text), self.config.noise, generator=random)
        return (self._drawn(text, noise.to(text.device)) + 1) / 2

    def understand(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return what the text tower makes of texts."""
        summary = self._states(batch).summary
        return summary.float() if self.even is None else self.even(summary.float())

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of a frozen tower's outputs."""
        if self.even is None:
            return
        device = next(self.parameters()).device
        for batch in islice(batches, LOOKED_AT):
            self.even.look(self._states(batch.to(device)).summary.float())
        self.even.settle()

    def _states(self, batch: Batch) -> States:
        states: States | None = batch.text_states
        return self.text_tower(batch.need("tokens"), batch.need("token_mask")) if states is None else states

    def _look(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e 4 4"]:
        """Read pictures in [-1, 1] as the critic does."""
        grid: Tensor = self.critic.look(pictures)
        return grid if self.onlooker is None else self.critic.also(grid, self.onlooker.see((pictures + 1) / 2))

    def _noise(self, text: Float[Tensor, "b d"]) -> Float[Tensor, "b z"]:
        noise = text.new_zeros(len(text), self.config.noise)
        return noise.normal_() if self.training else noise

    def _drawn(self, text: Float[Tensor, "b d"], noise: Float[Tensor, "b z"]) -> Float[Tensor, "b c h w"]:
        """Draw in the critic's range, [-1, 1]."""
        pictures: Tensor = self.canvas(torch.cat([noise, F.leaky_relu(self.describe(text), LEAK)], 1))
        return pictures

    def _critic(self, image: Float[Tensor, "b c h w"], text: Float[Tensor, "b d"], batch: Batch) -> Loss:
        game, config = self.config.game, self.config
        with torch.no_grad():
            drawn = self._drawn(text, self._noise(text))
        seen = self._look(image)
        real = self.critic(seen, text)
        false = self.critic(self._look(drawn), text)
        wrong = self._wrong(seen, text, batch) if config.cls_weight > 0 else real.new_zeros(())
        costs = as_real(real, game=game).mean(), wrong, as_false(false, game=game).mean()
        parts = dict(zip(("real", "wrong", "drawn"), (cost.detach() for cost in costs), strict=True))
        return Loss(critic_loss(*costs, cls_weight=config.cls_weight), parts)

    def _wrong(self, seen: Float[Tensor, "b e 4 4"], text: Float[Tensor, "b d"], batch: Batch) -> Float[Tensor, ""]:
        """Return what real pictures with wrong texts cost: one for each in training, all of every process else."""
        texts = gather(text)
        wrong = strangers(batch)
        if self.training:
            chosen = torch.multinomial(wrong.float() + 1e-9, 1)
            rows, columns = torch.arange(len(text), device=text.device), chosen[:, 0]
        else:
            rows, columns = (place.flatten() for place in torch.meshgrid(*map(_places, wrong.shape), indexing="ij"))
            rows, columns = rows.to(text.device), columns.to(text.device)
        apart = (text[rows] - texts[columns]).detach().abs().amax(1) > SAME
        counts = (wrong[rows, columns] & apart).float()
        each = as_false(self.critic(seen[rows], texts[columns]), game=self.config.game) * counts
        of_each = torch.zeros(len(text), device=text.device).index_add(0, rows, counts).clamp(min=1)
        return (each / of_each[rows]).sum() / len(text)

    def _generator(self, text: Float[Tensor, "b d"]) -> Loss:
        config = self.config
        logits = self._judged(text)
        total = plain = generator_loss(logits, game=config.game)
        parts = {"plain": plain.detach()}
        if config.interpolation > 0:
            other = text[torch.randperm(len(text), device=text.device)] if self.training else text
            between = generator_loss(self._judged(mixed(text, other, share=config.mix)), game=config.game)
            total, parts["between"] = plain + config.interpolation * between, between.detach()
        return Loss(total, parts)

    def _judged(self, text: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        logits: Tensor = self.critic(self._look(self._drawn(text, self._noise(text))), text)
        return logits


def strangers(batch: Batch) -> Bool[Tensor, "b n"]:
    """Say which texts, of every process, belong to another picture and, where classes are known, another class."""
    picture: Int[Tensor, " b"] = batch.need("pair_id")
    wrong = picture[:, None] != gather(picture)[None]
    if batch.label is not None:
        label: Int[Tensor, " b"] = batch.label
        wrong = wrong & ((label[:, None] != gather(label)[None]) | (label < 0)[:, None])
    return wrong


def _centred(image: Tensor) -> Float[Tensor, "b c h w"]:
    """Bring pixels, uint8 in [0, 255] or float in [0, 1], to [-1, 1]."""
    return image.float() / 127.5 - 1 if image.dtype == torch.uint8 else image * 2 - 1


def _places(count: int) -> Tensor:
    return torch.arange(count)


def build(config: Config, spec: DataSpec) -> GanCls:
    """Build the text tower the config names, and both networks for pictures of the spec's size."""
    return GanCls(build_text(config, spec), config, spec)
