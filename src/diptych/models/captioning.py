"""What all captioners share: a tower sees, an encoder makes levels of its cells, a decoder writes and is trained.

Training has one stage, or two: `words` learns the next word of people's captions; `reward` goes on from there to learn
from what the model's own captions earn (CIDEr-D against the references), which the task brings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec, States
from diptych.core.errors import UserError, unknown
from diptych.core.model import Captioner, Fitted, Loss, Model, Reward, Rewarded, Staged
from diptych.core.writing import Writing, Written
from diptych.data.tokenizer import Tokenizer
from diptych.encoders.base import ImageEncoder
from diptych.encoders.offers import Reads, Sighted
from diptych.encoders.towers import Count, ImageTowerConfig
from diptych.nn.cells import Cells
from diptych.nn.decode import Marks, write
from diptych.nn.decoder import WordDecoder
from diptych.objectives.next_word import next_word
from diptych.objectives.self_critical import self_critical

STAGES = ("words", "reward")


class CaptionConfig(ImageTowerConfig):
    """What a captioner is made of; the image tower's fields are inherited."""

    learns: ClassVar[str] = "captions"

    image_encoder: str = "resnet"
    text_vocabulary: Count = Field(default=8192, description="tokens learnt from the captions, at most")
    text_context: int = Field(default=32, ge=3, description="tokens of a caption at most, begin and end included")
    dim: Count = Field(default=256, description="width of encoder and decoder")
    heads: Count = Field(default=8, description="attention heads")
    hidden: Count = Field(default=1024, description="width inside the layers")
    encoder_layers: Count = Field(default=2, description="layers over the cells of a picture")
    decoder_layers: Count = Field(default=2, description="layers over the words")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="in encoder and decoder")
    positions: bool = Field(default=True, description="tell each cell its place in the grid")
    places: Literal["learned", "fixed"] = Field(
        default="learned", description="how it is told: by a learned map of waves, or by a fixed table of sines"
    )
    tied: bool = Field(default=True, description="words go out by the matrix by which they come in")
    standardise: bool = Field(default=True, description="bring features of a frozen tower to one scale first")
    mirror: bool = Field(default=False, description="learn from mirrored pictures too; not where left and right matter")
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of each word spread over all words")
    self_critical: bool = Field(default=False, description="go on to learn from what its own captions earn")
    samples: int = Field(default=5, ge=1, description="self-critical: captions written for each picture")
    explore: Literal["draw", "beams"] = Field(default="draw", description="self-critical: how they are written")
    baseline: Literal["mean", "greedy"] = Field(
        default="mean",
        description="self-critical: mean reward of the picture's captions, or the greedy one's",
    )


