"""CoOp: the words around a class name become vectors that are learnt from the shots; nothing else moves.

Reference:
    Zhou et al. 2021, arXiv 2109.01134: [begin] [context] [name] . [end], context shared by all classes or one for
    each. They take 50 to 200 epochs of SGD in batches of 32 pictures; features are cached here, so every step sees
    all shots at once and there are far fewer of them, by Adam. They keep the last weights; here validation chooses
    the step, 0 included. The context begins as "a photo of a" or as random vectors (std 0.02).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from diptych.core.batch import Batch
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Model, PairEncoder
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.offers import Towered, WordTable
from diptych.fewshot.shots import Classifier, Shots, judge


class CoOpConfig(Config):
    """How a context is learnt."""

    init: str = Field(default="a photo of a", description="the words that the context begins as")
    context: int = Field(default=0, ge=0, description="that many random vectors instead; 0: the words")
    per_class: bool = Field(default=False, description="a context for each class rather than one for all")
    steps: int = Field(default=50, ge=0, description="optimizer steps, each over all shots")
    lr: float = Field(default=0.01, gt=0, description="learning rate of Adam, falling along a cosine")


@dataclass(frozen=True, slots=True)
class Prompts:
    """The tokens of one prompt a class; those from `first` on, `length` of them, are the context."""

    tokens: Int[Tensor, "c t"]
    mask: Bool[Tensor, "c t"]
    first: int
    length: int


def lay_out(names: Sequence[str], tokenizer: Tokenizer, config: CoOpConfig, *, longest: int) -> Prompts:
    """Write "[context] name." for each class and find where the context stands.

    Args:
        names: of the classes.
        tokenizer: of the model.
        config: the words of the context, or how many vectors there are.
        longest: tokens that the model reads.

    Raises:
        UserError: when a prompt is too long, or its context is not the same tokens before every name.
    """
    words = "a" if config.context else config.init
    start = tokenizer([""])[0][0]
    first = int(len(start) > 0 and int(start[0]) == tokenizer.bos_id)
    head = tokenizer([words])[0][0, first:]
    head = head[: len(head) - (len(start) - first)]
    tokens, mask = tokenizer([f"{words} {name}." for name in names], longest + len(head))
    if len(head) == 0 or not (tokens[:, first : first + len(head)] == head).all():
        raise UserError(
            f"the words {words!r} are not the same tokens before every class name; give another --context-init"
        )
    if config.context:
        parts = (slice(0, first), slice(first, first + 1), slice(first + len(head), None))
        tokens, mask = (
            torch.cat([x[:, parts[0]], x[:, parts[1]].expand(-1, config.context), x[:, parts[2]]], dim=1)
            for x in (tokens, mask)
        )
    if tokens.shape[1] > longest:
        raise UserError(
            f"a prompt takes {tokens.shape[1]} tokens and the model reads {longest}; learn a shorter context"
        )
    return Prompts(tokens, mask, first, config.context or len(head))


class ContextEncoder:
    """Class vectors of prompts whose context is given as vectors.

    The table of word vectors is left as it is: a hook writes the context over what it returns, so that every tower
    adds its positions and kinds in its own way.

    Args:
        model: with a text tower that has a table of word vectors; on the device where it shall run.
        prompts: as laid out.

    Raises:
        UserError: for a model whose text tower cannot be given vectors.
    """

    def __init__(self, model: Model, prompts: Prompts) -> None:
        if not isinstance(model, PairEncoder) or not isinstance(model, Towered):
            raise UserError(f"{type(model).__name__} shows no text tower that vectors could be given to")
        if not isinstance(model.text_tower, WordTable):
            raise UserError(f"the text tower {type(model.text_tower).__name__} takes words only, no vectors")
        self.encoder, self.tower, self.table = model, model.text_tower, model.text_tower.word_table()
        device = self.table.weight.device
        self.tokens, self.mask = prompts.tokens.to(device), prompts.mask.to(device)
        self.first, self.length = prompts.first, prompts.length

    def begin(self, config: CoOpConfig, *, seed: int) -> Float[Tensor, "*k m w"]:
        """Return the context to begin with: the vectors of its words, or random ones; one, or one a class."""
        width = self.table.weight.shape[1]
        if config.context:
            generator = torch.Generator().manual_seed(seed)
            context = 0.02 * torch.randn(self.length, width, generator=generator)
        else:
            words = self.tokens[0, self.first : self.first + self.length]
            context = self.table.weight.detach()[words].clone()
        context = context.to(self.table.weight)
        return context.expand(len(self.tokens), -1, -1).clone() if config.per_class else context

    def __call__(self, context: Float[Tensor, "*k m w"]) -> Float[Tensor, "c d"]:
        """Return one unit vector a class, with a gradient for the context."""
        with _written_over(self.table, self.first, context):
            states = self.tower.encode(self.tokens, self.mask)
        batch = Batch(tokens=self.tokens, token_mask=self.mask, text_states=states)
        return self.encoder.encode_text(batch)


def coop(shots: Shots, encoder: ContextEncoder, config: CoOpConfig, *, seed: int = 0) -> Classifier:
    """Learn the context by cross-entropy over the shots; validation chooses the step.

    Args:
        shots: what to learn from; `text` is not looked at.
        encoder: of the classes' prompts.
        config: how to learn.
        seed: of random vectors.
    """
    context = encoder.begin(config, seed=seed).requires_grad_()
    optimizer = torch.optim.Adam([context], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.steps))
    best, kept, kept_step = (-1.0, 0.0), torch.empty(0), 0
    for step in range(config.steps + 1):
        with torch.set_grad_enabled(step < config.steps):
            text = encoder(context)
        found = judge(shots.scale * shots.valid_image @ text.detach().T, shots.valid_label)
        if found > best or len(shots.valid_label) == 0:
            best, kept, kept_step = found, text.detach(), step
        if step < config.steps:
            loss = F.cross_entropy(shots.scale * shots.image @ text.T, shots.label)
            (context.grad,) = torch.autograd.grad(loss, [context])
            optimizer.step()
            schedule.step()
    return Classifier(lambda image: shots.scale * image @ kept.T, {"step": float(kept_step)})


@contextmanager
def _written_over(table: nn.Embedding, first: int, context: Float[Tensor, "*k m w"]) -> Iterator[None]:
    """Let a table of word vectors return the context at its places."""
    end = first + context.shape[-2]

    def write(_: nn.Module, __: tuple[Tensor, ...], words: Tensor) -> Tensor:
        own = context.expand(len(words), -1, -1).to(words.dtype)
        return torch.cat([words[:, :first], own, words[:, end:]], dim=1)

    handle = table.register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()
