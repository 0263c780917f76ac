"""Word similarity: Spearman's correlation between the cosines of word vectors and what people said.

Reference:
    MEN: Bruni, Tran and Baroni 2014, JAIR 49. SimLex-999: Hill et al. 2015, arXiv 1408.3456. WordSim-353: Finkelstein
    et al. 2002. Concreteness: Brysbaert, Warriner and Kuperman 2014.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from diptych.core.errors import UserError, unknown

Rated: TypeAlias = tuple[str, str, float]
"""Two words, and how alike people found them, on any scale."""


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Rank values from 1; those that tie share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Correlate two rankings, ties averaged.

    Returns:
        From -1 to 1; nan for fewer than two pairs, or where one side is all the same.
    """
    if len(first) < 2:
        return math.nan
    one, other = ranks(first), ranks(second)
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size > 0 else math.nan


def similarity(
    rated: Sequence[Rated],
    words: Mapping[str, int],
    vectors: Float[np.ndarray, "v d"],
    *,
    concrete: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Compare cosines with ratings; a pair with a word that has no vector is skipped and counted.

    Args:
        rated: pairs of words.
        words: the number of each small word.
        vectors: of the words.
        concrete: how concrete words are, if known: pairs are then also judged in two halves.

    Returns:
        `spearman`, `coverage` (share of pairs judged) and `pairs` (their number); with `concrete` also
        `concrete/spearman`, `abstract/spearman` and their pairs: above and below the median, over the judged pairs that
        have it, of the mean concreteness of the two words.
    """
    known = [(a, b, score) for a, b, score in rated if a in words and b in words]
    human = np.array([score for _, _, score in known], dtype=np.float64)
    one = vectors[[words[a] for a, _, _ in known]].astype(np.float64)
    other = vectors[[words[b] for _, b, _ in known]].astype(np.float64)
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosine = (one * other).sum(1) / np.maximum(sizes, 1e-12)
    found = {
        "spearman": spearman(cosine, human),
        "coverage": len(known) / max(1, len(rated)),
        "pairs": float(len(known)),
    }
    if concrete is None:
        return found
    means = [(concrete.get(a, math.nan) + concrete.get(b, math.nan)) / 2 for a, b, _ in known]
    level = np.array(means, dtype=np.float64)
    middle = float(np.nanmedian(level)) if np.isfinite(level).any() else math.nan
    for name, part in (("concrete", level >= middle), ("abstract", level < middle)):
        found[f"{name}/spearman"] = spearman(cosine[part], human[part])
        found[f"{name}/pairs"] = float(part.sum())
    return found


def read_rated(path: Path) -> list[Rated]:
    """Read a list of word pairs: word, word, rating a line, between tabs, commas or spaces; words are made small.

    A line whose third field is no number is a heading; fields after it are not read.

    Raises:
        UserError: when the file cannot be read or has no such line.
    """
    found: list[Rated] = []
    for line in _lines(path):
        fields = [field.strip() for field in re.split(r"[\t,;]|\s+", line.strip()) if field.strip()]
        if len(fields) >= 3 and _is_number(fields[2]):
            found.append((fields[0].lower(), fields[1].lower(), float(fields[2])))
    if not found:
        raise UserError(f"{path} has no lines of word, word, rating; for example: cup<TAB>mug<TAB>8.2")
    return found


def read_concreteness(path: Path) -> dict[str, float]:
    """Read how concrete words are, from a table with the columns `Word` and `Conc.M`, between tabs.

    Raises:
        UserError: when the file cannot be read or lacks a column.
    """
    lines = _lines(path)
    head = lines[0].rstrip("\r\n").split("\t") if lines else []
    for name in ("Word", "Conc.M"):
        if name not in head:
            raise unknown("column", name, head)
    word, mean = head.index("Word"), head.index("Conc.M")
    rows = (line.split("\t") for line in lines[1:])
    return {row[word].lower(): float(row[mean]) for row in rows if len(row) > max(word, mean) and _is_number(row[mean])}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