class CaptionModel(Model, Captioner, Staged, Fitted, Rewarded, Sighted, ABC):
    """A tower, its cells and a decoder; a system adds the encoder between.

    Args:
        image: the image tower.
        decoder: writes.
        config: of the system.
        spec: the data it is built for.
    """

    def __init__(self, image: ImageEncoder, decoder: WordDecoder, config: CaptionConfig, spec: DataSpec) -> None:
        super().__init__()
        self.image_tower, self.decoder, self.config = image, decoder, config
        even = config.standardise and image.frozen
        where, dim = config.positions, config.dim
        self.cells = Cells(image.token_dim, image.dim, dim, positions=where, places=config.places, standardise=even)
        never = {spec.pad_id, spec.bos_id, spec.unk_id} - {spec.eos_id, -1}
        self.marks = Marks(spec.bos_id, spec.eos_id, spec.pad_id, tuple(sorted(never)))
        self.stage = STAGES[0]
        self.reward: Reward | None = None

    @abstractmethod
    def encode(
        self, cells: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b n d"], ...]:
        """Return the levels that the decoder looks at; this and the decoder's layers make the system."""

    def look(self, batch: Batch) -> tuple[tuple[Float[Tensor, "b n d"], ...], Bool[Tensor, "b n"] | None]:
        """Encode pictures, or what a frozen tower made of them; the mask is None where every cell is real."""
        cells, mask = self.cells(self._states(batch))
        seen = None if bool(mask.all()) else mask
        return self.encode(cells, seen), seen

    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the loss of the stage: nats a caption, or what earning less than the baseline costs."""
        return self._words(batch) if self.stage == "words" else self._rewarded(batch)

    def write(self, batch: Batch, writing: Writing) -> Written:
        """Write about each picture; no text is longer than the captions that were learnt."""
        longest = min(writing.longest, self.config.text_context - 1)
        with torch.no_grad():
            levels, mask = self.look(batch)
            told = self.decoder.begin(levels, mask)
            writing = writing.model_copy(update={"longest": longest})
            return write(told, len(levels[0]), self.marks, writing, device=levels[0].device)

    def log_probs(
        self,
        tokens: Int[Tensor, "b t"],
        real: Bool[Tensor, "b t"],
        levels: tuple[Float[Tensor, "i n d"], ...],
        mask: Bool[Tensor, "i n"] | None,
    ) -> Float[Tensor, "b s"]:
        """Return the log-probability of every token but the first, given those before it, in nats; 0 for padding.

        Args:
            tokens: from the begin mark on.
            real: which of them are no padding.
            levels: what `look` gave for each text, or for as many texts in a row.
            mask: which cells are real.
        """
        kept = real[:, 1:]
        hidden = self.decoder.packed(tokens[:, :-1], kept, levels, mask)
        logs = self.decoder.logits(hidden).float().log_softmax(-1)
        chosen = logs.gather(1, tokens[:, 1:][kept].unsqueeze(1)).squeeze(1)
        return chosen.new_zeros(kept.shape).masked_scatter(kept, chosen)

    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages."""
        return STAGES if self.config.self_critical else STAGES[:1]

    def enter(self, stage: str) -> None:
        """Go over to a stage."""
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
        self.stage = stage

    def reward_by(self, reward: Reward) -> None:
        """Take the reward to learn from."""
        self.reward = reward

    def reads(self) -> Reads:
        """Say what is read of the tower's outputs."""
        return Reads(grid=True, mirrored=self.config.mirror)

    def fit(self, batches: Iterable[Batch]) -> None:
        """Take the statistics of frozen features; nothing is looked at when they are not standardised."""
        for batch in batches if self.cells.standardised else ():
            if batch.image_states is not None:
                self.cells.look(batch.image_states)
        self.cells.settle()

    def _look_once(self, batch: Batch) -> tuple[tuple[Float[Tensor, "i n d"], ...], Bool[Tensor, "i n"] | None]:
        """Encode each picture once, also where several captions in a row are of it."""
        if batch.pair_id is None:
            return self.look(batch)
        first, counts = _once(batch.pair_id)
        levels, seen = self.look(batch.part(first))
        if bool((counts == counts[0]).all()):
            return levels, seen
        wide = tuple(level.repeat_interleave(counts, 0) for level in levels)
        return wide, None if seen is None else seen.repeat_interleave(counts, 0)

    def _states(self, batch: Batch) -> States:
        if batch.image_states is not None:
            return batch.image_states
        image = batch.need("image")
        if self.config.mirror and self.training:
            turned = torch.rand(len(image), device=image.device) < 0.5
            image = torch.where(turned[:, None, None, None], image.flip(-1), image)
        states: States = self.image_tower(image)
        return states

    def _words(self, batch: Batch) -> Loss:
        tokens, mask = batch.need("tokens"), batch.need("token_mask")
        levels, seen = self._look_once(batch)
        real = mask[:, 1:]
        hidden = self.decoder.packed(tokens[:, :-1], real, levels, seen)
        logits, target = self.decoder.logits(hidden), tokens[:, 1:][real]
        total, word = next_word(logits, target, texts=len(tokens), smoothing=self.config.smoothing)
        return Loss(total, {"word": word})

    def _rewarded(self, batch: Batch) -> Loss:
        reward, pictures = self.reward, batch.need("pair_id")
        if reward is None:
            raise UserError("the self-critical stage needs a reward: model.reward_by(...), as the task `captions` does")
        batch = batch.part(_once(pictures)[0])
        pictures = batch.need("pair_id")
        texts, earned, baseline = self._explore(batch, reward)
        levels, seen = self.look(batch)
        tokens = F.pad(texts.tokens.flatten(0, 1), (1, 0), value=self.marks.bos)
        real = F.pad(texts.mask.flatten(0, 1), (1, 0), value=True)
        log_prob = self.log_probs(tokens, real, levels, seen)
        total = self_critical(log_prob, real[:, 1:], earned.flatten(), baseline.flatten())
        return Loss(total, {"reward": earned.mean(), "words": texts.mask.sum(2).float().mean() - 1})

    @torch.no_grad()
    def _explore(self, batch: Batch, reward: Reward) -> tuple[Written, Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Write captions without dropout; return them with what they and their baselines earn."""
        training, pictures, config = self.training, batch.need("pair_id"), self.config
        self.eval()
        longest = config.text_context - 1
        plan = Writing(beams=config.samples, count=config.samples, longest=longest)
        if config.explore == "draw":
            plan = Writing(nucleus=1.0, count=config.samples, longest=longest)
        texts = self.write(batch, plan)
        earned = _earned(reward, texts, pictures)
        if config.baseline == "greedy":
            plain = _earned(reward, self.write(batch, Writing(beams=1, longest=longest)), pictures)
            baseline = plain.expand_as(earned)
        else:
            baseline = earned.mean(1, keepdim=True).expand_as(earned)
        self.train(training)
        return texts, earned, baseline


def _once(pictures: Int[Tensor, " b"]) -> tuple[Int[Tensor, " i"], Int[Tensor, " i"]]:
    """Return the first row of each run of rows that show the same picture, and how long the run is."""
    counts = torch.unique_consecutive(pictures, return_counts=True)[1]
    return counts.cumsum(0) - counts, counts


def _earned(reward: Reward, texts: Written, pictures: Int[Tensor, " b"]) -> Float[Tensor, "b k"]:
    """Ask what every text earns."""
    count = texts.tokens.shape[1]
    earned = reward(texts.tokens.flatten(0, 1), pictures.repeat_interleave(count))
    return earned.view(-1, count).to(texts.score.device)


def tell(
    model: Model, tokenizer: Tokenizer, image: Shaped[Tensor, "b c h w"], writing: Writing | None = None
) -> list[list[tuple[str, float]]]:
    """Write about pictures, as words.

    Args:
        model: one that writes.
        tokenizer: of its words.
        image: pixels of the model's size, on its device.
        writing: how; by default the likeliest text among five beams.

    Returns:
        For each picture its texts with their log-probabilities in nats, the best first.

    Raises:
        UserError: for a model that does not write.
    """
    if not isinstance(model, Captioner):
        raise cannot(model, Captioner)
    found = model.write(Batch(image=image), Writing() if writing is None else writing)
    return [
        [(tokenizer.decode(text), log) for text, log in zip(texts, sure, strict=True)]
        for texts, sure in zip(found.tokens.tolist(), found.log_prob.tolist(), strict=True)
    ]
