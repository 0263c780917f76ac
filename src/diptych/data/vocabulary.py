"""Vocabulary: a tokenizer whose tokens are whole words, for systems that learn one vector for each word."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from diptych.core.errors import UserError
from diptych.data.tokenizer import Tokenizer

_SPECIAL = {"pad": "<pad>", "unk": "<unk>"}


def word_tokenizer(texts: Iterable[str], *, least: int = 5, most: int = 50_000, context: int = 64) -> Tokenizer:
    """Learn which words there are: small runs of letters and digits; a Chinese character is a word.

    Signs between words are no tokens; a rare word is the token `<unk>`.

    Args:
        texts: what to learn from.
        least: how often a word must be there.
        most: words kept, the most frequent ones.
        context: words that a text is cut to unless asked otherwise.

    Raises:
        UserError: when no word is there often enough.
    """
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk"]))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r"[\p{L}\p{M}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.Split(tokenizers.Regex(r"\p{Han}"), "isolated"),
        ]
    )
    special = list(_SPECIAL.values())
    trainer = trainers.WordLevelTrainer(
        vocab_size=most + len(special), min_frequency=least, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() <= len(special) + 1:
        raise UserError(f"fewer than two words are in the texts at least {least} times; use --set least=1 or more text")
    return Tokenizer(backend, _SPECIAL, context=context)
