"""From the weights of tokens to those of the words that a reader sees."""

from __future__ import annotations

import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diptych.data.tokenizer import Tokenizer

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")


def read_by(tokenizer: Tokenizer, text: str, context: int) -> tuple[Int[Tensor, " t"], Bool[Tensor, " t"]]:
    """Return the tokens of a text as the model reads them, and which of them are words, not marks."""
    tokens, _ = tokenizer([text], context)
    content = torch.zeros(tokens.shape[1], dtype=torch.bool)
    places = [place for place, _ in _spans(tokenizer, text, tokens.shape[1])]
    content[places] = True
    return tokens[0], content


def by_word(tokenizer: Tokenizer, text: str, weights: Float[Tensor, " t"]) -> list[tuple[str, float]]:
    """Give each word the largest weight of its tokens, and the weightiest word 1.

    Args:
        tokenizer: that made the tokens.
        text: as it was written; words are what white space parts, and each Chinese or Japanese sign.
        weights: >= 0, one a token, marks included.

    Returns:
        Words in their order with weights in [0, 1]; 0 for a word that the model did not read since the text was cut,
        and for all where no token has weight.
    """
    found = tokens_of_words(tokenizer, text, len(weights))
    heaviest = [(word, max((float(weights[place]) for place in places), default=0.0)) for word, places in found]
    most = max((weight for _, weight in heaviest), default=0.0)
    return [(word, weight / most if most > 0 else 0.0) for word, weight in heaviest]


def tokens_of_words(tokenizer: Tokenizer, text: str, length: int) -> list[tuple[str, list[int]]]:
    """Return each word of a text with the places of its tokens among the `length` tokens that the model reads."""
    spans = _spans(tokenizer, text, length)
    return [
        (found.group(), [place for place, (start, end) in spans if start < found.end() and end > found.start()])
        for found in _WORD.finditer(text)
    ]


def _spans(tokenizer: Tokenizer, text: str, length: int) -> list[tuple[int, tuple[int, int]]]:
    """Return the place of each token that is no mark, and the letters it stands for, as far as the text was read."""
    encoding = tokenizer.backend.encode(text)
    after = encoding.special_tokens_mask[::-1].index(0) if 0 in encoding.special_tokens_mask else 0
    marked = zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [(place, span) for place, (mark, span) in enumerate(marked) if mark == 0 and place < length - after]
