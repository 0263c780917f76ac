"""Standings: the outcomes of a comparison as means, spreads and paired differences, and as a table in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from diptych.metrics.shown import SHARES
from diptych.metrics.spread import Difference, Spread, clear_winner, difference, is_count, lower_is_better
from diptych.train.contest import Contestant
from diptych.train.outcome import Outcome

NONE = "–"
COSTS = ("parameters", "trained", "training", "memory", "rate", "steps")
MEANING = (
    "± is the standard deviation over seeds. Bold: better than every other by more than the spread of either. "
    "Differences are paired by seed; in brackets the 95 % interval of Student's t, not corrected for their number."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one contestant came to.

    Args:
        contestant: who.
        outcomes: of every seed that ended.
        scores: by flat names, over the seeds that have scores.
        against: differences to the first contestant with scores, on the seeds that both have.
        waiting: seeds whose runs have not ended.
    """

    contestant: Contestant
    outcomes: tuple[Outcome, ...]
    scores: Mapping[str, Spread] = field(default_factory=dict)
    against: Mapping[str, Difference] = field(default_factory=dict)
    waiting: int = 0

    @property
    def name(self) -> str:
        """The name of the contestant."""
        return self.contestant.name

    @property
    def good(self) -> list[Outcome]:
        """The outcomes that have scores."""
        return [one for one in self.outcomes if not one.failed]

    @property
    def title(self) -> str:
        """The name, how many seeds have scores, and how many are still to come."""
        coming = f", {self.waiting} to come" if self.waiting else ""
        return f"{self.name} (n = {len(self.good)}{coming})"

    def cost(self, name: str) -> str:
        """Say one of `COSTS` for people."""
        return _COST[name](self.good) if self.good else NONE


@dataclass(frozen=True, slots=True)
class Standings:
    """A comparison at some moment.

    Args:
        data: what was learnt from.
        protocol: how everybody was trained and scored, in sentences.
        notes: where contestants were not treated alike.
        entries: in the order in which the contestants were named.
    """

    data: str
    protocol: tuple[str, ...]
    notes: tuple[str, ...]
    entries: tuple[Entry, ...]

    def names(self) -> list[str]:
        """Return the names of all scores, first those that chose the weights, counts and negatives left out."""
        watched = [one.monitor for entry in self.entries for one in entry.good if one.monitor in one.scores]
        found = dict.fromkeys([*watched, *(name for entry in self.entries for name in entry.scores)])
        return [name for name in found if not is_count(name) and not name.startswith("-")]

    def best(self, name: str) -> str | None:
        """Return who has the best of a score by more than the spread."""
        found = {entry.name: entry.scores[name] for entry in self.entries if name in entry.scores}
        return clear_winner(found, lower=lower_is_better(name))

    def reference(self) -> Entry | None:
        """Return who the others are compared with: the first that has scores."""
        return next((entry for entry in self.entries if entry.good), None)

    def others(self) -> list[Entry]:
        """Return those that are compared with the reference."""
        return [entry for entry in self.entries if entry.against]

    def failures(self) -> list[str]:
        """Say what failed and why, once for all seeds that failed alike."""
        groups: dict[tuple[str, str], list[int]] = {}
        for entry in self.entries:
            for one in entry.outcomes:
                if one.failed:
                    groups.setdefault((entry.name, one.failed), []).append(one.seed)
        return [
            f"{name}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: {why}"
            for (name, why), seeds in groups.items()
        ]

    def record(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "data": self.data,
            "protocol": list(self.protocol),
            "notes": list(self.notes),
            "contestants": [_record(entry) for entry in self.entries],
        }


