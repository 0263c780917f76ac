"""data2vec: a tower learns from pictures or texts alone: it guesses what a slow copy of it makes of what is hidden.

The teacher, a moving average of the student's blocks, reads everything; the student reads the same with patches or
words hidden, and predicts what the teacher's upper layers made of these. No pixels and no words are predicted, so the
method is one for both sides (`modality`); a tower is of one. Targets of one's own making can all become the same: how
far they differ from example to example is in the log, the scores and the report, and a warning comes in time.

Reference:
    Baevski et al. 2022, arXiv 2202.03555. As in its released code targets are the outputs of the feed-forward parts
    before they are added, embeddings are the student's, and the rate of the average changes linearly. Three things
    differ. Positions of pictures are fixed and blocks begin with a LayerNorm on both sides (the text model's end with
    it). All hidden words are one token, where a tenth stays and a tenth is another word. Blocks of patches are cut
    off to hide as much of every picture (see `nn/hiding.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Literal, Self, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import AfterStep, Loss, Model, Watchful
from diptych.encoders.masked import MaskedViT, masked_vit
from diptych.encoders.text import TextTransformer
from diptych.encoders.towers import build_text
from diptych.models.alone import AloneConfig, OneSided
from diptych.nn.head import Head
from diptych.nn.hiding import hidden_blocks, hidden_spans
from diptych.nn.transformer import Transformer
from diptych.objectives.regress import averaged_layers, regress, spread

COLLAPSED = 0.01
"""Targets that vary less than this from example to example say nothing of them."""


Placed: TypeAlias = tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"] | None]
"""Tokens that know their places, and which of them are real: None, all."""


class Config(AloneConfig):
    """What a data2vec is made of; the sizes of its tower are the inherited ones of a "vit" or a "transformer"."""

    mask: float | None = Field(default=None, gt=0, lt=1, description="share hidden; None: patches 0.6, words 0.35")
    span: int = Field(default=4, ge=1, description="text: words hidden side by side")
    top: int = Field(default=2, ge=1, description="upper layers of the teacher whose mean is the target")
    normalise: Literal["width", "tokens"] = Field(
        default="width", description="what each layer is normalised over: a token's width, or the tokens of an example"
    )
    beta: float = Field(default=2.0, gt=0, description="error from which the loss is linear, no longer quadratic")
    head: Literal["linear", "mlp"] = Field(default="linear", description="what predicts from the student's states")
    momentum: float = Field(default=0.99, ge=0, lt=1, description="of the teacher that stays at the first step")
    momentum_end: float = Field(default=0.999, ge=0, lt=1, description="the same from `momentum_steps` on")
    momentum_steps: int = Field(default=1000, ge=0, description="steps over which that rises")


class Teacher(nn.Module):
    """A slow copy of some blocks, in evaluation mode for good, without gradient.

    Args:
        blocks: what it follows.
        top: upper layers to look at.
    """

    def __init__(self, blocks: Transformer, *, top: int) -> None:
        super().__init__()
        self.blocks = deepcopy(blocks).requires_grad_(False)
        self.top = top
        self.train()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's signature)
        """Stay in evaluation mode."""
        super().train(False)
        self.training = mode
        return self

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None) -> list[Float[Tensor, "b t d"]]:
        """Return what the feed-forward parts of the upper layers make, before it is added."""
        found: list[Tensor] = []
        feed_forward = [block.get_submodule("mlp") for block in list(self.blocks.blocks)[-self.top :]]
        hooks = [part.register_forward_hook(lambda _, __, made: found.append(made)) for part in feed_forward]
        try:
            self.blocks(x, mask)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    @torch.no_grad()
    def follow(self, blocks: Transformer, *, momentum: float) -> None:
        """Move towards the blocks as they are now, by 1 - `momentum`."""
        for slow, live in zip(self.blocks.parameters(), blocks.parameters(), strict=True):
            slow.lerp_(live.detach(), 1 - momentum)


class Data2Vec(Model, OneSided, AfterStep, Watchful, ABC):
    """A tower, its teacher, the token that stands for what is hidden, and a head.

    Args:
        blocks: of the tower, which the subclass holds.
        dim: width of its tokens.
        config: of the system.

    Raises:
        UserError: when the tower has fewer layers than targets are made of.

    Attributes:
        lead: how many tokens stand before the patches or words.
    """

    watched = ("target_variance", "prediction_variance")
    lead: int = 0
    steps: Tensor

    def __init__(self, blocks: Transformer, dim: int, config: Config) -> None:
        super().__init__()
        layers = len(blocks.blocks)
        if config.top > layers:
            raise UserError(f"top={config.top} layers make the targets, but the tower has {layers}: give top={layers}")
        self.config, self.modality = config, config.modality
        self.teacher = Teacher(blocks, top=config.top)
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.head = Head(dim, dim, kind=config.head, hidden=2 * dim)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @abstractmethod
    def stack(self) -> tuple[Transformer, nn.LayerNorm]:
        """Return the tower's blocks and what comes after them."""

    @abstractmethod
    def inputs(self, batch: Batch) -> Float[Tensor, "b t d"]:
        """Return patches or words as vectors that do not know their places."""

    @abstractmethod
    def hide(self, batch: Batch) -> Bool[Tensor, "b t"]:
        """Choose what is hidden: at random in training, always the same in evaluation."""

    @abstractmethod
    def place(self, x: Float[Tensor, "b t d"], batch: Batch) -> Placed:
        """Give each vector its place, put before them what else the tower reads, and say which are real."""

    def momentum(self) -> float:
        """Return how much of the teacher stays at this step."""
        first, last, over = self.config.momentum, self.config.momentum_end, self.config.momentum_steps
        done = min(1.0, int(self.steps) / over) if over > 0 else 1.0
        return first + (last - first) * done

    def targets(self, batch: Batch) -> Float[Tensor, "b t d"]:
        """Return what the teacher makes of everything, without gradient."""
        with torch.no_grad():
            x, real = self.place(self.inputs(batch), batch)
            layers = [layer[:, self.lead :] for layer in self.teacher(x, real)]
            return averaged_layers(layers, real, over=self.config.normalise)

    def states(self, batch: Batch, hidden: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return what the student makes of each patch or word when it does not see what is hidden."""
        blocks, norm = self.stack()
        x = self.inputs(batch)
        x = torch.where(hidden.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        made: Tensor = norm(blocks(*self.place(x, batch)))[:, self.lead :]
        return made

    def predict(self, batch: Batch, hidden: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return what the student guesses of the targets when it does not see what is hidden."""
        guess: Tensor = self.head(self.states(batch, hidden))
        return guess

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the mean smooth L1 error of what is hidden, with how far targets and guesses differ."""
        if self.training and int(self.steps) == 0:  # the tower may have begun with the weights of another run
            self.teacher.follow(self.stack()[0], momentum=0.0)
        hidden = self.hide(batch)
        target, guess = self.targets(batch), self.predict(batch, hidden)
        total = regress(guess, target, hidden, beta=self.config.beta)
        parts = {"target_variance": spread(target, hidden), "prediction_variance": spread(guess.detach(), hidden)}
        return Loss(total, parts)

    def after_step(self) -> None:
        """Let the teacher follow."""
        self.teacher.follow(self.stack()[0], momentum=self.momentum())
        self.steps += 1

    def trouble(self, parts: Mapping[str, float]) -> str:
        """Tell of targets that have become the same for every example."""
        variance = parts["target_variance"]
        if variance >= COLLAPSED:
            return ""
        return (
            f"the targets have collapsed: their variance over examples is {variance:.4f}, below {COLLAPSED}, so that "
            "little is left to learn; try a smaller lr, a longer warmup, or momentum nearer to 1"
        )


class PictureData2Vec(Data2Vec):
    """Blocks of patches are hidden, which the tower reads as one token; a class token stands before the patches."""

    lead = 1

    def __init__(self, tower: MaskedViT, config: Config) -> None:
        super().__init__(tower.transformer, tower.dim, config)
        self.image_tower = tower
        self.share = 0.6 if config.mask is None else config.mask

    def stack(self) -> tuple[Transformer, nn.LayerNorm]:
        """Return the tower's blocks and what comes after them."""
        return self.image_tower.transformer, self.image_tower.norm_after

    def inputs(self, batch: Batch) -> Float[Tensor, "b t d"]:
        """Return the embedded patches."""
        tower = self.image_tower
        patches: Tensor = tower.patches(tower.normalise(batch.need("image")))
        return patches

    def hide(self, batch: Batch) -> Bool[Tensor, "b t"]:
        """Hide blocks of patches."""
        image, side = batch.need("image"), self.image_tower.side
        return hidden_blocks(len(image), side, self.share, device=image.device, still=not self.training)

    def place(self, x: Float[Tensor, "b t d"], batch: Batch) -> Placed:
        """Add positions, and put the class token first."""
        tower = self.image_tower
        first = tower.class_token.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([first, x + tower.positions], dim=1), None


class TextData2Vec(Data2Vec):
    """Spans of words are hidden; the marks of begin and end never are."""

    def __init__(self, tower: TextTransformer, config: Config, spec: DataSpec) -> None:
        super().__init__(tower.transformer, tower.dim, config)
        self.text_tower, self.marks = tower, (spec.bos_id, spec.eos_id)
        self.share = 0.35 if config.mask is None else config.mask

    def stack(self) -> tuple[Transformer, nn.LayerNorm]:
        """Return the tower's blocks and what comes after them."""
        return self.text_tower.transformer, self.text_tower.norm

    def inputs(self, batch: Batch) -> Float[Tensor, "b t d"]:
        """Return the word vectors."""
        words: Tensor = self.text_tower.embedding(batch.need("tokens"))
        return words

    def hide(self, batch: Batch) -> Bool[Tensor, "b t"]:
        """Hide spans of words."""
        tokens, words = batch.need("tokens"), batch.need("token_mask")
        for mark in self.marks:
            words = words & (tokens != mark)
        return hidden_spans(words, self.share, length=self.config.span, still=not self.training)

    def place(self, x: Float[Tensor, "b t d"], batch: Batch) -> Placed:
        """Add positions."""
        return x + self.text_tower.positions[: x.shape[1]], batch.need("token_mask")


def build(config: Config, spec: DataSpec) -> Data2Vec:
    """Build the tower of the modality, its teacher and the head.

    Raises:
        UserError: for another tower than a built-in transformer that is trained whole, one whose words look back only,
            or too few layers.
    """
    if config.modality == "image":
        return PictureData2Vec(masked_vit(config, spec), config)
    if (config.text_encoder, config.text_pool) != ("transformer", "mean") or config.text_train not in ("auto", "all"):
        raise UserError(
            "data2vec trains a text transformer of its own that looks both ways: leave out "
            f"text_encoder={config.text_encoder!r}, text_pool={config.text_pool!r}, text_train={config.text_train!r}"
        )
    tower = build_text(config, spec)
    assert isinstance(tower, TextTransformer)
    return TextData2Vec(tower, config, spec)
