"""Run folders elsewhere: copied to a folder, pushed to a model hub, and found again in the hub's cache."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from diptych.core.errors import UserError
from diptych.core.saved import RECORD, WEIGHTS, read_record

PREFIX = "hf:"
"""Before the name of a model on the hub, where the network may be asked."""

FILES = (WEIGHTS, RECORD, "tokenizer*.json", "README.md", "scores.json", "image_encoder/*", "text_encoder/*")
"""What one needs of a run to use it. Left out are `resume/` (large), and the log and page (they show the data)."""

_NAME = re.compile(r"(?:hf:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@runtime_checkable
class Hub(Protocol):
    """What is asked of a hub; `huggingface_hub.HfApi` offers it."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        """Make a place of that name."""

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> object:
        """Send the files of a folder in one commit."""


def push(run: Path, to: str, *, public: bool = False, message: str = "", hub: Hub | None = None) -> str:
    """Put what one needs of a run where others find it.

    Args:
        run: a finished run folder.
        to: a folder, or `hf:USER/NAME` for the hub; only then the network is used.
        public: whether everybody may see a new place on the hub.
        message: of the commit on the hub.
        hub: to send to; Hugging Face's by default, with the token that `hf auth login` kept.

    Returns:
        What `diptych.load` takes to open it.

    Raises:
        UserError: for a folder that is no finished run, a name that the hub cannot have, or a place that cannot be
            written.
    """
    record = read_record(run)
    if not (run / WEIGHTS).is_file():
        raise UserError(f"{run} has no {WEIGHTS}: only a finished run can be pushed")
    if not to.startswith(PREFIX):
        return _copy(run, Path(to).expanduser())
    named = _NAME.fullmatch(to)
    if named is None or named[2] is not None:
        raise UserError(f"{to!r} is no name on the hub: give hf:USER/NAME")
    try:
        if hub is None:
            from huggingface_hub import HfApi

            hub = HfApi()
        hub.create_repo(named[1], private=not public, exist_ok=True)
        hub.upload_folder(
            repo_id=named[1],
            folder_path=run,
            allow_patterns=list(FILES),
            commit_message=message or f"Push {record['system']} trained with diptych",
        )
    except Exception as error:  # the client lets errors of several network libraries through
        raise UserError(
            f"cannot push to {to}: {_line(error)}; is there a token (hf auth login) and a network?"
        ) from None
    return f"{PREFIX}{named[1]}"


def find_run(run: Path) -> Path:
    """Return the folder of a run that may live on the hub.

    Args:
        run: a folder; `USER/NAME` or `USER/NAME@REVISION` of the hub's cache; with `hf:` before it, what is not in the
            cache is fetched.

    Returns:
        The folder itself, or that in the cache; `run` as it was where nothing has that name.

    Raises:
        UserError: for a name with `hf:` that neither cache nor hub has.
    """
    name = run.as_posix()
    named = _NAME.fullmatch(name)
    if named is None or run.exists():
        return run
    online = name.startswith(PREFIX)
    from huggingface_hub import snapshot_download

    why = ""
    for cached in (True, False) if online else (True,):
        try:
            found = snapshot_download(
                named[1], revision=named[2], allow_patterns=list(FILES), local_files_only=cached, library_name="diptych"
            )
        except Exception as error:  # the client lets errors of several network libraries through
            why = _line(error)
            continue
        if (Path(found) / WEIGHTS).is_file():
            return Path(found)
        why = f"it holds no {WEIGHTS}"
    if online:
        raise UserError(f"no run {name}: neither the hub's cache nor the hub gives it ({why})")
    return run


def _copy(run: Path, to: Path) -> str:
    """Copy to a folder that is new, empty, or holds a run already."""
    if to.resolve() == run.resolve():
        raise UserError(f"{to} is the run itself: name another folder, or hf:USER/NAME for the hub")
    try:
        if to.is_dir() and any(to.iterdir()) and not (to / RECORD).is_file():
            raise UserError(f"{to} holds other files: name a new folder")
        for path in _chosen(run, FILES):
            target = to / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise UserError(f"cannot write {to}: {error.strerror}; name another folder") from None
    return str(to)


def _chosen(run: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(path for path in run.glob(pattern) if path.is_file())


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
