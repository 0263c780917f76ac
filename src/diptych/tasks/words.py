"""Words: learn a vector for each word from captions, judged by the loss on other captions and by what is imagined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from diptych.core.batch import Batch, DataSpec
from diptych.core.config import Config
from diptych.core.errors import UserError
from diptych.core.model import Imaginer, Model
from diptych.data.source import Source
from diptych.data.tokenizer import Tokenizer
from diptych.data.vocabulary import word_tokenizer
from diptych.encoders.towers import image_size_for
from diptych.models.embedding import PicturedConfig, SkipgramConfig
from diptych.tasks.data import Judge, TaskData, spec_for
from diptych.tasks.features import compute_features
from diptych.tasks.held_out import MONITOR, held_out
from diptych.tasks.sentences import Corpus, SentenceBatches, lines_of


class Settings(Config):
    """How words are read from the data."""

    batch_size: int = Field(default=512, gt=0, description="sentences in a batch, of all processes together")
    texts: str = Field(default="", description="a file of further sentences to learn from, one a line; empty: none")
    threshold: float = Field(default=1e-3, ge=0, description="words above this share are dropped at times; 0: none")
    drawn: int = Field(default=32, gt=0, description="noise words drawn for each sentence, shared by its words")
    least_pictures: int = Field(default=5, gt=0, description="pictures that a word needs to have a picture of its own")
    withheld: float = Field(
        default=0.1, ge=0, lt=1, description="share of words whose pictures are not learnt from, to judge imagining"
    )


@dataclass(frozen=True, slots=True)
class WordData(TaskData):
    """A source whose captions are sentences to learn words from.

    Args:
        source: pictures with captions.
        tokenizer: of whole words.
        spec: facts the model was built for.
        settings: batch size and the like.
        seed: of order and noise.
    """

    source: Source
    tokenizer: Tokenizer
    spec: DataSpec
    settings: Settings
    seed: int = 0

    def training(self) -> SentenceBatches:
        """Return shuffled sentences.

        Raises:
            UserError: when there are none.
        """
        texts = [*self.source.texts(self.source.rows("train")), *lines_of(self.settings.texts)]
        corpus = Corpus.read(texts, self.tokenizer)
        if len(corpus.words) == 0:
            raise UserError(f"{self.source.name} has no words to learn from in its training captions")
        return self._batches(corpus, corpus.counts(self.spec.vocabulary), training=True)

    def judged(self, split: str, model: Model) -> SentenceBatches | None:
        """Return the captions of a split once, with noise that is always the same; None when there are none."""
        corpus = self._corpus(split)
        if len(corpus.words) == 0:
            return None
        counts = self._corpus("train").counts(self.spec.vocabulary)
        return self._batches(corpus, counts if counts.any() else corpus.counts(self.spec.vocabulary), training=False)

    def judge(self, model: Model) -> Judge:
        """Judge by the loss and, where pictures of some words were withheld, by how they are imagined."""
        return Judge((held_out, imagined) if isinstance(model, Imaginer) else (held_out,), MONITOR)

    def _corpus(self, split: str) -> Corpus:
        return Corpus.read(self.source.texts(self.source.rows(split)), self.tokenizer)

    def _batches(self, corpus: Corpus, counts: Int64[np.ndarray, " v"], *, training: bool) -> SentenceBatches:
        return SentenceBatches(
            corpus,
            counts,
            batch_size=self.settings.batch_size,
            noise=self.settings.drawn,
            threshold=self.settings.threshold,
            seed=self.seed if training else 0,
            training=training,
        )


@torch.no_grad()
def imagined(model: Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Rank the pictures of all words by what each withheld word is imagined to look like.

    Returns:
        How often its own is first, and among the first ten; its median rank; and how many words are ranked. Nothing
        where no word was withheld.
    """
    if not isinstance(model, Imaginer):
        return {}
    pictures, pictured, withheld = model.shown()
    if not bool(withheld.any()):
        return {}
    words = withheld.nonzero()[:, 0]
    scores = model.imagine(words) @ pictures.T
    scores = scores.masked_fill(~(pictured | withheld), -torch.inf)
    rank = (scores > scores.gather(1, words[:, None])).sum(1) + 1
    return {
        "imagined/r@1": (rank <= 1).float().mean().item(),
        "imagined/r@10": (rank <= 10).float().mean().item(),
        "imagined/rank": float(rank.float().median().item()),
        "imagined/pictures": float((pictured | withheld).sum().item()),
    }


def facts(source: Source, config: Config, settings: Settings) -> tuple[Tokenizer, DataSpec]:
    """Return a tokenizer of the words in the training captions, and the facts for a model of words.

    Raises:
        UserError: when the system is none, or the data has no captions.
    """
    if not isinstance(config, SkipgramConfig):
        raise UserError("this system has no settings of a word model, so it does not learn words")
    source.need_captions()

    def texts() -> Iterator[str]:
        yield from source.texts(source.rows("train"))
        yield from lines_of(settings.texts)

    tokenizer = word_tokenizer(texts(), least=config.least, most=config.text_vocabulary)
    if isinstance(config, PicturedConfig):
        return tokenizer, spec_for(tokenizer, image_size=image_size_for(config))
    return tokenizer, spec_for(tokenizer)


