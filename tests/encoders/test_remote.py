"""The hub: its cache first, one question then, and no waiting without a network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from diptych.encoders.remote import hub_file, hub_listing


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    hub_listing.cache_clear()


def hub(monkeypatch: pytest.MonkeyPatch, *, cached: set[str], there: set[str] | None) -> list[str]:
    """Put a hub in the place of the real one; `there` is None without a network."""
    asked: list[str] = []

    def download(name: str, file: str, local_files_only: bool = False) -> str:
        asked.append(f"{file} {'cache' if local_files_only else 'hub'}")
        if file in cached or (not local_files_only and there is not None and file in there):
            return f"/cache/{name}/{file}"
        raise LocalEntryNotFoundError("not cached")

    def info(self: object, name: str, timeout: float) -> SimpleNamespace:
        asked.append("listing")
        if there is None:
            raise ConnectionError("Name or service not known\nand more")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in sorted(there)])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    return asked


def test_what_is_cached_is_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch, cached={"modules.json"}, there={"modules.json"})
    assert hub_file("owner/name", "modules.json") == Path("/cache/owner/name/modules.json")
    assert asked == ["modules.json cache"]


def test_what_is_on_the_hub_is_fetched_and_what_is_not_is_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch, cached=set(), there={"tokenizer_config.json"})
    assert hub_file("owner/name", "tokenizer_config.json") == Path("/cache/owner/name/tokenizer_config.json")
    assert hub_file("owner/name", "modules.json") is None
    assert asked == ["tokenizer_config.json cache", "listing", "tokenizer_config.json hub", "modules.json cache"]


def test_without_a_network_one_question_is_enough(monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch, cached=set(), there=None)
    assert hub_file("owner/name", "a.json") is None
    assert hub_file("owner/name", "b.json") is None
    assert asked.count("listing") == 1
    assert hub_listing("owner/name") == (frozenset(), "Name or service not known")
