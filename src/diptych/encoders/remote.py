"""The Hugging Face hub, asked once and briefly: what its cache has is used, and without a network nobody waits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PATIENCE = 10  # seconds for the one question whether the hub knows a name


def hub_file(name: str, file: str) -> Path | None:
    """Return a small file of a repository on the hub, from the cache where it is there.

    Returns:
        Its path; None when the repository has no such file or cannot be asked.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(name, file, local_files_only=True))
    except HFValidationError:
        return None
    except (EntryNotFoundError, OSError):
        files, _ = hub_listing(name)
    try:
        return Path(hf_hub_download(name, file)) if file in files else None
    except (EntryNotFoundError, OSError):
        return None


@cache
def hub_listing(name: str) -> tuple[frozenset[str], str]:
    """Ask which files a repository on the hub has.

    Returns:
        Their names, and an empty string; or nothing, and why.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, timeout=_PATIENCE)
    except Exception as error:  # each release of the client lets another network library's errors through
        return frozenset(), (str(error).strip().splitlines() or [type(error).__name__])[0]
    return frozenset(part.rfilename for part in found.siblings or ()), ""
