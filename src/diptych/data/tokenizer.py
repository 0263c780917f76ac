"""Tokenizer: from texts to token numbers and back; trained on the captions at hand or taken from a pretrained tower."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from jaxtyping import Bool, Int64
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from diptych.core.batch import DataSpec
from diptych.core.errors import UserError

SPECIAL = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "mask": "<mask>"}
CONTEXT = 32
_BYTES = 256
_NAMES = {"pad": ("pad",), "bos": ("bos", "cls"), "eos": ("eos", "sep"), "unk": ("unk",), "mask": ("mask",)}
_LONGEST = 100_000  # a stated length beyond this is a placeholder for "no limit"


class Tokenizer:
    """Texts to token numbers, with the marks of begin and end that its model was trained with.

    `pad_id bos_id eos_id unk_id mask_id` are what the tokenizer itself says; -1 where it has none, never a guess. A
    model without a padding token is padded with its end token, which the mask keeps out.

    Args:
        backend: a tokenizer of the `tokenizers` library; its own padding and truncation are switched off.
        special: the token for each of "pad", "bos", "eos", "unk", "mask", as far as there are such.
        context: tokens that a text is cut to unless asked otherwise, begin and end included.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, str], *, context: int = CONTEXT) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "<pad>" inside of a caption is text
        self.backend, self.special, self.context = backend, dict(special), context
        self.pad_id, self.bos_id, self.eos_id, self.unk_id, self.mask_id = (
            self._id(special.get(name)) for name in SPECIAL
        )
        if self.pad_id < 0:
            self.pad_id = self.eos_id
        if self.pad_id < 0:
            raise UserError("this tokenizer has neither a padding nor an end token, so texts cannot stand in a batch")
        added = backend.encode("a").special_tokens_mask
        self._before = added.index(0) if 0 in added else len(added)
        self._after = added[::-1].index(0) if 0 in added else 0

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 8192, context: int = CONTEXT, lowercase: bool = True
    ) -> Tokenizer:
        """Learn a byte-pair vocabulary: the same texts give the same ids, and any text can be written with it.

        Words are the same tokens wherever they stand, Chinese characters stand for themselves.

        Args:
            texts: what to learn from.
            vocabulary: tokens at most; few texts fill less.
            context: tokens that a text is cut to unless asked otherwise.
            lowercase: make "Dog" and "dog" the same.

        Raises:
            UserError: when the vocabulary is smaller than the bytes and marks it must hold.
        """
        least = _BYTES + len(SPECIAL)
        if vocabulary < least:
            raise UserError(f"vocabulary={vocabulary} is too small; use at least {least}")
        backend = tokenizers.Tokenizer(models.BPE())
        steps = [normalizers.NFKC(), normalizers.Lowercase()] if lowercase else [normalizers.NFKC()]
        backend.normalizer = normalizers.Sequence(steps)
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.BertPreTokenizer(),  # at white space and punctuation
                pre_tokenizers.Split(tokenizers.Regex(r"\p{Han}"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        marks = [(SPECIAL[name], backend.token_to_id(SPECIAL[name])) for name in ("bos", "eos")]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL['bos']} $A {SPECIAL['eos']}", special_tokens=marks
        )
        return cls(backend, SPECIAL, context=context)

    @classmethod
    def load(cls, folder: str | Path, spec: DataSpec | None = None) -> Tokenizer:
        """Read `tokenizer.json` and the settings beside it, as `save` and transformers write them.

        Args:
            folder: where they are.
            spec: what the model was trained with, to be compared.

        Raises:
            UserError: when the file is missing or damaged, or does not fit `spec`.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"there is no tokenizer.json in {folder}")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
            settings = _read(Path(folder) / "special_tokens_map.json") | _read(Path(folder) / "tokenizer_config.json")
        except Exception as error:  # the library raises bare Exception on a damaged file
            raise UserError(f"{path} is damaged: {error}") from None
        tokenizer = cls(backend, _special(settings), context=_context(settings.get("model_max_length")))
        if spec is not None:
            tokenizer.check(spec)
        return tokenizer

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Tokenizer:
        """Take the tokenizer of a pretrained model, from a local folder or by its name on the hub.

        Raises:
            UserError: when it cannot be found, as without a network.
        """
        if (Path(name) / "tokenizer.json").is_file():
            return cls.load(name)
        from transformers import AutoTokenizer

        try:
            wrapped = AutoTokenizer.from_pretrained(str(name), local_files_only=Path(name).is_dir())
        except Exception as error:  # missing file, no network, unknown class: all the user's to mend
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"no tokenizer {str(name)!r} here or on the hub: {reason}") from None
        if not wrapped.is_fast:
            raise UserError(f"the tokenizer of {str(name)!r} has no form for the tokenizers library")
        settings = {key: str(value) for key, value in wrapped.special_tokens_map.items() if isinstance(value, str)}
        backend = tokenizers.Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
        return cls(backend, _special(settings), context=_context(wrapped.model_max_length))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; transformers' AutoTokenizer reads the folder, too."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {f"{name}_token": token for name, token in self.special.items()}
        settings |= {"model_max_length": self.context, "tokenizer_class": "PreTrainedTokenizerFast"}
        (Path(folder) / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (Path(folder) / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")

    @property
    def vocabulary(self) -> int:
        """How many rows a table of token embeddings needs: the largest id and one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __call__(
        self, texts: Sequence[str], context: int | None = None
    ) -> tuple[Int64[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Return token ids, padded on the right, and which of them are real.

        Args:
            texts: any; an empty one is begin and end.
            context: tokens at most, begin and end included; a longer text loses what stands before its end mark.

        Returns:
            Both as wide as the longest text, cut.

        Raises:
            UserError: when `context` has no room for a single token between begin and end.
        """
        context = self.context if context is None else context
        marks = self._before + self._after
        if context <= marks:
            raise UserError(f"context={context} has no room beside the {marks} marks of begin and end")
        rows = [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts))]
        rows = [
            ids if len(ids) <= context else ids[: context - self._after] + ids[len(ids) - self._after :] for ids in rows
        ]
        width = max([1, *map(len, rows)])
        tokens = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.bool_)
        for place, ids in enumerate(rows):
            tokens[place, : len(ids)] = ids
            mask[place, : len(ids)] = True
        return torch.from_numpy(tokens), torch.from_numpy(mask)

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """Count the tokens of each text before any cut, begin and end included."""
        return np.array([len(encoding) for encoding in self.backend.encode_batch_fast(list(texts))], dtype=np.int64)

    def count(self, text: str) -> int:
        """Count the tokens of one text before any cut, begin and end included."""
        return int(self.lengths([text])[0])

    def decode(self, tokens: Iterable[int]) -> str:
        """Write tokens as text up to the end mark, without marks, with the usual spaces."""
        ids = [int(token) for token in tokens]
        if self.eos_id in ids[1:]:
            ids = ids[: ids.index(self.eos_id, 1)]
        return _tidy(self.backend.decode(ids, skip_special_tokens=True))

    def fingerprint(self) -> str:
        """Return a hash of everything that decides how a text is tokenized, for caches."""
        return hashlib.blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    def check(self, spec: DataSpec) -> None:
        """Compare with what a model was trained with.

        Raises:
            UserError: for another vocabulary or other marks.
        """
        here = (self.vocabulary, self.pad_id, self.bos_id, self.eos_id)
        there = (spec.vocabulary, spec.pad_id, spec.bos_id, spec.eos_id)
        if here != there:
            raise UserError(
                f"this tokenizer is not the model's: {here[0]:,} tokens with pad, bos, eos = {here[1:]}, but the model "
                f"was trained with {there[0]:,} and {there[1:]}; put back the tokenizer.json of its training"
            )

    def _id(self, token: str | None) -> int:
        found = None if token is None else self.backend.token_to_id(token)
        return -1 if found is None else int(found)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.backend.encode_special_tokens = True  # not part of what the library pickles


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _special(settings: Mapping[str, Any]) -> dict[str, str]:
    """Pick the marks out of transformers' settings, where a token is a string or an object with its content."""
    special: dict[str, str] = {}
    for name, keys in _NAMES.items():
        for key in keys:
            token = settings.get(f"{key}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                special.setdefault(name, token)
    return special


def _context(given: object) -> int:
    return int(given) if isinstance(given, int | float) and 0 < given < _LONGEST else CONTEXT


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([.,!?;:%)\]}’'。，！？；：、”）])", r"\1", text.strip())
    text = re.sub(r"(['’([{“（])\s+", r"\1", text)
    cjk = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
    return re.sub(f"(?<={cjk})\\s+(?={cjk})", "", text)
