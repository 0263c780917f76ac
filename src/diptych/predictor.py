"""Predictor: a trained run in the hand; it takes paths, pictures, arrays and strings, and batches inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from diptych.core.abilities import cannot
from diptych.core.batch import Batch, DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Classifier, Model, PairEncoder, PairScorer
from diptych.core.pieces import pieces
from diptych.core.runtime import pick_device
from diptych.core.writing import Writing
from diptych.data.images import decode, stack
from diptych.data.loader import Loader
from diptych.data.prompts import PROMPTS as PROMPTS
from diptych.data.source import Problem, Source
from diptych.data.tokenizer import Tokenizer
from diptych.explain.explanation import Explanation, explain
from diptych.metrics.zero_shot import zero_shot_weights
from diptych.models.adapting import name, ranked
from diptych.models.answering import answers_to
from diptych.models.captioning import tell
from diptych.models.generating import pictures_for
from diptych.search.find import find_hybrid, reorder
from diptych.search.index import Hit, Index
from diptych.search.opening import open_index
from diptych.tasks.pictures import collate
from diptych.train.experiment import load_run

if TYPE_CHECKING:
    from PIL import Image

Picture: TypeAlias = "str | Path | bytes | Image.Image | UInt8[np.ndarray, 'h w 3']"


class Predictor:
    """A model with all it needs to be used on raw pictures and texts.

    Args:
        model: in evaluation mode from here on.
        tokenizer: of its text side.
        spec: facts about the data it was trained for.
        crop: how a picture becomes square.
        identity: names the weights; an index refuses the vectors of another model.
        system: name of the system, for messages.
        device: where to compute.
        batch_size: pictures or texts at a time.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        spec: DataSpec,
        *,
        crop: str = "squash",
        identity: str = "",
        system: str = "",
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer, self.spec, self.crop = tokenizer, spec, crop
        self.identity, self.system, self.batch_size = identity, system, batch_size

    @torch.inference_mode()
    def embed_image(self, pictures: Sequence[Picture] | Picture) -> Float32[np.ndarray, "n d"]:
        """Return one unit vector a picture.

        Args:
            pictures: paths, bytes of picture files, PIL images or uint8 arrays (height, width, 3); one or many.

        Raises:
            BadPicture: for a picture that cannot be read; the line names it.
        """
        encoder = self._pair_encoder()
        with ThreadPoolExecutor(2) as pool:
            vectors = [
                encoder.encode_image(Batch(image=stack(list(pool.map(self._decode, piece)))).to(self.device))
                for piece in pieces(pictures, self.batch_size)
            ]
        return _numpy(vectors)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str] | str) -> Float32[np.ndarray, "n d"]:
        """Return one unit vector a text; what is longer than the model reads is cut."""
        encoder = self._pair_encoder()
        vectors = []
        for piece in pieces(texts, self.batch_size):
            tokens, mask = self.tokenizer(piece, self.spec.context)
            vectors.append(encoder.encode_text(Batch(tokens=tokens, token_mask=mask).to(self.device)))
        return _numpy(vectors)

    def similarity(
        self, pictures: Sequence[Picture] | Picture, texts: Sequence[str] | str
    ) -> Float32[np.ndarray, "n m"]:
        """Return the cosine of each picture with each text, in [-1, 1]."""
        cosines: Float32[np.ndarray, "n m"] = self.embed_image(pictures) @ self.embed_text(texts).T
        return cosines

    def classify(
        self, pictures: Sequence[Picture] | Picture, labels: Sequence[str] = (), *, prompts: Sequence[str] = PROMPTS
    ) -> list[list[tuple[str, float]]]:
        """Name each picture with words it was never trained to name, or with the classes that a classifier learnt.

        Args:
            pictures: one or many.
            labels: the names to choose from; none for a classifier.
            prompts: sentences with `{}` for the name; their vectors are averaged.

        Returns:
            For each picture every label with its probability, the likeliest first.

        Raises:
            UserError: without labels, or for a prompt without `{}`.
        """
        if isinstance(self.model, Classifier) and not labels:
            parts = [stack([self._decode(one) for one in part]) for part in pieces(pictures, self.batch_size)]
            return [found for part in parts for found in name(self.model, self.spec, part.to(self.device))]
        scores = self.embed_image(pictures) @ self.label_vectors(labels, prompts=prompts).T
        chances = torch.from_numpy(scores * float(self._pair_encoder().scale())).softmax(1)
        return ranked(chances, labels)

    def label_vectors(
        self, labels: Sequence[str], *, prompts: Sequence[str] = PROMPTS
    ) -> Float32[np.ndarray, "labels d"]:
        """Return one unit vector a class name: the mean over the prompts, on the sphere again."""
        if not labels or not prompts:
            raise UserError("classify needs at least one label and one prompt")
        for prompt in prompts:
            if "{}" not in prompt:
                raise UserError(f"prompt {prompt!r} has no {{}} for the label to stand in")
        texts = [prompt.replace("{}", label) for label in labels for prompt in prompts]
        vectors = torch.from_numpy(self.embed_text(texts)).view(len(labels), len(prompts), -1)
        return zero_shot_weights(vectors).numpy()

    @torch.inference_mode()
    def scores(self, pictures: Sequence[Picture] | Picture, texts: Sequence[str] | str) -> Float32[np.ndarray, "n m"]:
        """Score each picture with each text by looking at both together; higher is better, the unit is the system's.

        Raises:
            UserError: when the model judges by vectors alone; `similarity` gives their cosines.
        """
        if not isinstance(self.model, PairScorer):
            raise UserError(f"{self.system or 'this model'} compares vectors alone; use similarity, or train sgraf")
        tokens, mask = self.tokenizer([texts] if isinstance(texts, str) else list(texts), self.spec.context)
        text = self.model.text_parts(Batch(tokens=tokens, token_mask=mask).to(self.device))
        found = []
        for piece in pieces(pictures, self.batch_size):
            image = Batch(image=stack([self._decode(picture) for picture in piece])).to(self.device)
            found.append(self.model.score(self.model.image_parts(image), text))
        return _numpy(found)

    def search(
        self,
        query: Picture,
        index: Index | str | Path,
        *,
        k: int = 10,
        where: dict[str, Any] | None = None,
        hybrid: bool = False,
        picture_of: Callable[[Hit], Picture] | None = None,
        candidates: int = 100,
    ) -> list[Hit]:
        """Find what lies nearest to a text or a picture.

        Args:
            query: a string is taken as text; a `Path`, bytes, PIL image or array as a picture.
            index: opened, or its folder; made by this very model.
            k: how many.
            where: metadata that a hit must have.
            hybrid: weigh the words of a text against the stored captions too; a score then tells of both ranks.
            picture_of: where the picture of a hit is. With it, a model that can look at a picture and a text together
                puts the nearest pictures of a text in its own order, and a hit's score is the model's.
            candidates: how many of the nearest pictures are looked at so.
        """
        with nullcontext(index) if isinstance(index, Index) else open_index(index, read_only=True) as opened:
            if opened.model != self.identity:
                raise UserError(
                    f"this index holds vectors of {opened.model}, the run is {self.identity}; index the pictures again"
                )
            vector = self.embed_text(query) if isinstance(query, str) else self.embed_image(query)
            if hybrid:
                return find_hybrid(opened, vector[0], query, k=k, where=where)
            if picture_of is None or not isinstance(query, str) or not isinstance(self.model, PairScorer):
                return opened.search(vector[0], k=k, where=where)[0]
            hits = opened.search(vector[0], k=max(k, candidates), where=where)[0]
            return reorder(hits, self.scores([picture_of(hit) for hit in hits], query)[:, 0], k=k) if hits else hits

    def explain(
        self, picture: Picture, text: str, *, method: str = "auto", against: Sequence[str] = (), answer: str = ""
    ) -> Explanation:
        """Say why a picture met a text, a captioner says it, or a question got its answer: by which places and words.

        Args:
            picture: as for `embed_image`.
            text: any; a question for a system that answers.
            method: "gradcam", "hirescam", "relevance", "rollout", "occlusion", "random"; "auto" weighs several.
            against: other texts, to show what speaks for this text rather than for those.
            answer: to the question, that is explained; the likeliest where empty.

        Raises:
            BadPicture: for a picture that cannot be read.
            UserError: for an empty text, another method, or one that cannot see into this model.
        """
        pixels, held = self._decode(picture), (self.model, self.tokenizer, self.spec)
        return explain(*held, pixels, text, method=method, against=against, answer=answer)

    def caption(
        self, pictures: Sequence[Picture] | Picture, writing: Writing | None = None
    ) -> list[list[tuple[str, float]]]:
        """Write about pictures, by default the likeliest text among five beams.

        Returns:
            For each picture its texts with their log-probabilities in nats, the best first.

        Raises:
            BadPicture: for a picture that cannot be read; the line names it.
        """
        told: list[list[tuple[str, float]]] = []
        for piece in pieces(pictures, self.batch_size):
            images = stack([self._decode(picture) for picture in piece]).to(self.device)
            told += tell(self.model, self.tokenizer, images, writing)
        return told

    def ask(self, picture: Picture, questions: Sequence[str] | str, *, count: int = 5) -> list[list[tuple[str, float]]]:
        """Return for each question about a picture `count` answers with their probabilities, the likeliest first."""
        pixels = self._decode(picture).to(self.device)
        return answers_to(self.model, self.tokenizer, self.spec, pixels, questions, count=count)

    def generate(self, texts: Sequence[str] | str, *, count: int = 1, seed: int = 0) -> list[list[Image.Image]]:
        """Draw `count` pictures for each text; the same seed draws the same ones, whatever else is asked for."""
        return pictures_for(self.model, self.tokenizer, self.spec, texts, count=count, seed=seed)

    def embed_rows(
        self, source: Source, rows: Int64[np.ndarray, " n"], *, skipped: list[Problem] | None = None, workers: int = 2
    ) -> Iterator[tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, "k d"]]]:
        """Embed the pictures of a source piece by piece.

        Args:
            source: where the pictures are.
            rows: which of them.
            skipped: gets the pictures that cannot be read; they are left out.
            workers: threads that read.

        Yields:
            Numbers of rows and their unit vectors.
        """
        encoder = self._pair_encoder()
        size, crop = self.spec.image_size, self.crop
        loader = Loader(source, rows, collate, batch_size=self.batch_size, size=size, crop=crop, workers=workers)
        for batch in loader.epoch(0):
            with torch.inference_mode():
                vectors = encoder.encode_image(batch.to(self.device))
            yield batch.need("pair_id").numpy(), _numpy([vectors])
        if skipped is not None:
            skipped += loader.skipped

    def _decode(self, picture: Picture) -> UInt8[Tensor, "3 s s"]:
        return decode(Path(picture) if isinstance(picture, str) else picture, size=self.spec.image_size, crop=self.crop)

    def _pair_encoder(self) -> PairEncoder:
        if not isinstance(self.model, PairEncoder):
            raise cannot(self.model, PairEncoder, system=self.system)
        return self.model


def load(run: str | Path, *, device: str = "auto") -> Predictor:
    """Open a trained run.

    Args:
        run: the folder that `diptych train --out` wrote; "USER/NAME" of a model in the hub's cache; "hf:USER/NAME", or
            "hf:USER/NAME@REVISION", of one that may be fetched from the hub.
        device: "auto", "cpu", "cuda", "mps".

    Raises:
        UserError: when the folder is no run, is cut short, or its weights do not fit.
    """
    found = load_run(Path(run))
    parts, place = (found.model, found.tokenizer, found.spec), pick_device(device)
    return Predictor(*parts, crop=found.crop, identity=found.identity, system=found.system, device=place)


def _numpy(vectors: list[Tensor]) -> Float32[np.ndarray, "n d"]:
    if not vectors:
        raise UserError("nothing to embed: the list is empty")
    return torch.cat(vectors).float().cpu().numpy()
