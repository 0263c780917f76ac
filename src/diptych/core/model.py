"""Model: what the trainer asks of a system, and the small interfaces for what a system may offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from diptych.core.batch import Batch, States
from diptych.core.writing import Writing, Written


@dataclass(frozen=True, slots=True)
class Loss:
    """The scalar to minimise, and its parts for the log (detached scalars by name)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


class Model(nn.Module, ABC):
    """A system: parameters and a loss. It knows nothing of the trainer, of files or of other systems."""

    @abstractmethod
    def loss(self, batch: Batch, phase: str = "main") -> Loss:
        """Return the loss of a batch, in nats or the unit of the system.

        Args:
            batch: examples on the model's device.
            phase: which of the alternating objectives; only a `Phased` model is asked for another than "main".
        """


class Phased(ABC):
    """Offers several objectives that alternate inside one step, as a GAN does."""

    @abstractmethod
    def phases(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that each phase moves, in the order of the phases."""


class Staged(ABC):
    """Offers stages that are learnt one after another, as a codebook and then the prior over its codes."""

    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages in order."""

    @abstractmethod
    def enter(self, stage: str) -> None:
        """Prepare for a stage: what it learns gets gradients, the rest does not."""


class Coupled(ABC):
    """Offers a loss that couples the examples of a batch only through embeddings, as contrastive losses do.

    The trainer can then split a batch that does not fit and still get the gradient of the whole batch, dropout
    included (Gao et al. 2021, arXiv 2101.06983). `loss` must equal `couple(embed(batch), batch)`.
    """

    @abstractmethod
    def embed(self, batch: Batch) -> tuple[Float[Tensor, "b d"], ...]:
        """Encode each example by itself."""

    @abstractmethod
    def couple(self, embeddings: tuple[Float[Tensor, "b d"], ...], batch: Batch) -> Loss:
        """Compare the embeddings of the whole batch, gathered from every process by the objective."""


class AfterStep(ABC):
    """Offers an update after each optimizer step: a clamp on a temperature, a moving average."""

    @abstractmethod
    def after_step(self) -> None:
        """Do it, without gradient."""


class Watchful(ABC):
    """Knows when its learning has gone wrong in a way that its loss does not show, as when targets have collapsed.

    Attributes:
        watched: parts of its loss that tell, so that they are scores as well.
    """

    watched: tuple[str, ...]

    @abstractmethod
    def trouble(self, parts: Mapping[str, float]) -> str:
        """Say in one line what has gone wrong and what to do; empty when nothing has.

        Args:
            parts: of the loss, averaged over processes and examples.
        """


class Pretrained(ABC):
    """A part of a model whose weights came from elsewhere; the trainer moves them at its own, smaller rate."""

    @abstractmethod
    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return those weights: not the layers that were put on top, nor adapters inside."""


class Fitted(ABC):
    """Offers numbers that are taken from one look at the training data rather than learnt, as feature statistics."""

    @abstractmethod
    def fit(self, batches: Iterable[Batch]) -> None:
        """Look at batches and take the numbers; every process gives its own share of the data."""


class PairEncoder(ABC):
    """Offers images and texts in one space."""

    @abstractmethod
    def encode_image(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for `batch.image` or `batch.image_states`."""

    @abstractmethod
    def encode_text(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return unit vectors for `batch.tokens` or `batch.text_states`."""

    @abstractmethod
    def scale(self) -> Float[Tensor, ""]:
        """Return what cosines are multiplied with to become logits, the inverse temperature; > 0."""


class PairScorer(ABC):
    """Offers a score of a picture with a text looked at together, which no two vectors can give.

    Each side is prepared once, then any picture can be scored with any text. That costs far more than a product of
    vectors: a `PairScorer` is mostly a `PairEncoder` too, whose vectors find the candidates.
    """

    @abstractmethod
    def image_parts(self, batch: Batch) -> States:
        """Return what scoring needs of `batch.image` or `batch.image_states`."""

    @abstractmethod
    def text_parts(self, batch: Batch) -> States:
        """Return what scoring needs of `batch.tokens` or `batch.text_states`."""

    @abstractmethod
    def score(self, image: States, text: States) -> Float[Tensor, "m n"]:
        """Score every picture with every text; higher is better, the unit is the system's."""


class Captioner(ABC):
    """Offers texts about pictures."""

    @abstractmethod
    def write(self, batch: Batch, writing: Writing) -> Written:
        """Write about `batch.image` or `batch.image_states`, as token ids."""


class Classifier(ABC):
    """Offers the class of a picture, among those of its data, and the features that classes are read from."""

    @abstractmethod
    def features(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return what the classes of `batch.image` or `batch.image_states` are read from."""

    @abstractmethod
    def logits(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Return the log-probability of each class, up to a number that all classes of a row share."""


class Adapting:
    """A classifier that learns from pictures of another domain too, of whose labels it is told nothing."""


Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From written token ids (n, t), end marks included, and the pictures' numbers (n) to what each text earns (n)."""


class Rewarded(ABC):
    """Learns, in a stage of its own, from what its own texts earn; the task that knows the references says how much."""

    @abstractmethod
    def reward_by(self, reward: Reward) -> None:
        """Take the reward to learn from."""


class Answerer(ABC):
    """Offers answers to questions about pictures, out of those that its data knew."""

    @abstractmethod
    def answer(self, batch: Batch) -> Float[Tensor, "b a"]:
        """Return how likely each of the spec's answers is to `batch.tokens`, in [0, 1].

        A batch without pictures is answered from the questions alone.
        """


class ImageGenerator(ABC):
    """Offers pictures for texts."""

    @abstractmethod
    def draw(self, batch: Batch, random: Generator) -> Float[Tensor, "b c h w"]:
        """Draw a picture for each of `batch.tokens` or `batch.text_states`, in [0, 1].

        Args:
            batch: on the model's device.
            random: where chance comes from, on the CPU, so that a seed gives the same picture wherever it is drawn.
        """


class WordEmbedder(ABC):
    """Offers one vector for each word, whatever stands around it."""

    @abstractmethod
    def word_vectors(self) -> Float[Tensor, "v d"]:
        """Return the vectors of the whole vocabulary, to be compared by their cosine."""


class Imaginer(ABC):
    """Offers what a word would look like, in one space with pictures; it is shown some words' pictures beforehand."""

    @abstractmethod
    def show(self, vectors: Float[Tensor, "v m"], pictured: Bool[Tensor, " v"], withheld: Bool[Tensor, " v"]) -> None:
        """Take the mean picture of each word, as the image tower saw it.

        Args:
            vectors: summaries of the image tower; zero where there is neither.
            pictured: words to learn from.
            withheld: words whose pictures are for judging only.
        """

    @abstractmethod
    def shown(self) -> tuple[Float[Tensor, "v m"], Bool[Tensor, " v"], Bool[Tensor, " v"]]:
        """Return the unit vectors of the words' pictures, as they are compared, and both masks; false: none was."""

    @abstractmethod
    def imagine(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n m"]:
        """Return unit vectors of what words would look like, seen or not."""

    @abstractmethod
    def see(self, summary: Float[Tensor, "b w"]) -> Float[Tensor, "b m"]:
        """Return unit vectors of pictures, from the summaries of the image tower."""
