"""From a caption to the words that caption scores compare: a tokeniser in the manner of the Penn Treebank, no Java.

The COCO scores take the words of Stanford's PTBTokenizer, made small, without punctuation. This one agrees with it on
plain English captions: contractions come apart ("don't" is "do n't", "dog's" is "dog 's", "cannot" is "can not"),
words with hyphens, numbers ("1,000") and abbreviations ("u.s.") stay whole, signs such as "&" and "%" stand alone. It
differs on purpose in two ways: all brackets are dropped (there "-lrb-" is left over, since the list of what to drop is
in capitals), and each Chinese or Japanese sign is a word (there a whole sentence is one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)")
_APART = re.compile(
    r"(?<![\w'-])(can)(not)(?![\w'-])|(?<![\w'-])(gon|wan)(na)(?![\w'-])|(?<![\w'-])(got)(ta)(?![\w'-])"
)
_WORD = re.compile(
    r"n't(?!\w)|'(?:s|m|d|re|ve|ll)(?!\w)"
    rf"|[{_SIGNS}]"
    r"|\d+(?:[.,:]\d+)+"
    r"|(?:[^\W\d_]\.){2,}"
    rf"|[^\W{_SIGNS}]+(?:[-'/&][^\W{_SIGNS}]+)*"
    r"|[^\w\s]"
)
_DROPPED = frozenset("'\"`.?!,:-;()[]{}…–—，。？！、：；（）「」『』《》“”‘’·")
_QUOTES = str.maketrans("’‘“”", "''\"\"")


def words(text: str) -> list[str]:
    """Split a caption into small words without punctuation.

    Returns:
        For "A man's dog, it don't run!": a, man, 's, dog, it, do, n't, run.
    """
    small = text.lower()
    if not small.isalnum():
        small = small.translate(_QUOTES)
        if "'" in small:
            small = _CLITIC.sub(r" \1", small)
    small = _APART.sub(lambda found: " ".join(part for part in found.groups() if part), small)
    return [word for word in _WORD.findall(small) if word not in _DROPPED]


def lines(texts: Iterable[str]) -> list[str]:
    """Split captions into words and join these by single spaces, as the scores take them."""
    return [" ".join(words(text)) for text in texts]