def standings(
    outcomes: Sequence[tuple[Contestant, Sequence[Outcome], int]],
    *,
    data: str,
    protocol: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Standings:
    """Sum up what every contestant came to.

    Args:
        outcomes: for each contestant its outcomes and how many of its runs have not ended.
        data: what was learnt from.
        protocol: how everybody was trained and scored.
        notes: where contestants were not treated alike.
    """
    entries: list[Entry] = []
    first: dict[int, Outcome] = {}
    for contestant, ended, waiting in outcomes:
        good = {one.seed: one for one in ended if not one.failed}
        names = dict.fromkeys(name for one in good.values() for name in one.scores)
        scores = {name: Spread.of(one.scores[name] for one in good.values() if name in one.scores) for name in names}
        against = _against(first, good) if first else {}
        first = first or good
        entries.append(Entry(contestant, tuple(ended), scores, against, waiting))
    return Standings(data, tuple(protocol), tuple(notes), tuple(entries))


def _against(first: Mapping[int, Outcome], other: Mapping[int, Outcome]) -> dict[str, Difference]:
    found = {}
    for name in dict.fromkeys(name for one in other.values() for name in one.scores):
        pairs = [
            (first[seed].scores[name], other[seed].scores[name])
            for seed in sorted(first.keys() & other.keys())
            if name in first[seed].scores and name in other[seed].scores
        ]
        if pairs and not is_count(name):
            found[name] = difference([a for a, _ in pairs], [b for _, b in pairs])
    return found


def title(name: str) -> str:
    """Write the flat name of a score for people: `image_to_text/r@1` as `image to text R@1`."""
    return name.replace("_", " ").replace("/", " ").replace("r@", "R@")


def _share(name: str) -> bool:
    return name.rpartition("/")[2].removeprefix("mean_").startswith(SHARES)


def cell(name: str, found: Spread | None) -> str:
    """Write a score with its spread: a share in percent, anything else with sensible digits."""
    if found is None:
        return NONE
    value, spread = _number(name, found.mean), ""
    if found.deviation is not None:
        spread = f" ± {_number(name, found.deviation)}"
    return f"{value}{spread}{' %' if _share(name) else ''}"


def versus(name: str, found: Difference | None) -> str:
    """Write a difference with its interval; shares in percentage points."""
    if found is None:
        return NONE
    text = _number(name, found.mean, sign="+")
    if found.low is not None and found.high is not None:
        text += f" [{_number(name, found.low, sign='+')}, {_number(name, found.high, sign='+')}]"
    return text


def _number(name: str, value: float, *, sign: str = "") -> str:
    digits = 1 if _share(name) or name.endswith("rank") else 3
    shown = round(100 * value if _share(name) else value, digits) + 0.0  # no -0.0
    return f"{shown:{sign},.{digits}f}"


def _mean(values: Iterable[float | None], write: Callable[[float], str], *, spread: bool = False) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    found = Spread.of(known)
    return write(found.mean) + (f" ± {write(found.deviation)}" if spread and found.deviation is not None else "")


def _count(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


_COST: dict[str, Callable[[list[Outcome]], str]] = {
    "parameters": lambda good: _mean((one.parameters for one in good), _count),
    "trained": lambda good: _mean((one.trained for one in good), _count),
    "training": lambda good: _mean((one.seconds for one in good), lambda value: f"{value:,.1f}", spread=True) + " s",
    "memory": lambda good: _mean((one.memory for one in good), lambda value: f"{value / 2**20:,.0f} MiB"),
    "rate": lambda good: _mean((one.rate for one in good), lambda value: f"{value:,.0f}/s"),
    "steps": lambda good: _mean((one.steps for one in good), lambda value: f"{value:,.0f}"),
}


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "system": entry.contestant.system,
        "settings": dict(entry.contestant.own),
        "scores": {name: asdict(found) for name, found in entry.scores.items()},
        "against_first": {name: asdict(found) for name, found in entry.against.items()},
        "costs": {
            name: asdict(Spread.of(known))
            for name in ("parameters", "trained", "seconds", "memory", "rate", "steps")
            if (known := [value for one in entry.good if (value := asdict(one)[name]) is not None])
        },
        "runs": [asdict(one) for one in entry.outcomes],
        "waiting": entry.waiting,
    }


def markdown(found: Standings) -> str:
    """Write the tables of a comparison in Markdown: scores, costs, differences to the first contestant."""
    names = found.names()
    rows = [
        [entry.title, *(_bold(cell(name, entry.scores.get(name)), found.best(name) == entry.name) for name in names)]
        for entry in found.entries
    ]
    costs = [[entry.name, *(entry.cost(name) for name in COSTS)] for entry in found.entries]
    reference = found.reference()
    against = [
        [entry.name, *(_bold(versus(name, one), one is not None and one.sure) for name, one in _all(entry, names))]
        for entry in found.others()
    ]
    lines = [f"Data: {found.data}.", "", *(f"{line}\n" for line in found.protocol)]
    lines += [*(f"- {line}" for line in found.notes), *([""] if found.notes else [])]
    lines += [*_grid(["", *map(title, names)], rows), "", *_grid(["", *COSTS], costs), ""]
    if reference is not None and against:
        lines += [f"Difference to {reference.name}:", "", *_grid(["", *map(title, names)], against), ""]
    lines += [MEANING, *(f"\nFailed: {line}" for line in found.failures())]
    return "\n".join(lines) + "\n"


def _all(entry: Entry, names: Sequence[str]) -> list[tuple[str, Difference | None]]:
    return [(name, entry.against.get(name)) for name in names]


def _bold(text: str, is_bold: bool) -> str:  # noqa: FBT001
    return f"**{text}**" if is_bold else text


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    return [f"| {line} |" for line in (*lines, *(" | ".join(row) for row in rows))]
