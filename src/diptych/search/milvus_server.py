"""How a Milvus server is spoken to: the connection, the collection of an index, and errors in one line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diptych.core.errors import UserError
from diptych.search.place import Place

LONGEST_TEXT = 65_535
"""Bytes of a key or a text."""

OURS = "diptych."
"""How the names of our properties of a collection begin."""

SECONDS = 60
"""How long an answer may take."""


def connect(place: Place) -> Any:
    """Open a connection.

    Raises:
        UserError: when pymilvus is not installed or the server cannot be reached.
    """
    try:
        pymilvus: Any = importlib.import_module("pymilvus")
    except ModuleNotFoundError:
        raise UserError(f"{place.shown} needs pymilvus: pip install 'diptych[milvus]'") from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error that it raises, with its trace
    with told(place):
        return pymilvus.MilvusClient(place.url, user=place.user, password=place.password, timeout=10)


def said(client: Any, place: Place) -> dict[str, str]:
    """Return what an index's collection says of itself."""
    properties = client.describe_collection(place.name, timeout=SECONDS).get("properties", {})
    notes = {name.removeprefix(OURS): value for name, value in properties.items() if name.startswith(OURS)}
    if not {"dim", "model", "run", "breadth", "recall"} <= notes.keys():
        raise UserError(f"{place.shown} is not an index of diptych's: choose another name")
    return notes


def schema(client: Any, dim: int) -> Any:
    """Say what fields a collection has; `sparse` are the words of `words`, as the server cuts them."""
    pymilvus: Any = importlib.import_module("pymilvus")
    kind, made = pymilvus.DataType, client.create_schema(auto_id=False, enable_dynamic_field=False)
    made.add_field("key", kind.VARCHAR, is_primary=True, max_length=LONGEST_TEXT)
    made.add_field("number", kind.INT64)
    made.add_field("vector", kind.FLOAT_VECTOR, dim=dim)
    made.add_field("metadata", kind.JSON)
    made.add_field("text", kind.VARCHAR, max_length=LONGEST_TEXT, nullable=True)
    stems = {"tokenizer": "standard", "filter": ["lowercase", {"type": "stemmer", "language": "english"}]}
    made.add_field("words", kind.VARCHAR, max_length=LONGEST_TEXT, enable_analyzer=True, analyzer_params=stems)
    made.add_field("sparse", kind.SPARSE_FLOAT_VECTOR)
    words = {"input_field_names": ["words"], "output_field_names": ["sparse"]}
    made.add_function(pymilvus.Function("bm25", pymilvus.FunctionType.BM25, **words))
    return made


def exact_indexes(client: Any) -> Any:
    """Ask for exact search by vectors, and for search by words."""
    params = client.prepare_index_params()
    add_index(params, graph=False)
    params.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    return params


def add_index(params: Any, *, graph: bool) -> None:
    """Ask for a graph over the vectors, or for none."""
    kind, settings = ("HNSW", {"M": 32, "efConstruction": 80}) if graph else ("FLAT", {})
    params.add_index("vector", index_name="vector", index_type=kind, metric_type="IP", params=settings)


@contextmanager
def told(place: Place) -> Iterator[None]:
    """Turn errors of the server into a UserError of one line."""
    pymilvus: Any = importlib.import_module("pymilvus")
    grpc: Any = importlib.import_module("grpc")
    try:
        yield
    except (grpc.RpcError, pymilvus.MilvusException) as error:
        line = " ".join(str(getattr(error, "message", "") or error).split())
        if isinstance(error, grpc.RpcError) or any(word in line for word in ("Fail connecting", "UNAVAILABLE")):
            raise UserError(
                f"the server of {place.shown} cannot be reached: start it, or look at the address"
            ) from error
        raise UserError(f"the server of {place.shown} says: {line[:300]}") from error
