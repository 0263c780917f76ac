"""PostgresIndex: an index as a table of a PostgreSQL server with the extension pgvector.

A write is one transaction: all of it or nothing. Words are looked for by PostgreSQL's own text search.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float32

from diptych.core.errors import UserError
from diptych.search.index import Plan
from diptych.search.place import Place
from diptych.search.postgres_where import condition, query_of
from diptych.search.served import Facts, Found, Row, ServedIndex, checked, closed_by_errors, item
from diptych.search.words import spaced

_LONGEST = 16_000  # pgvector's own limit
_INDEXED = 2_000  # the same for its graphs
_INLINE = 1_024  # with them a row fits into a page of 8 KiB, which is read faster than out of line
_BREADTHS = (64, 128, 256, 512)
_COLUMNS = "number, key, metadata::text, text, vector::text"
_TABLE = """
CREATE TABLE {name} (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL UNIQUE,
    vector vector({dim}) NOT NULL, metadata jsonb NOT NULL, text text, words tsvector);
ALTER TABLE {name} ALTER COLUMN vector SET STORAGE {storage};
CREATE INDEX ON {name} USING gin (words);
CREATE TABLE IF NOT EXISTS diptych_indexes
    (name text PRIMARY KEY, dim integer NOT NULL, model text NOT NULL, run text NOT NULL, breadth integer, recall real);
