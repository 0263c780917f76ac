"""A comparison as a folder: who takes part, which runs are left to do, and what is known so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.comparing.run import Data, Job, reopen
from diptych.core.errors import UserError
from diptych.core.runtime import pick_device
from diptych.data.source import Source
from diptych.report.compare import write_comparison
from diptych.report.galleries import View, look
from diptych.report.standings import Standings, markdown, standings, title
from diptych.train.contest import Contest, Contestant, command_for, make_contest
from diptych.train.files import disk_trouble, read_json, write_json
from diptych.train.outcome import Outcome, changed_setting, read_outcome
from diptych.train.plan import Recipe

RECORD = "compare.json"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contestants that meet on some data with the same seeds.

    Args:
        out: its folder; the runs are `out/NAME/seed-K`.
        data: as it was named.
        source: the data, open.
        contest: the plans.
        contestants: all of them, the first one is compared with.
        asked: names of those whose runs are to be done; the others only stay in the tables.
        seeds: of everybody.
        command: what was typed.
        beside: runs at the same time.
    """

    out: Path
    data: Data
    source: Source
    contest: Contest
    contestants: tuple[Contestant, ...]
    asked: frozenset[str]
    seeds: tuple[int, ...]
    command: str = ""
    beside: int = 1

    def job(self, contestant: Contestant, seed: int) -> Job:
        """Return the run of a contestant with a seed."""
        plan, folder = self.contest.plan(contestant.name, seed), self.out / contestant.name / f"seed-{seed}"
        own = command_for(plan, data=self.data.named, out=folder, options=self.data.options())
        return Job(contestant.name, plan, folder, self.data.named, own, self.command, self.beside)

    def jobs(self) -> list[Job]:
        """Return the runs that are asked for, the first seed of everybody first."""
        return [self.job(one, seed) for seed in self.seeds for one in self.contestants if one.name in self.asked]

    def require_unchanged(self) -> None:
        """Refuse to mix runs that were made otherwise.

        Raises:
            UserError: when a run folder is of other settings or other data; the line says which.
        """
        fingerprint = self.source.fingerprint()
        for one in self.contestants:
            for seed in self.seeds:
                job = self.job(one, seed)
                changed = changed_setting(job.folder, job.plan, fingerprint)
                if changed:
                    raise UserError(
                        f"{job.folder} holds a run of another set-up: {changed}; give what it was, another --out, "
                        f"another name (NAME={one.system}:...), or delete {job.folder.parent}"
                    )

    def outcomes(self) -> list[tuple[Contestant, list[Outcome], int]]:
        """Return what each contestant came to so far, and how many of its runs have not ended."""
        found = []
        for one in self.contestants:
            ended = [read_outcome(self.job(one, seed).folder) for seed in self.seeds]
            known = [outcome for outcome in ended if outcome is not None]
            found.append((one, known, len(ended) - len(known)))
        return found

    def standings(self) -> Standings:
        """Sum up what is known so far."""
        found = self.outcomes()
        every = [(one.name, outcome) for one, known, _ in found for outcome in known if not outcome.failed]
        return standings(
            found, data=self.source.name, protocol=[*self._judged(every), self._budget()], notes=self.contest.notes
        )

    def _judged(self, every: Sequence[tuple[str, Outcome]]) -> Iterator[str]:
        groups: dict[tuple[str, str], list[str]] = {}
        for name, outcome in every:
            members = groups.setdefault((outcome.split, outcome.monitor), [])
            members += [name] if name not in members else []
        for (split, monitor), names in groups.items():
            who = "Scored" if len(groups) == 1 else f"{', '.join(names)}: scored"
            rows = len(self.source.rows(split))
            yield f"{who} once on {split} ({rows:,} rows), with the weights best on dev by {title(monitor)}."

    def _budget(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        parts = [f"{'Seeds' if len(self.seeds) > 1 else 'Seed'} {seeds} for all"]
        trains = [plan.train for plan in self.contest.plans.values()]
        sizes = {plan.data.model_dump().get("batch_size") for plan in self.contest.plans.values()}
        if len({(train.steps, train.epochs) for train in trains}) == 1:
            steps, epochs = trains[0].steps, trains[0].epochs
            parts.append(f"{steps:,} steps" if steps else f"{epochs:g} epochs")
        if len(sizes) == 1:
            parts.append(f"batches of {sizes.pop()}")
        if self.beside > 1:
            parts.append(f"up to {self.beside} runs at a time, so times and rates are not those of a run alone")
        return f"{'; '.join(parts)}."

    def save(self) -> Standings:
        """Write `compare.json` and `table.md` as of now."""
        found = self.standings()
        with disk_trouble(str(self.out), "the runs are saved"):
            self.out.mkdir(parents=True, exist_ok=True)
            record = {"fingerprint": self.source.fingerprint(), "command": self.command, **found.record()}
            write_json(self.out / RECORD, record)
            (self.out / "table.md").write_text(markdown(found), encoding="utf-8")
        return found

    def report(self, found: Standings) -> Path:
        """Write `report.html`."""
        views = list(self._views())
        folders = [self.job(one, seed).folder for one in self.contestants for seed in self.seeds]
        return write_comparison(self.out, found, views, self.source, command=self.command, folders=folders)

    def _views(self) -> Iterator[View]:
        """Look at the galleries with the first finished run of each contestant."""
        for one in self.contestants:
            jobs = [self.job(one, seed) for seed in self.seeds]
            job = next((job for job in jobs if job.finished() is not None), None)
            if job is None:
                continue
            opened, data = reopen(job, self.source)
            view = look(one.name, opened.model.to(pick_device(job.plan.train.device)), data)
            if view is not None:
                yield view


def gather(
    out: Path,
    data: Data,
    source: Source,
    typed: Sequence[Contestant],
    *,
    seeds: int,
    recipe: Recipe | None = None,
    settings: Mapping[str, str] | None = None,
    command: str = "",
    beside: int = 1,
) -> Comparison:
    """Bring those who are asked for together with those that the folder knows already.

    Args:
        out: the folder of the comparison, new or old.
        data: as it was named.
        source: the same, open.
        typed: who is asked for.
        seeds: how many runs each gets.
        recipe: shared settings by section.
        settings: shared settings over it.
        command: what was typed.
        beside: runs at the same time.

    Raises:
        UserError: for settings that nobody knows, or when the folder holds runs of another set-up.
    """
    known = {one.name: one for one in _remembered(out, source)}
    names = {one.name for one in typed}
    # who is compared with stays the first, unless everybody is named in another order
    start = {} if known.keys() <= names else known
    everybody = tuple({**start, **{one.name: one for one in typed}}.values())
    contest = make_contest(everybody, recipe=recipe, settings=settings)
    numbers = tuple(range(contest.seed, contest.seed + seeds))
    found = Comparison(out, data, source, contest, everybody, frozenset(names), numbers, command, beside)
    found.require_unchanged()
    return found


def _remembered(out: Path, source: Source) -> list[Contestant]:
    """Return who took part before, as long as the folder of the runs is there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give another --out")
    if not (out / RECORD).is_file():
        return []
    old = read_json(out / RECORD)
    if old.get("fingerprint") != source.fingerprint():
        raise UserError(f"{out} compares on other data ({old.get('data')}); give that, or another --out")
    members = [Contestant(one["name"], one["system"], one["settings"]) for one in old["contestants"]]
    return [one for one in members if (out / one.name).is_dir()]
