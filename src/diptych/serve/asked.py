"""What handlers take from a request beside its types: the shared engine, one picture, texts of allowed length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, File, Form, Request, UploadFile
from pydantic import TypeAdapter, ValidationError

from diptych.data.formats import Picture
from diptych.serve.engine import Engine
from diptych.serve.pictures import check_upload
from diptych.serve.refusal import Refusal
from diptych.serve.schemas import Where
from diptych.serve.settings import ServeSettings

_WHERE: TypeAdapter[dict[str, Any]] = TypeAdapter(Where)
Upload = Annotated[UploadFile | None, File(description="A picture file: JPEG, PNG, GIF, WebP, BMP, TIFF, PPM, AVIF.")]
OfIndex = Annotated[str | None, Form(description="Instead of a file: a picture of the index, by its id.")]


def engine_of(request: Request) -> Engine:
    """Return the engine of the app that serves this request."""
    engine: Engine = request.app.state.engine
    return engine


Served = Annotated[Engine, Depends(engine_of)]


async def one_picture(engine: Served, picture: Upload = None, id: OfIndex = None) -> Picture:  # noqa: A002
    """Return the picture that a request is about: uploaded, or one of the index.

    Raises:
        Refusal: for none or two of them, or an id that is not in the index.
        BadPicture: for an upload that is no picture, or too large.
    """
    if (picture is None) == (id is None):
        raise Refusal(422, "send one picture: a file as `picture`, or the `id` of one of the index")
    if picture is not None:
        return await upload(engine, picture)
    return await of_index(engine, id or "")


async def upload(engine: Engine, picture: UploadFile) -> bytes:
    """Return an uploaded picture, its header checked."""
    data = await picture.read()
    await engine.helped(lambda: check_upload(data, max_pixels=engine.settings.max_pixels))
    return data


async def of_index(engine: Engine, key: str) -> Picture:
    """Return a picture of the index."""
    collection = engine.needed_collection()
    known(engine, key)
    return await engine.helped(lambda: collection.picture(key))


OnePicture = Annotated[Picture, Depends(one_picture)]


def text_of(text: str, settings: ServeSettings, *, what: str = "text") -> str:
    """Return a text as it is looked for.

    Raises:
        Refusal: for an empty or too long one, or one that no encoding can hold.
    """
    found = text.strip()
    if not found:
        raise Refusal(422, f"the {what} is empty")
    if len(found) > settings.max_text:
        raise Refusal(422, f"the {what} has {len(found):,} characters; at most {settings.max_text:,} are allowed")
    if not found.isascii() and found != found.encode("utf-8", "replace").decode("utf-8"):
        raise Refusal(422, f"the {what} is not valid Unicode: it holds half of a pair")
    return found


def texts_of(texts: Sequence[str], settings: ServeSettings, *, what: str) -> list[str]:
    """Return several texts, as `text_of`."""
    if len(texts) > settings.max_labels:
        raise Refusal(422, f"{len(texts):,} {what}s are more than the {settings.max_labels} allowed")
    return [text_of(text, settings, what=what) for text in texts]


def known(engine: Engine, key: str) -> str:
    """Return a key that may be looked up.

    Raises:
        Refusal: for one that can be no key.
    """
    return text_of(key, engine.settings, what="id")


def places(k: int, settings: ServeSettings) -> int:
    """Return how many pictures to find.

    Raises:
        Refusal: for more than allowed.
    """
    if k > settings.max_results:
        raise Refusal(422, f"k={k} is more than the {settings.max_results} results allowed")
    return k


def filter_of(where: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a filter that asks for nothing of our own.

    Raises:
        Refusal: for a column that is not the user's.
    """
    hidden = [name for name in where or {} if name.startswith("_")]
    if hidden:
        raise Refusal(422, f"there is no column {hidden[0]!r} to filter by")
    return where


def filter_in(where: str | None) -> dict[str, Any] | None:
    """Read a filter from a field of a form.

    Raises:
        Refusal: when it is no JSON object of conditions.
    """
    if where is None or not where.strip():
        return None
    try:
        return filter_of(_WHERE.validate_python(json.loads(where)))
    except (ValueError, ValidationError, RecursionError):
        raise Refusal(422, 'where is a JSON object of conditions, as {"split": "test"}') from None
