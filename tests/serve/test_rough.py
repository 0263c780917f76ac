"""Rough handling: thousands of damaged uploads, and whatever the API's own document allows, end in a clear line."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serve.conftest import Running, picture

KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def resident(server: Running) -> float:
    """Return the memory of a server in MiB, by its own metrics."""
    page = server.get("/metrics").text
    return float(re.search(r"^process_resident_memory_bytes (\S+)", page, re.MULTILINE)[1]) / 2**20


def opened(server: Running) -> int:
    """Count the files and sockets that a server holds open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def damaged(rng: np.random.Generator, wholes: list[bytes]) -> bytes:
    """Cut a picture short, change some of its bytes, join two, or make up bytes."""
    data = bytearray(wholes[rng.integers(len(wholes))])
    kind = rng.integers(4)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] = rng.integers(256)
        return bytes(data)
    if kind == 2:
        return bytes(data[: rng.integers(len(data))]) + wholes[rng.integers(len(wholes))][rng.integers(20) :]
    return rng.bytes(rng.integers(0, 4000))


def body(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Wrap an upload as a form whose own frame is damaged now and then."""
    name = ("picture", "pictures", "id", "x\0y")[rng.choice(4, p=[0.85, 0.05, 0.05, 0.05])]
    head = f'--frame\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
    label = b'\r\n--frame\r\nContent-Disposition: form-data; name="labels"\r\n\r\na star\r\n--frame--\r\n'
    whole = bytearray(head + data + label)
    if rng.random() < 0.2:
        whole = whole[: rng.integers(len(whole))]
    if rng.random() < 0.1:
        for place in rng.integers(0, len(whole), 3) if whole else ():
            whole[place] = rng.integers(256)
    return bytes(whole), "multipart/form-data; boundary=" + ("frame" if rng.random() < 0.95 else "other")


def throw(server: Running, rng: np.random.Generator, count: int) -> Counter[int]:
    wholes = [picture("green", size=(90, 70), kind=kind) for kind in KINDS]
    found: Counter[int] = Counter()
    path = server.address + "/api/"
    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(4) as pool:

        def one(content: bytes, kind: str, where: str) -> int:
            answer = client.post(path + where, content=content, headers={"Content-Type": kind})
            if answer.status_code != 200:
                assert list(answer.json()) == ["error"]
                assert "\n" not in answer.json()["error"]
            return answer.status_code

        bodies = (body(rng, damaged(rng, wholes)) for _ in range(count))
        jobs = [pool.submit(one, *pair, ("tags", "search/picture")[number % 2]) for number, pair in enumerate(bodies)]
        found.update(job.result() for job in jobs)
    return found


def test_damaged_uploads_get_a_clear_line_and_the_next_is_served(server):
    found = throw(server, np.random.default_rng(0), 200)
    assert set(found) <= {200, 400, 413, 415, 422}, found
    assert found[415] > 20
    assert httpx.post(server.address + "/api/search/text", json={"text": "a star"}).status_code == 200


@pytest.mark.slow
def test_two_thousand_damaged_uploads_leave_the_memory_as_it_was(begin):
    server = begin()
    rng = np.random.default_rng(1)
    throw(server, rng, 500)  # until pools and caches are full
    before, files = resident(server), opened(server)
    found = throw(server, rng, 2000)
    assert set(found) <= {200, 400, 413, 415, 422}, found
    time.sleep(1)
    assert resident(server) < before + 30, "MiB"
    assert opened(server) < files + 10
    assert server.process.poll() is None


@pytest.mark.slow
def test_nothing_that_the_document_allows_makes_it_fail(server):
    """Ask as schemathesis thinks up, valid and not; no answer may be a 5xx or other than the document says."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as says

    schema = schemathesis.openapi.from_url(server.address + "/openapi.json")
    checks = [not_a_server_error, says.content_type_conformance, says.response_schema_conformance]
    checks.append(says.status_code_conformance)
    asked: Counter[str] = Counter()
    few = settings(
        max_examples=30,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def ask(case):
        asked[case.path] += 1
        case.call_and_validate(checks=checks, timeout=30)

    for found in schema.get_all_operations():
        for mode in schemathesis.GenerationMode:
            try:
                few(given(found.ok().as_strategy(generation_mode=mode))(ask))()
            except Unsatisfiable:  # a call without parameters cannot be made wrongly
                assert not found.ok().body
    assert {"/api/search/text", "/api/search/picture", "/api/tags", "/api/explain", "/api/picture"} <= set(asked)
    assert asked.total() > 250