def join(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    settings: Settings,
    *,
    split: str = "all",
    seed: int = 0,
    device: str = "auto",
) -> WordData:
    """Join a source and a model; one that looks at pictures and has seen none is shown those of the training words.

    Args:
        source: the data.
        model: built or loaded.
        tokenizer: of whole words.
        spec: it was built for.
        settings: how to read words.
        split: the rows that will be used.
        seed: of order, noise, and which words' pictures are withheld.
        device: where a frozen tower computes.
    """
    data = WordData(source, tokenizer, spec, settings, seed)
    if isinstance(model, Imaginer) and not bool(model.shown()[1].any()):
        show_words(data, model, device=device)
    return data


def show_words(data: WordData, model: Model, *, device: str) -> None:
    """Show a model the mean picture of each word of the training captions, and withhold some.

    Raises:
        UserError: when too few words have pictures.
    """
    if not isinstance(model, Imaginer):
        return
    rows = data.source.rows("train")
    features = compute_features(data.source, model, data.tokenizer, data.spec, rows, device=device)
    rows = features.readable(rows)
    summaries = []
    for part in np.array_split(rows, max(1, len(rows) // 512)):
        states = features.of_images(part)
        if states is not None:
            summaries.append(states.summary.float())
    least = data.settings.least_pictures
    if not summaries:
        raise UserError("none of the training pictures could be read, so no word has one")
    vectors, counts = mean_pictures(data, rows, torch.cat(summaries))
    has = torch.from_numpy(counts >= least)
    words = has.nonzero()[:, 0].numpy()
    drawn = np.random.default_rng((data.seed, 0)).permutation(words)[: int(len(words) * data.settings.withheld)]
    if len(words) - len(drawn) < 2:
        raise UserError(f"{len(words)} words have {least} pictures; set least_pictures lower or give more pictures")
    withheld = torch.zeros_like(has)
    withheld[torch.from_numpy(drawn)] = True
    model.show(vectors * has[:, None], has & ~withheld, withheld)


def mean_pictures(
    data: WordData, rows: Int64[np.ndarray, " n"], summaries: Float[Tensor, "n m"]
) -> tuple[Float[Tensor, "v m"], Int64[np.ndarray, " v"]]:
    """Average the pictures whose captions hold a word, each once; zero for a word of none.

    Returns:
        For each word the mean and the number of pictures.
    """
    vocabulary = data.spec.vocabulary
    texts = [" ".join(data.source.row(row).captions) for row in rows.tolist()]
    corpus = Corpus.read(texts, data.tokenizer)
    number = np.repeat(np.arange(len(rows)), np.diff(corpus.first))
    pairs = np.unique(number * vocabulary + corpus.words)
    picture, word = np.divmod(pairs, vocabulary)
    counts = np.bincount(word, minlength=vocabulary).astype(np.int64)
    sums = torch.zeros(vocabulary, summaries.shape[1])
    for part in np.array_split(np.arange(len(pairs)), max(1, len(pairs) // 8192)):
        sums.index_add_(0, torch.from_numpy(word[part]), summaries[torch.from_numpy(picture[part])])
    return sums / torch.from_numpy(np.maximum(counts, 1))[:, None], counts


@torch.no_grad()
def look_alike(
    source: Source,
    model: Model,
    tokenizer: Tokenizer,
    spec: DataSpec,
    words: Sequence[int],
    *,
    split: str = "all",
    count: int = 10,
    device: str = "auto",
) -> list[list[tuple[int, float]]]:
    """Find the pictures that look like words, whether these were ever seen in a picture or not.

    Args:
        source: pictures.
        model: it imagines words.
        tokenizer: of its words.
        spec: it was built for.
        words: their numbers.
        split: pictures to look through.
        count: to find for each word.
        device: where the image tower computes.

    Returns:
        For each word rows and cosines, the nearest first.

    Raises:
        UserError: for a model that does not imagine, or when there are no pictures.
    """
    if not isinstance(model, Imaginer):
        raise UserError(f"{type(model).__name__} does not imagine words; multimodal_skipgram does")
    rows = source.rows(split)
    features = compute_features(source, model, tokenizer, spec, rows, device=device)
    rows = features.readable(rows)
    states = features.of_images(rows)
    if states is None:
        raise UserError(f"{source.name} has no pictures that could be read in split {split!r}")
    model.to("cpu")
    cosines = model.imagine(torch.tensor(words)) @ model.see(states.summary.float()).T
    best = cosines.topk(min(count, len(rows)), dim=1)
    return [
        list(zip(rows[places.numpy()].tolist(), values.tolist(), strict=True))
        for places, values in zip(best.indices, best.values, strict=True)
    ]
