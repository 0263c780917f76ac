"""The API: search, similarity, tags, explanations, captions, answers and drawings, over one run."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Query, Response, UploadFile

import diptych
from diptych.data.images import size_of
from diptych.explain.explanation import Explanation
from diptych.search.index import Hit
from diptych.serve import asked
from diptych.serve.asked import OnePicture, Served
from diptych.serve.engine import MOST_ANSWERS, Engine, Vector
from diptych.serve.heat import heat_picture, png_address
from diptych.serve.pictures import SIDES, area
from diptych.serve.refusal import Refusal
from diptych.serve.schemas import (
    About,
    Answer,
    Answers,
    Area,
    Caption,
    Captions,
    Drawings,
    Found,
    IdSearch,
    Limits,
    Part,
    Problem,
    Results,
    Similarities,
    Tag,
    Tags,
    TextSearch,
    Why,
    Wish,
    Word,
)

_MEANING = {
    400: "The body is not what its type says.",
    401: "The token is missing or wrong.",
    404: "This server has no such picture, index or ability.",
    408: "The request did not arrive in time.",
    413: "The request or its picture is too large.",
    415: "The upload is no picture that is read here.",
    422: "Something asked for is not allowed; the line says what is.",
    429: "Too many requests of yours are in work.",
    503: "Too many requests are in work.",
    504: "It took too long.",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": meaning} for status, meaning in _MEANING.items()
}
_HEAT, _PART = 512, 96  # pixels of a heat map's side at most: of the whole, and of one word or answer
router = APIRouter(prefix="/api", responses=REFUSALS)


@router.get("/about", tags=["server"])
async def about(engine: Served) -> About:
    """Say what this server serves, and its limits."""
    settings, collection = engine.settings, engine.collection
    sample: list[Found] = []
    if collection is not None:
        sample = await engine.helped(lambda: [_found(engine, hit) for hit in collection.samples()])
    return About(
        system=engine.predictor.system,
        version=diptych.__version__,
        offers=engine.offers,
        pictures=0 if collection is None else await engine.helped(collection.__len__),
        sample=sample,
        limits=Limits(
            megabytes=settings.max_mb,
            pixels=settings.max_pixels,
            characters=settings.max_text,
            labels=settings.max_labels,
            pictures=settings.max_pictures,
            results=settings.max_results,
        ),
    )


@router.post("/search/text", tags=["search"])
async def search_text(engine: Served, question: TextSearch) -> Results:
    """Find pictures by what is on them."""
    start = perf_counter()
    engine.needed_collection()
    where, k = asked.filter_of(question.where), asked.places(question.k, engine.settings)
    (vector,) = await engine.text_vectors([asked.text_of(question.text, engine.settings)])
    return await _results(engine, vector, k=k, where=where, start=start)


@router.post("/search/picture", tags=["search"])
async def search_picture(
    engine: Served,
    picture: Annotated[UploadFile, File(description="A picture file.")],
    k: Annotated[int, Form(ge=1, description="Pictures to find.")] = 20,
    where: Annotated[str | None, Form(description="Conditions, as JSON; see the search by text.")] = None,
) -> Results:
    """Find pictures that look like one that is sent."""
    start = perf_counter()
    engine.needed_collection()
    conditions, count = asked.filter_in(where), asked.places(k, engine.settings)
    (vector,) = await engine.picture_vectors([await asked.upload(engine, picture)])
    return await _results(engine, vector, k=count, where=conditions, start=start)


@router.post("/search/id", tags=["search"])
async def search_id(engine: Served, question: IdSearch) -> Results:
    """Find more pictures like one of the index, which is left out of the results."""
    start = perf_counter()
    collection = engine.needed_collection()
    where, k = asked.filter_of(question.where), asked.places(question.k, engine.settings)
    item = await engine.helped(lambda: collection.item(asked.known(engine, question.id)))
    results = await _results(engine, item.vector, k=k + 1, where=where, start=start)
    results.results = [found for found in results.results if found.id != item.key][:k]
    return results


@router.get("/picture", tags=["search"], response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def picture(
    engine: Served,
    id: Annotated[str, Query(description="Of a picture of the index.")],  # noqa: A002
    side: Annotated[int, Query(ge=1, le=SIDES[-1], description="Pixels of its longer side at most.")] = 640,
) -> Response:
    """Return a picture of the index as a JPEG; sides are rounded up to 160, 320, 640 or 1280 pixels."""
    collection, longest = engine.needed_collection(), next(one for one in SIDES if one >= side)
    asked.known(engine, id)
    jpeg = await engine.helped(lambda: collection.small(id, side=longest))
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.post("/similarity", tags=["pictures and texts"])
async def similarity(
    engine: Served,
    pictures: Annotated[list[UploadFile], File(description="Picture files.")],
    texts: Annotated[list[str], Form(description="Texts.")],
) -> Similarities:
    """Compare every picture with every text."""
    if len(pictures) > engine.settings.max_pictures:
        raise Refusal(422, f"{len(pictures)} pictures are more than the {engine.settings.max_pictures} allowed")
    checked = asked.texts_of(texts, engine.settings, what="text")
    files = [await asked.upload(engine, one) for one in pictures]
    images, words = await asyncio.gather(engine.picture_vectors(files), engine.text_vectors(checked))
    return Similarities(cosines=[[float(image @ word) for word in words] for image in images])


@router.post("/tags", tags=["pictures and texts"])
async def tags(
    engine: Served,
    picture: OnePicture,
    labels: Annotated[list[str], Form(description="Names to choose from; the model need not have seen them before.")],
) -> Tags:
    """Name a picture with words that are typed in."""
    found = await engine.tags(picture, asked.texts_of(labels, engine.settings, what="label"))
    return Tags(tags=[Tag(label=label, probability=chance) for label, chance in found])


@router.post("/explain", tags=["pictures and texts"])
async def explain(
    engine: Served,
    picture: OnePicture,
    text: Annotated[str, Form(description="What the picture may show.")],
    method: Annotated[str, Form(description="auto, gradcam, hirescam, relevance, rollout or occlusion.")] = "auto",
    steady: Annotated[  # noqa: FBT002  a field of a form
        bool, Form(description="Average over small shifts of the picture: better, in nine times the time.")
    ] = False,
    answer: Annotated[str, Form(description="To a question: explain this answer, not the likeliest.")] = "",
) -> Why:
    """Say why a picture meets a text, a caption says what it says, or a question gets its answer: where, by what."""
    sought = asked.text_of(answer, engine.settings, what="answer") if answer.strip() else ""
    wanted = asked.text_of(text, engine.settings)
    found = await engine.explain(picture, wanted, method=method, steady=steady, answer=sought)
    return await engine.helped(lambda: _drawn(found, size_of(picture), engine.predictor.crop))


@router.post("/caption", tags=["pictures and texts"])
async def caption(
    engine: Served,
    picture: OnePicture,
    count: Annotated[int, Form(ge=1, le=5, description="Texts, the likeliest first.")] = 1,
) -> Captions:
    """Write about a picture, when the model was trained to."""
    found = await engine.caption(picture, count=count)
    return Captions(captions=[Caption(text=text, log_prob=log_prob) for text, log_prob in found])


@router.post("/ask", tags=["pictures and texts"])
async def ask(
    engine: Served,
    picture: OnePicture,
    question: Annotated[str, Form(description="About the picture.")],
    count: Annotated[int, Form(ge=1, le=MOST_ANSWERS, description="Answers, the likeliest first.")] = 5,
) -> Answers:
    """Answer a question about a picture, when the model was trained to."""
    found = await engine.ask(picture, asked.text_of(question, engine.settings, what="question"), count=count)
    return Answers(answers=[Answer(answer=answer, probability=chance) for answer, chance in found])


@router.post("/generate", tags=["pictures and texts"])
async def generate(engine: Served, wish: Wish) -> Drawings:
    """Draw pictures for a text, when the model was trained to."""
    found = await engine.draw(asked.text_of(wish.text, engine.settings), count=wish.count, seed=wish.seed)
    return Drawings(pictures=await engine.helped(lambda: [png_address(one) for one in found]))


def _drawn(found: Explanation, size: tuple[int, int], crop: str) -> Why:
    left, top, width, height = area(*size, crop=crop)
    return Why(
        score=found.score,
        unit=found.unit,
        words=[Word(word=word, weight=weight) for word, weight in found.words],
        heat=png_address(heat_picture(found.heat, side=_HEAT)),
        area=Area(left=left, top=top, width=width, height=height),
        method=found.method,
        word_method=found.word_method,
        answers=[Answer(answer=answer, probability=chance) for answer, chance in found.answers],
        parts=[Part(name=name, heat=png_address(heat_picture(heat, side=_PART))) for name, heat in found.parts()],
    )


async def _results(engine: Engine, vector: Vector, *, k: int, where: dict[str, Any] | None, start: float) -> Results:
    hits = await engine.search(vector, k=k, where=where)
    results = await engine.helped(lambda: [_found(engine, hit) for hit in hits])
    return Results(results=results, milliseconds=round((perf_counter() - start) * 1000, 2))


def _found(engine: Engine, hit: Hit) -> Found:
    size = engine.needed_collection().size(hit.key)
    return Found(
        id=hit.key,
        score=hit.score,
        text=hit.text,
        metadata={name: value for name, value in hit.metadata.items() if not name.startswith("_")},
        picture=None if size is None else "/api/picture?" + urlencode({"id": hit.key}),
        width=None if size is None else size[1],
        height=None if size is None else size[0],
    )