INSERT INTO diptych_indexes VALUES (%s, %s, %s, %s);
"""


class PostgresIndex(ServedIndex):
    """An index in a table; make one by `create` or `open`. Each is one connection: threads take turns."""

    def __init__(self, place: Place, facts: Facts, sql: Any, *, read_only: bool) -> None:
        super().__init__(place.shown, facts, read_only=read_only)
        self._place, self._sql = place, sql
        self._table, self._guard = f'"{place.name}"', threading.RLock()

    @classmethod
    def create(cls, place: Place, *, dim: int, model: str, run: str) -> PostgresIndex:
        """Make the table.

        Raises:
            UserError: when it is there already, the server cannot be reached or has no pgvector, or `dim` is too large.
        """
        if not 1 <= dim <= _LONGEST:
            raise UserError(f"pgvector takes vectors of 1 to {_LONGEST:,} numbers, not {dim}")
        sql = _connect(place)
        with closed_by_errors(sql), _told(place), sql.transaction():
            sql.execute("CREATE EXTENSION IF NOT EXISTS vector")
            if _facts(sql, place) is not None:
                raise UserError(f"{place.shown} already holds an index: open it to add to it, or choose another name")
            storage = "PLAIN" if dim <= _INLINE else "EXTERNAL"
            for part in _TABLE.format(name=f'"{place.name}"', dim=dim, storage=storage).split(";\n"):
                if part:
                    sql.execute(part, [place.name, dim, model, run] if "%s" in part else None)
        return cls(place, Facts(dim, model, run), sql, read_only=False)

    @classmethod
    def open(cls, place: Place, *, model: str | None, read_only: bool) -> PostgresIndex:
        """Open a table that is there.

        Raises:
            UserError: when there is none, another model made it, or the server cannot be reached.
        """
        sql = _connect(place)
        with closed_by_errors(sql), _told(place):
            facts = _facts(sql, place)
            if facts is None:
                raise UserError(f"the index {place.shown} is not there; make one with `diptych index`")
            return cls(place, checked(facts, place.shown, model), sql, read_only=read_only)

    @staticmethod
    def there(place: Place) -> bool:
        """Say whether there is such an index."""
        with closing(_connect(place)) as sql, _told(place):
            return _facts(sql, place) is not None

    def close(self) -> None:
        """Close the connection."""
        self._sql.close()

    def plan(self) -> Plan:
        """Say how it searches now."""
        with self._turn():
            asked = "SELECT breadth, recall FROM diptych_indexes WHERE name = %s"
            breadth, recall = self._sql.execute(asked, [self._place.name]).fetchone()
        if breadth is None:
            return Plan("exact", self.count(), None, "the server compares every vector")
        return Plan("approximate", self.count(), recall, f"the server's graph finds {recall:.1%} of the nearest")

    def optimize(
        self, *, approximate_from: int = 100_000, recall: float = 0.99, sample: int = 100, k: int = 10
    ) -> Plan:
        """Make a graph (HNSW) where comparing everything takes too long; see `FolderIndex.optimize`.

        Args:
            approximate_from: number of items from which on search is approximate.
            recall: share of the true k nearest that must be found, or search stays exact.
            sample: how many of the items to measure it with.
            k: how many nearest to measure it with.
        """
        self._need_write()
        with self._turn():
            self._sql.execute(f'DROP INDEX IF EXISTS "{self._place.name}_graph"')
            self._set_graph(None, None)
            self._sql.execute(f"ANALYZE {self._table}")
        if self.count() < approximate_from or self.dim > _INDEXED:
            return self.plan()
        keys = self.keys()
        query = np.stack([one.vector for one in self.get(keys[:: -(-len(keys) // sample)])])
        truth = [{hit.key for hit in hits} for hits in self.search(query, k=k)]
        with self._turn():
            self._sql.execute(
                f'CREATE INDEX "{self._place.name}_graph" ON {self._table} USING hnsw (vector vector_ip_ops) '
                "WITH (m = 32, ef_construction = 80)"
            )
        reached = 0.0
        for breadth in _BREADTHS:
            self._set_graph(breadth, reached)
            found = self.search(query, k=k)
            reached = float(np.mean([len(t & {h.key for h in f}) / len(t) for t, f in zip(truth, found, strict=True)]))
            self._set_graph(breadth, reached)
            if reached >= recall:
                return self.plan()
        with self._turn():
            self._sql.execute(f'DROP INDEX "{self._place.name}_graph"')
            self._set_graph(None, None)
        return Plan("exact", len(keys), reached, f"approximate search would find only {reached:.1%}")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Have the connection for the block, and errors in one line."""
        with self._guard, _told(self._place):
            yield

    def _set_graph(self, breadth: int | None, recall: float | None) -> None:
        asked = "UPDATE diptych_indexes SET breadth = %s, recall = %s WHERE name = %s"
        with self._turn():
            self._sql.execute(asked, [breadth, recall, self._place.name])

    def _write(self, rows: list[Row], *, replace: bool) -> None:
        put = f"INSERT INTO {self._table} (key, vector, metadata, text, words) VALUES (%s, %s, %s, %s, {_WORDS})"
        values = []
        with self._turn(), self._sql.transaction(), self._sql.cursor() as cursor:
            if replace:
                cursor.execute(f"DELETE FROM {self._table} WHERE key = ANY(%s)", [[key for key, *_ in rows]])
            values = [
                (key, _written(v), note, text, None if text is None else spaced(text)) for key, note, text, v in rows
            ]
            cursor.executemany(put, values)

    def _remove(self, keys: list[str]) -> int:
        with self._turn():
            return int(self._sql.execute(f"DELETE FROM {self._table} WHERE key = ANY(%s)", [keys]).rowcount)

    def _near(
        self, query: Float32[np.ndarray, "q d"], *, count: int, where: dict[str, Any], exact: bool
    ) -> list[list[Found]]:
        test, values = condition(where)
        asked = f"SELECT {_COLUMNS} FROM {self._table} WHERE {test} ORDER BY vector <#> %s::vector LIMIT %s"
        with self._turn(), self._sql.transaction():
            self._set_search(count, exact=exact)
            return [
                [_found(row) for row in self._sql.execute(asked, [*values, _written(one), count]).fetchall()]
                for one in query
            ]

    def _set_search(self, count: int, *, exact: bool) -> None:
        """Choose between the graph and everything, for this transaction."""
        row = self._sql.execute("SELECT breadth FROM diptych_indexes WHERE name = %s", [self._place.name]).fetchone()
        if exact or row is None or row[0] is None or count > 1000:  # 1,000 is pgvector's widest
            self._sql.execute("SET LOCAL enable_indexscan = off")
        else:
            self._sql.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(row[0], count))}")
            self._sql.execute("SET LOCAL hnsw.iterative_scan = strict_order")  # a filter leaves enough

    def _with_words(self, text: str, *, count: int, where: dict[str, Any]) -> list[tuple[Found, float]]:
        test, values = condition(where)
        query = query_of(text)
        asked = (
            f"SELECT ts_rank_cd(words, q) AS score, {_COLUMNS} FROM {self._table}, to_tsquery('english', %s) AS q "
            f"WHERE words @@ q AND {test} ORDER BY score DESC, number LIMIT %s"
        )
        with self._turn():
            rows = self._sql.execute(asked, [query, *values, count]).fetchall()
        return [(_found(row), score) for score, *row in rows]

    def _items(self, keys: list[str]) -> list[Found]:
        with self._turn():
            asked = f"SELECT {_COLUMNS} FROM {self._table} WHERE key = ANY(%s)"
            return [_found(row) for row in self._sql.execute(asked, [keys]).fetchall()]

    def _known(self, keys: Sequence[str]) -> list[str]:
        with self._turn():
            asked = f"SELECT key FROM {self._table} WHERE key = ANY(%s) ORDER BY number"
            return [key for (key,) in self._sql.execute(asked, [list(keys)]).fetchall()]

    def _count(self, where: dict[str, Any]) -> int:
        test, values = condition(where)
        with self._turn():
            return int(self._sql.execute(f"SELECT count(*) FROM {self._table} WHERE {test}", values).fetchone()[0])

    def _keys(self, where: dict[str, Any]) -> list[str]:
        test, values = condition(where)
        with self._turn():
            asked = f"SELECT key FROM {self._table} WHERE {test} ORDER BY number"
            return [key for (key,) in self._sql.execute(asked, values).fetchall()]

    def _fields(self, field: str) -> list[str] | None:
        with self._turn():
            has = f"SELECT 1 FROM {self._table} WHERE jsonb_exists(metadata, %s) LIMIT 1"
            if self._sql.execute(has, [field]).fetchone() is not None:
                return None
            every = f"SELECT DISTINCT jsonb_object_keys(metadata) FROM {self._table}"
            return [name for (name,) in self._sql.execute(every).fetchall()]


