"""Check: look at every picture and caption before any training, and say what is wrong with which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from diptych.data.look import HUGE, STRIP, TINY, Look, look_at
from diptych.data.near import groups, near_pairs
from diptych.data.scripts import count_scripts
from diptych.data.source import SPLITS, Problem, Source
from diptych.data.tokenizer import Tokenizer

Progress = Callable[[int, int], None]

# kind: how bad it is, what it means, what to do; in the order in which they are told
KINDS: dict[str, tuple[str, str, str]] = {
    "missing": ("error", "the file of the picture cannot be read", "put it back; training leaves it out"),
    "empty": ("error", "the file of the picture has no bytes", "fetch it again; training leaves it out"),
    "unknown": ("error", "the file is no picture", "fetch it again; training leaves it out"),
    "damaged": ("error", "the picture is cut short or damaged", "fetch it again; training leaves it out"),
    "too large": ("error", "the picture is too large to be safe", "make it smaller; training leaves it out"),
    "leak": ("error", "the same file stands in several splits", "move its copies to one split, or scores flatter"),
    "near leak": ("warning", "pictures that look the same stand in several splits", "look at them; keep one split"),
    "duplicate": ("warning", "the same file stands several times", "give its captions to one row"),
    "near duplicate": ("note", "pictures look the same", "look at them"),
    "blank": ("warning", "the picture is of one colour", "look at it; it cannot match its caption"),
    "tiny": ("warning", f"the shorter side is under {TINY} pixels", "look at it; it may be an icon"),
    "strip": ("warning", f"one side is over {STRIP:g} times the other", "it will be squashed or mostly cut away"),
    "no caption": ("warning", "the picture has no caption", "it serves search and labels, not training of pairs"),
    "long caption": ("warning", "the caption has more tokens than the model reads", "raise context, or shorten it"),
    "repeated caption": ("note", "the same caption stands with different pictures", "each counts as right in scores"),
    "huge": ("note", f"over {HUGE // 1_000_000} million pixels", "make it smaller to read it faster"),
    "animated": ("note", "several frames", "only the first is used"),
    "CMYK": ("note", "colours for print", "converted to RGB"),
    "16-bit": ("note", "16 bits a channel", "scaled to 8"),
    "rotated": ("note", "turned by its EXIF", "turned upright when read"),
    "transparent": ("note", "has transparent parts", "shown on white"),
    "grey": ("note", "no colour", "read as RGB"),
}


@dataclass(frozen=True, slots=True)
class Spot:
    """A row, for display: its number in the source, its key and its split."""

    row: int
    key: str
    split: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that was found: rows that belong together, and a note on each such group."""

    kind: str
    groups: tuple[tuple[Spot, ...], ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Count the rows."""
        return sum(map(len, self.groups))

    @property
    def severity(self) -> str:
        """Say how bad it is: "error", "warning" or "note"."""
        return KINDS[self.kind][0]

    @property
    def meaning(self) -> str:
        """Say what it means."""
        return KINDS[self.kind][1]

    @property
    def advice(self) -> str:
        """Say what to do."""
        return KINDS[self.kind][2]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    `sizes` holds height and width of each picture in pixels, upright, 0 where it cannot be read; `words` and `tokens`
    the length of each caption (`tokens` is empty without a tokenizer); `left_out` what the front door could not use,
    `noted` what it only noticed.
    """

    name: str
    pictures: int
    captions: int
    splits: dict[str, int]
    left_out: tuple[Problem, ...]
    findings: tuple[Finding, ...]
    formats: dict[str, int]
    scripts: dict[str, int]
    captions_per_picture: dict[int, int]
    sizes: Int64[np.ndarray, "pictures 2"]
    words: Int64[np.ndarray, " captions"]
    tokens: Int64[np.ndarray, " captions_or_0"]
    context: int | None
    noted: tuple[Problem, ...] = ()

    def finding(self, kind: str) -> Finding:
        """Return what was found of a kind, with no groups where nothing was."""
        return next((found for found in self.findings if found.kind == kind), Finding(kind, (), ()))

    def bad_rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield severity, kind, key and note of every row in any finding, and everything that was left out."""
        for problem in self.left_out:
            yield "error", "left out", problem.where, problem.what
        for problem in self.noted:
            yield "note", "noted", problem.where, problem.what
        for found in self.findings:
            for group, note in zip(found.groups, found.notes, strict=True):
                for spot in group:
                    yield found.severity, found.kind, spot.key, note


def check(
    source: Source,
    *,
    tokenizer: Tokenizer | None = None,
    context: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> CheckResult:
    """Read every picture and caption of a source and report on them.

    Args:
        source: the data.
        tokenizer: counts the tokens of captions.
        context: tokens that the model reads, begin and end included; the tokenizer's own when None.
        workers: threads that decode pictures.
        progress: called now and then with the pictures seen and their number.
    """
    looks = _look(source, workers, progress or _quiet)
    texts = _Texts(source, tokenizer, context)
    found = _pictures(looks) | _copies(looks, source.splits()) | texts.found
    findings = [_finding(source, kind, found[kind]) for kind in KINDS if found.get(kind)]
    splits = np.bincount(source.splits(), minlength=len(SPLITS))
    return CheckResult(
        name=source.name,
        pictures=len(source),
        captions=len(texts.words),
        splits={name: int(splits[place]) for place, name in enumerate(SPLITS)},
        left_out=tuple(problem for problem in source.problems if not problem.kept),
        noted=tuple(problem for problem in source.problems if problem.kept),
        findings=tuple(findings),
        formats=dict(Counter(look.kind for look in looks if look.kind).most_common()),
        scripts=texts.scripts,
        captions_per_picture=dict(sorted(Counter(texts.counts).items())),
        sizes=np.array([(look.height, look.width) for look in looks], dtype=np.int64).reshape(-1, 2),
        words=np.array(texts.words, dtype=np.int64),
        tokens=np.array(texts.tokens, dtype=np.int64),
        context=texts.context,
    )


Group = tuple[Sequence[int], str]  # rows and a note
Found = dict[str, list[Group]]


def _quiet(done: int, total: int) -> None:
    """Say nothing."""


def _look(source: Source, workers: int, progress: Progress) -> list[Look]:
    looks = []
    own = torch.get_num_threads()
    with ThreadPoolExecutor(max(workers, 1), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for look in pool.map(lambda row: look_at(source, row), range(len(source))):
            looks.append(look)
            if len(looks) % 100 == 0 or len(looks) == len(source):
                progress(len(looks), len(source))
    torch.set_num_threads(own)  # what threads set for themselves torch takes for all that have not computed yet
    return looks


def _pictures(looks: list[Look]) -> Found:
    found: Found = {}
    for row, look in enumerate(looks):
        if look.fault is not None:
            found.setdefault(look.fault.kind, []).append(([row], str(look.fault)))
        for kind in look.odd:
            found.setdefault(kind, []).append(([row], f"{look.width:,} x {look.height:,} pixels"))
    return found


def _copies(looks: list[Look], splits: np.ndarray) -> Found:
    same: dict[bytes, list[int]] = {}
    for row, look in enumerate(looks):
        if look.colours is not None:
            same.setdefault(look.digest, []).append(row)
    found: Found = {}
    for rows in same.values():
        if len(rows) > 1:
            found.setdefault("duplicate", []).append((rows, f"the same file {len(rows)} times"))
            if len(set(splits[rows].tolist())) > 1:
                found.setdefault("leak", []).append((rows, _across(rows, splits)))
    if same:
        ones = [(rows, looks[rows[0]]) for rows in same.values() if "blank" not in looks[rows[0]].odd]
        hashes = np.array([look.hash for _, look in ones], dtype=np.uint64)
        colours = np.array([look.colours for _, look in ones], dtype=np.uint8).reshape(-1, 192)
        for group in groups(near_pairs(hashes, colours)):
            rows = sorted(row for member in group for row in ones[member][0])
            found.setdefault("near duplicate", []).append((rows, f"{len(group)} pictures look the same"))
            if len(set(splits[rows].tolist())) > 1:
                found.setdefault("near leak", []).append((rows, _across(rows, splits)))
    return found


def _across(rows: Sequence[int], splits: np.ndarray) -> str:
    return "in " + " and ".join(SPLITS[place] for place in sorted(set(splits[list(rows)].tolist())))


class _Texts:
    """What one pass over all captions tells."""

    def __init__(self, source: Source, tokenizer: Tokenizer | None, context: int | None) -> None:
        self.context = context if tokenizer is None or context is not None else tokenizer.context
        self.found: Found = {}
        self.counts: list[int] = []
        self.words: list[int] = []
        self.tokens: list[int] = []
        scripts: Counter[str] = Counter()
        owners: dict[str, list[int]] = {}
        for row in range(len(source)):
            captions = source.row(row).captions
            self.counts.append(len(captions))
            self.words += [len(text.split()) for text in captions]
            scripts.update(count_scripts(captions))
            if not captions:
                self._add("no caption", [row], "")
            for text in set(map(str.casefold, captions)):
                owners.setdefault(text, []).append(row)
            if tokenizer is not None and captions:
                self._count(row, tokenizer.lengths(captions))
        self.scripts = dict(scripts.most_common())
        for text, rows in sorted(owners.items(), key=lambda item: (-len(item[1]), item[1])):
            if len(rows) > 1:
                self._add("repeated caption", rows, text)
        if len(self.found.get("no caption", [])) == len(source):
            del self.found["no caption"]  # data of another kind, not a fault of each row

    def _add(self, kind: str, rows: list[int], note: str) -> None:
        self.found.setdefault(kind, []).append((rows, note))

    def _count(self, row: int, lengths: Int64[np.ndarray, " n"]) -> None:
        self.tokens += lengths.tolist()
        over = int(lengths.max()) - (self.context or 0)
        if over > 0:
            self._add("long caption", [row], f"{int(lengths.max()):,} tokens, {over:,} are cut")


def _finding(source: Source, kind: str, found: list[Group]) -> Finding:
    splits = source.splits()
    spots = tuple(tuple(Spot(row, source.row(row).key, SPLITS[splits[row]]) for row in rows) for rows, _ in found)
    return Finding(kind, spots, tuple(note for _, note in found))
