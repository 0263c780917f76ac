"""Labels: which pictures have a class, which of them may be learnt from and which are only tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from diptych.core.errors import UserError, nearest
from diptych.data.columns import LABEL
from diptych.data.source import Source


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures with their classes: those that shots are drawn from, and those that are tested on.

    Args:
        column: where the classes were read.
        names: of the classes, as they are put into prompts.
        pool: rows that are not tested on: train and dev, or train where dev is tested on.
        pool_label: their classes, from 0.
        test: rows that are tested on.
        test_label: their classes.
        split: the split that is tested on.
        unknown: pictures left out of the test because training has no picture of their class.
    """

    column: str
    names: tuple[str, ...]
    pool: Int64[np.ndarray, " n"]
    pool_label: Int64[np.ndarray, " n"]
    test: Int64[np.ndarray, " m"]
    test_label: Int64[np.ndarray, " m"]
    split: str
    unknown: int


def read_labels(source: Source, *, column: str | None = None, test_per_class: int = 0) -> Labelled:
    """Read the class of every picture: of the test split (dev where there is none), and of the others to learn from.

    Args:
        source: the data; without splits of its own a hash of the picture's name makes them.
        column: with the classes; the first usual name that the data has when None.
        test_per_class: so many test pictures of each class, always the same; 0: all.

    Raises:
        UserError: without such a column, with several classes for one picture, or with fewer than two classes.
    """
    split = "test" if len(source.rows("test")) > 0 else "dev"
    pool, test = source.rows("train"), source.rows(split)
    if split == "test":
        pool = np.union1d(pool, source.rows("dev"))
    if len(pool) == 0 or len(test) == 0:
        raise UserError(f"{source.name} needs pictures in train and in test; name the split with --split-column")
    column = _column(source, int(pool[0]), column)
    words = [_class(source, row, column) for row in pool.tolist()]
    names = sorted(set(words))
    if len(names) < 2:
        raise UserError(f"column {column!r} has {len(names)} class to learn; at least 2 are needed")
    place = {name: number for number, name in enumerate(names)}
    tested = [place.get(_class(source, row, column), -1) for row in test.tolist()]
    label = np.array(tested, dtype=np.int64)
    known = label >= 0
    if not known.any():
        raise UserError(f"no picture of split {split!r} is of a class that there are pictures to learn from of")
    kept = _some(label[known], test_per_class)
    return Labelled(
        column,
        tuple(names),
        pool,
        np.array([place[word] for word in words], dtype=np.int64),
        test[known][kept],
        label[known][kept],
        split,
        int((~known).sum()),
    )


def _column(source: Source, row: int, asked: str | None) -> str:
    fields = source.row(row).fields
    if asked is not None:
        if asked not in fields:
            raise UserError(f"there is no column {asked!r}{nearest(asked, fields)} (there are: {', '.join(fields)})")
        return asked
    found = next((name for name in LABEL if name in fields), None)
    if found is None:
        raise UserError(
            f"no column holds classes; name it with --label-column (there are: {', '.join(fields) or 'none'})"
        )
    return found


def _class(source: Source, row: int, column: str) -> str:
    found = source.row(row)
    value = found.fields.get(column)
    if value is None or isinstance(value, list | dict):
        raise UserError(f"{found.key} has {value!r} as {column!r}; every picture needs exactly one class")
    return str(value).replace("_", " ")


def _some(label: Int64[np.ndarray, " n"], each: int) -> Int64[np.ndarray, " k"]:
    """Take the same so many pictures of each class, drawn once and for all."""
    if each == 0:
        return np.arange(len(label), dtype=np.int64)
    order = np.random.default_rng((0, len(label))).permutation(len(label))
    taken = [order[label[order] == name][:each] for name in np.unique(label)]
    return np.sort(np.concatenate(taken)).astype(np.int64)