_GONE = ("08", "28", "3D", "57")  # classes of SQLSTATE: no connection, not let in, no such data base, shut down
_WORDS = "to_tsvector('english', %s)"


def _connect(place: Place) -> Any:
    try:
        psycopg: Any = importlib.import_module("psycopg")
    except ModuleNotFoundError:
        raise UserError(f"{place.shown} needs psycopg: pip install 'diptych[postgres]'") from None
    with _told(place):
        return psycopg.connect(place.url, autocommit=True, connect_timeout=10)


def _facts(sql: Any, place: Place) -> Facts | None:
    if sql.execute("SELECT to_regclass('diptych_indexes')").fetchone()[0] is None:
        return None
    asked = "SELECT dim, model, run FROM diptych_indexes WHERE name = %s"
    row = sql.execute(asked, [place.name]).fetchone()
    return None if row is None else Facts(*row)


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Turn errors of the server into a UserError of one line."""
    psycopg: Any = importlib.import_module("psycopg")
    try:
        yield
    except psycopg.OperationalError as error:
        if (error.sqlstate or "08")[:2] not in _GONE:
            raise UserError(f"the server of {place.shown} says {_first(error)}; nothing was changed") from error
        raise UserError(
            f"the server of {place.shown} cannot be reached ({_first(error)}): start it, or look at the address"
        ) from error
    except psycopg.errors.UniqueViolation as error:
        raise UserError(f"another client added a key to {place.shown} at the same time: use upsert") from error
    except psycopg.errors.FeatureNotSupported as error:
        raise UserError(f"the server of {place.shown} lacks pgvector ({_first(error)}): install it there") from error
    except psycopg.Error as error:
        raise UserError(f"the server of {place.shown} says {_first(error)}; nothing was changed") from error


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _written(vector: Float32[np.ndarray, " d"]) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _found(row: Sequence[Any]) -> Found:
    number, key, note, text, vector = row
    return Found(number, item(key, note, text, np.fromstring(vector[1:-1], dtype=np.float32, sep=",")))
