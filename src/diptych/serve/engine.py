"""Engine: one run, and an index if there is one, shared by all requests; the model works in one thread."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Answerer, Captioner, ImageGenerator, Model, PairEncoder
from diptych.core.writing import Writing
from diptych.data.formats import Picture
from diptych.data.images import stack
from diptych.data.prompts import PROMPTS
from diptych.explain.explanation import Explanation, explain
from diptych.metrics.zero_shot import zero_shot_weights
from diptych.models.captioning import tell
from diptych.predictor import Predictor
from diptych.search.index import Hit
from diptych.serve.batching import Batcher
from diptych.serve.collection import Collection, Question
from diptych.serve.pictures import square
from diptych.serve.refusal import Refusal
from diptych.serve.settings import ServeSettings
from diptych.serve.telemetry import Telemetry

T = TypeVar("T")
Vector = Float32[np.ndarray, " d"]
Pixels = UInt8[torch.Tensor, "3 s s"]
Told = list[tuple[str, float]]

MOST_ANSWERS = 10

_HELPERS = 4  # threads that decode pictures and read the disk while the model works


class Engine:
    """What requests ask of a run.

    Args:
        predictor: the run.
        collection: what is searched; None without an index.
        settings: how much at once.
        telemetry: what counts.

    Raises:
        UserError: for a run that offers nothing to serve, or an index beside a run that cannot search.
    """

    def __init__(
        self, predictor: Predictor, collection: Collection | None, settings: ServeSettings, telemetry: Telemetry
    ) -> None:
        self.predictor, self.collection, self.settings = predictor, collection, settings
        self.offers = _offers(predictor, collection)
        self._model = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._reasons = ThreadPoolExecutor(1, thread_name_prefix="reasons")
        self._watched = _twin(predictor.model)
        self._helpers = ThreadPoolExecutor(_HELPERS, thread_name_prefix="helper")
        self._index = ThreadPoolExecutor(1, thread_name_prefix="index")
        most, wait = settings.max_batch, settings.max_wait
        counted = telemetry.count_batch
        self.texts: Batcher[str, Vector] = Batcher(
            self._encode_texts, self._model, most=most, wait=wait, counted=counted("texts")
        )
        self.pixels: Batcher[Pixels, Vector] = Batcher(
            self._encode_pixels, self._model, most=most, wait=wait, counted=counted("pictures")
        )
        self.stories: Batcher[tuple[Pixels, int], Told] = Batcher(
            self._tell, self._model, most=most, wait=wait, counted=counted("captions")
        )
        self.answers: Batcher[tuple[Pixels, str], Told] = Batcher(
            self._answer, self._model, most=most, wait=wait, counted=counted("answers")
        )
        self.hits: Batcher[Question, list[Hit]] = Batcher(
            self._search, self._index, most=most, wait=0, counted=counted("searches")
        )

    def start(self) -> None:
        """Begin to serve, in the running event loop."""
        for batcher in self._batchers():
            batcher.start()

    async def stop(self) -> None:
        """Stop the threads and let go of the index."""
        for batcher in self._batchers():
            await batcher.stop()
        for pool in (self._model, self._reasons, self._helpers, self._index):
            pool.shutdown(wait=True, cancel_futures=True)
        if self.collection is not None:
            self.collection.close()

    def _batchers(self) -> tuple[Batcher[Any, Any], ...]:
        return self.texts, self.pixels, self.stories, self.answers, self.hits

    async def check(self) -> None:
        """Return when the model's thread answers and the index can be read."""
        await asyncio.get_running_loop().run_in_executor(self._model, int)
        if self.collection is not None:
            await self.helped(self.collection.__len__)

    async def helped(self, call: Callable[[], T]) -> T:
        """Run what reads files or decodes in a thread beside the model's."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, call)

    async def picture_vectors(self, pictures: Sequence[Picture]) -> list[Vector]:
        """Return a unit vector for each picture.

        Raises:
            BadPicture: for one that cannot be read.
        """
        self._pairs()
        return await self.pixels([await self._square(picture) for picture in pictures])

    async def text_vectors(self, texts: Sequence[str]) -> list[Vector]:
        """Return a unit vector for each text."""
        self._pairs()
        return await self.texts(texts)

    async def tags(self, picture: Picture, labels: Sequence[str]) -> Told:
        """Return each label with its probability, the likeliest first; as `Predictor.classify`."""
        (vector,) = await self.picture_vectors([picture])
        texts = [prompt.replace("{}", label) for label in labels for prompt in PROMPTS]
        each = torch.from_numpy(np.stack(await self.texts(texts))).view(len(labels), len(PROMPTS), -1)
        cosines = zero_shot_weights(each) @ torch.from_numpy(vector)
        chances = (cosines * float(self._pairs().scale())).softmax(0).tolist()
        return sorted(zip(labels, chances, strict=True), key=lambda pair: -pair[1])

    async def explain(self, picture: Picture, text: str, *, method: str, steady: bool, answer: str) -> Explanation:
        """Say why a picture met a text, a captioner would write it, or a question got its answer."""
        if "explain" not in self.offers:
            raise self._lacks()
        held, pixels = self.predictor, await self._square(picture)
        work = partial(explain, self._watched, held.tokenizer, held.spec, pixels, text)
        chosen = partial(work, method=method, steady=steady, answer=answer)
        return await asyncio.get_running_loop().run_in_executor(self._reasons, chosen)

    async def caption(self, picture: Picture, *, count: int) -> Told:
        """Write about a picture; the likeliest text first."""
        self._captioner()
        (told,) = await self.stories([(await self._square(picture), count)])
        return told

    async def ask(self, picture: Picture, question: str, *, count: int) -> Told:
        """Answer a question about a picture; the likeliest answer first, with its probability."""
        self._answerer()
        (told,) = await self.answers([(await self._square(picture), question)])
        return told[:count]

    async def draw(self, text: str, *, count: int, seed: int) -> list[Image.Image]:
        """Draw pictures for a text; each by itself, as a seed draws the same ones always."""
        if not isinstance(self.predictor.model, ImageGenerator):
            raise self._lacks()
        work = partial(self.predictor.generate, text, count=count, seed=seed)
        (drawn,) = await asyncio.get_running_loop().run_in_executor(self._model, work)
        return drawn

    async def search(self, vector: Vector, *, k: int, where: dict[str, object] | None) -> list[Hit]:
        """Return the pictures of the index that are nearest to a vector."""
        self.needed_collection()
        (found,) = await self.hits([Question(vector, k, dict(where or {}))])
        return found

    def needed_collection(self) -> Collection:
        """Return what is searched.

        Raises:
            Refusal: when this server has no index.
        """
        if self.collection is None:
            raise Refusal(404, "this server has no index: start it with diptych serve RUN --index INDEX")
        return self.collection

    async def _square(self, picture: Picture) -> Pixels:
        size, crop = self.predictor.spec.image_size, self.predictor.crop
        return await self.helped(lambda: square(picture, size=size, crop=crop))

    def _pairs(self) -> PairEncoder:
        if not isinstance(self.predictor.model, PairEncoder):
            raise self._lacks()
        return self.predictor.model

    def _captioner(self) -> Captioner:
        if not isinstance(self.predictor.model, Captioner):
            raise self._lacks()
        return self.predictor.model

    def _answerer(self) -> Answerer:
        if not isinstance(self.predictor.model, Answerer):
            raise self._lacks()
        return self.predictor.model

    def _lacks(self) -> Refusal:
        return Refusal(404, f"{self.predictor.system or 'this model'} does not offer that: see GET /api/about")

    def _encode_texts(self, texts: list[str]) -> list[Vector]:
        return list(self.predictor.embed_text(texts))

    @torch.inference_mode()
    def _encode_pixels(self, pixels: list[Pixels]) -> list[Vector]:
        batch = Batch(image=stack(pixels)).to(self.predictor.device)
        return list(self._pairs().encode_image(batch).float().cpu().numpy())

    def _tell(self, asked: list[tuple[Pixels, int]]) -> list[Told]:
        """Write about pictures, those together of which as many texts are wanted."""
        found: dict[int, Told] = {}
        for count in sorted({count for _, count in asked}):
            places = [place for place, (_, its) in enumerate(asked) if its == count]
            images = stack([asked[place][0] for place in places]).to(self.predictor.device)
            writing = Writing(count=count, beams=max(count, Writing().beams))
            told = tell(self.predictor.model, self.predictor.tokenizer, images, writing)
            found.update(zip(places, told, strict=True))
        return [found[place] for place in range(len(asked))]

    @torch.inference_mode()
    def _answer(self, asked: list[tuple[Pixels, str]]) -> list[Told]:
        """Answer questions, each about its own picture."""
        names = self.predictor.spec.answers
        tokens, mask = self.predictor.tokenizer([question for _, question in asked], self.predictor.spec.context)
        images = stack([pixels for pixels, _ in asked])
        batch = Batch(image=images, tokens=tokens, token_mask=mask, pair_id=torch.arange(len(asked)))
        top = self._answerer().answer(batch.to(self.predictor.device)).topk(min(MOST_ANSWERS, len(names)), dim=1)
        return [
            [(names[place], chance) for place, chance in zip(places, chances, strict=True)]
            for places, chances in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]

    def _search(self, questions: list[Question]) -> list[list[Hit] | Exception]:
        return self.needed_collection().search(questions)


def _twin(model: Model) -> Model:
    """Return a second model of the very same weights.

    Explaining watches what happens inside a model and takes seconds: with a body of its own it does so beside the
    model's other work, and sees nothing of that.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _offers(predictor: Predictor, collection: Collection | None) -> list[str]:
    offers = []
    if isinstance(predictor.model, PairEncoder):
        offers += ["search"] if collection is not None else []
        offers += ["tags", "similarity", "explain"]
    elif collection is not None:
        raise UserError(f"{predictor.system} has no space for both pictures and texts to search in; leave --index out")
    if isinstance(predictor.model, Captioner):
        offers += ["caption", "explain"]
    if isinstance(predictor.model, Answerer):
        offers += ["ask", "explain"]
    if isinstance(predictor.model, ImageGenerator):
        offers.append("generate")
    if not offers:
        raise UserError(
            f"{predictor.system} offers nothing to serve; clip, meshed_memory, attention_vqa and gan_cls do"
        )
    return list(dict.fromkeys(offers))
