"""Opens and makes indexes by their address, whatever keeps them; a server's client is imported when one is named."""

from __future__ import annotations

import json
from pathlib import Path

from diptych.core.errors import UserError
from diptych.search.folder import FolderIndex
from diptych.search.header import Header
from diptych.search.index import Index
from diptych.search.place import Place
from diptych.search.served import ServedIndex

RUN_FILE = "run.json"


def open_index(address: str | Path, *, model: str | None = None, read_only: bool = False) -> Index:
    """Open an index that is there.

    Args:
        address: a folder, or what `diptych.search.place` names.
        model: identity of the model whose vectors will be added or looked for; None skips the check.
        read_only: look only.

    Raises:
        UserError: when there is none, it belongs to another model, is damaged, or its server cannot be reached.
    """
    place = Place.parse(str(address))
    if place is None:
        return FolderIndex.open(Path(address), model=model, read_only=read_only)
    if place.kind == "postgresql":
        from diptych.search.postgres import PostgresIndex

        return PostgresIndex.open(place, model=model, read_only=read_only)
    from diptych.search.milvus import MilvusIndex

    return MilvusIndex.open(place, model=model, read_only=read_only)


def make_index(address: str | Path, *, dim: int, model: str, run: str) -> Index:
    """Make an empty index.

    Args:
        address: a folder, or what `diptych.search.place` names.
        dim: length of the vectors.
        model: identity of the model that makes them.
        run: where that model is; kept with the index.

    Raises:
        UserError: when there is one already, or it cannot be made there.
    """
    place = Place.parse(str(address))
    if place is None:
        folder = FolderIndex.create(Path(address), dim=dim, model=model)
        # an index without it asks for --run
        (Path(address) / RUN_FILE).write_text(json.dumps({"run": run}) + "\n", encoding="utf-8")
        return folder
    if place.kind == "postgresql":
        from diptych.search.postgres import PostgresIndex

        return PostgresIndex.create(place, dim=dim, model=model, run=run)
    from diptych.search.milvus import MilvusIndex

    return MilvusIndex.create(place, dim=dim, model=model, run=run)


def index_there(address: str | Path) -> bool:
    """Say whether there is an index at an address.

    Raises:
        UserError: when its server cannot be reached.
    """
    place = Place.parse(str(address))
    if place is None:
        return Header.there(Path(address))
    if place.kind == "postgresql":
        from diptych.search.postgres import PostgresIndex

        return PostgresIndex.there(place)
    from diptych.search.milvus import MilvusIndex

    return MilvusIndex.there(place)


def shown(address: str | Path) -> str:
    """Return an address as it may be printed, without a password."""
    place = Place.parse(str(address))
    return str(address) if place is None else place.shown


def run_in(address: str | Path) -> str:
    """Return the run that made an index, as it was written down.

    Raises:
        UserError: when there is no index, or it does not say.
    """
    if Place.parse(str(address)) is not None:
        with open_index(address, read_only=True) as index:
            assert isinstance(index, ServedIndex)
            return index.facts.run
    file = Path(address) / RUN_FILE
    if not file.is_file():
        raise UserError(f"no index in {address}; make one with: diptych index RUN PICTURES --out {address}")
    return str(json.loads(file.read_text(encoding="utf-8"))["run"])
