"""Words of texts, for search by words beside search by vectors: the table of SQLite's FTS5 and its queries.

Reference:
    Robertson and Zaragoza 2009, The Probabilistic Relevance Framework (BM25, as FTS5 computes it).
"""

from __future__ import annotations

import re
from itertools import pairwise

from diptych.core.errors import UserError

TABLE = "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, tokenize = 'porter unicode61 remove_diacritics 2')"
"""English words are found by their stems, every other word as it is written, accents aside."""

_WIDE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"  # writing without blanks between words
_CHARACTER = re.compile(f"([{_WIDE}])")
_RUN = re.compile(f"[{_WIDE}]+|[^\\W{_WIDE}]+")


def spaced(text: str) -> str:
    """Put blanks around Chinese, Japanese and Korean characters, so that each is a word of its own."""
    return _CHARACTER.sub(r" \1 ", text)


def query_of(text: str) -> str:
    """Write a query for FTS5: any of the words; the characters of a Chinese run must stand side by side, in pairs.

    Raises:
        UserError: when there is no word in the text.
    """
    return " OR ".join(f'"{term}"' for term in terms_of(text))


def terms_of(text: str) -> list[str]:
    """Return the words of a text, each once; of a Chinese run, its pairs of characters with a blank between.

    Raises:
        UserError: when there is no word in the text.
    """
    terms = [term for run in _RUN.findall(text.lower()) for term in _terms(run)]
    if not terms:
        raise UserError(f"there is no word to look for in {text!r}: give a word, or search by vectors alone")
    return list(dict.fromkeys(terms))


def _terms(run: str) -> list[str]:
    if not _CHARACTER.match(run) or len(run) == 1:
        return [run]
    return [f"{first} {second}" for first, second in pairwise(run)]
