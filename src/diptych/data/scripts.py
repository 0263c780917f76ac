"""Which script a text is written in, as a stand-in for its language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_SCRIPTS = {
    "Latin": "A-Za-z\u00aa-\u024f\u1e00-\u1eff\uff21-\uff5a",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
    "Japanese": "\u3041-\u30ff\uff66-\uff9f",
    "Hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}
_PATTERNS = {name: re.compile(f"[{ranges}]") for name, ranges in _SCRIPTS.items()}


def script(text: str) -> str:
    """Return the script that most letters of a text are in; "other" for none of the usual ones, "none" without letters.

    A text with Japanese syllables is Japanese, however many of its signs are Chinese.
    """
    if text.isascii():
        return "Latin" if _PATTERNS["Latin"].search(text) else "none"
    counts = {name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()}
    if counts["Japanese"]:
        return "Japanese"
    name, count = max(counts.items(), key=lambda item: item[1])
    if count:
        return name
    return "other" if any(sign.isalpha() for sign in text) else "none"


def count_scripts(texts: Iterable[str]) -> dict[str, int]:
    """Count texts by script, the most frequent first."""
    return dict(Counter(map(script, texts)).most_common())
