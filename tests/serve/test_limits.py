"""Every limit answers with its own status and one clear line of JSON; nothing but the index's pictures comes out."""

import asyncio
import io
import struct
import zlib

import httpx
import pytest
from PIL import Image

from diptych.core.errors import UserError
from diptych.serve.settings import ServeSettings, hosts_for
from tests.serve.conftest import picture


def refused(answer, status, *words):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    line = answer.json()["error"]
    assert "\n" not in line
    for word in words:
        assert word in line, line


def bomb(width: int, height: int) -> bytes:
    """Make a PNG whose header promises more pixels than its few bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def tags(client, data):
    return client.post("/api/tags", files={"picture": data}, data={"labels": ["a star"]})


def test_a_large_body_is_refused_by_its_header_and_as_it_comes(make):
    client = make(max_mb=0.01)
    refused(tags(client, b"x" * 20_000), 413, "0.01 MB")

    def pieces():
        for _ in range(20):
            yield b"x" * 1000

    refused(client.post("/api/search/text", content=pieces()), 413, "0.01 MB")


@pytest.mark.parametrize("size", [(30_000, 30_000), (2000, 1000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(make, size):
    refused(tags(make(max_pixels=1_000_000), bomb(*size)), 413, "1,000,000")


@pytest.mark.parametrize(
    "data",
    [b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)
def test_what_is_no_picture_is_not_read(client, data):
    refused(tags(client, data), 415, "JPEG")


def test_an_empty_and_a_cut_picture_are_told_apart(client):
    refused(tags(client, b""), 422, "empty")
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, "PNG")
    refused(tags(client, buffer.getvalue()[:5000]), 422, "cut short")


def test_texts_have_a_length(make):
    client = make(max_text=20, max_labels=2, max_results=20)
    search = "/api/search/text"
    refused(client.post(search, json={"text": "a" * 21}), 422, "21", "20")
    refused(client.post(search, json={"text": "  "}), 422, "empty")
    refused(client.post(search, json={"text": "a", "k": 21}), 422, "k=21", "20")
    refused(client.post(search, json={"text": "a", "k": 0}), 422, "k:")
    refused(client.post(search, json={"txt": "a"}), 422, "text:")
    refused(client.post(search, json={"text": "a", "more": 1}), 422, "more:")
    refused(client.post(search, content=b'{"text": "\\ud800"}'), 422)
    refused(client.post(search, content=b"{"), 422)
    refused(client.post("/api/tags", files={"picture": picture()}, data={"labels": ["a", "b", "c"]}), 422, "3 labels")
    refused(client.post("/api/tags", data={"labels": ["a"]}), 422, "one picture")
    both = client.post("/api/tags", files={"picture": picture()}, data={"id": "photos/001.png", "labels": ["a"]})
    refused(both, 422, "one picture")


def test_a_filter_in_a_form_must_be_one(client):
    for where in ("[1]", "{", '{"a": {"b": 1}}', "[" * 100_000, '"x"'):
        answer = client.post("/api/search/picture", files={"picture": picture()}, data={"where": where})
        refused(answer, 422, "where")


def test_a_token_opens_the_api_and_nothing_else_does(make):
    client = make(token="open sesame")
    for path in (
        "/api/about",
        "/metrics",
        "/api/picture?id=photos/001.png",
        "/nothing",
        "//api/about",
        "/docs/../api/about",
    ):
        answer = client.get(path)
        refused(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/", "/docs", "/openapi.json", "/health/live", "/health/ready"):
        assert client.get(path).status_code == 200, path
    for wrong in ("Bearer open", "Bearer open sesame2", "open", "Basic open sesame"):
        assert client.get("/api/about", headers={"Authorization": wrong}).status_code == 401
    assert client.get("/api/about", headers={"Authorization": "Bearer open sesame"}).status_code == 200


@pytest.mark.parametrize(
    "key",
    ["../captions.csv", "/etc/passwd", "photos/../captions.csv", "..\\..", "photos/001.png\0", "%2e%2e/x", "photos"],
)
def test_only_pictures_of_the_index_come_out(client, key):
    refused(client.get("/api/picture", params={"id": key}), 404, "no picture")
    refused(client.post("/api/search/id", json={"id": key}), 404, "no picture")


@pytest.mark.parametrize("path", ["../app.py", "..%2fapp.py", "%2e%2e/settings.py", "/etc/passwd", "..%5capp.py"])
def test_the_pages_files_end_at_their_folder(client, path):
    assert client.get(f"/static/{path}").status_code == 404


def test_a_picture_that_is_gone_is_told_and_still_found(make, table, tmp_path):
    client = make()
    client.app.state.engine.collection._data = str(tmp_path)  # as if the pictures had been moved away
    found = client.post("/api/search/text", json={"text": "a star", "k": 1}).json()["results"][0]
    assert found["picture"] is None
    refused(client.get("/api/picture", params={"id": found["id"]}), 404, "not where it was")


def in_app(make, ask, **settings):
    """Ask the app from within its event loop, several questions at a time."""
    client = make(**settings)

    async def run():
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as asked:
            return await ask(asked, client.app.state.engine)

    return client.portal.call(run)


async def _many(asked, engine):
    real = engine.predictor.embed_text
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(texts):
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        return real(texts)

    engine.predictor.embed_text = slow
    try:
        jobs = [asyncio.create_task(asked.post("/api/search/text", json={"text": "a"})) for _ in range(6)]
        await asyncio.sleep(0.2)
        health = await asked.get("/health/live")
        held.set()
        return [health, *await asyncio.gather(*jobs)]
    finally:
        engine.predictor.embed_text = real


def test_too_many_at_once_are_told_to_come_back(make):
    health, *answers = in_app(make, _many, waiting=4)
    assert health.status_code == 200
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 2
    late = next(answer for answer in answers if answer.status_code == 503)
    refused(late, 503, "4 requests")
    assert int(late.headers["retry-after"]) > 0
    _, *answers = in_app(make, _many, per_client=3)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 3
    refused(next(answer for answer in answers if answer.status_code == 429), 429, "3 requests of yours")


async def _slow(asked, engine):
    real = engine.predictor.embed_text
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    engine.predictor.embed_text = lambda texts: (
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(),
        real(texts),
    )[1]
    try:
        first = await asked.post("/api/search/text", json={"text": "a"})
        release.set()
        return first, await asked.post("/api/search/text", json={"text": "a"})
    finally:
        engine.predictor.embed_text = real


def test_a_request_that_takes_too_long_is_told_so_and_the_next_is_served(make):
    first, second = in_app(make, _slow, seconds=2.5)
    refused(first, 504, "2.5 seconds")
    assert second.status_code == 200


def test_a_fault_of_our_own_is_one_line_too(make, predictor, monkeypatch):
    monkeypatch.setattr(predictor, "embed_text", lambda texts: 1 / 0)
    refused(make().post("/api/search/text", json={"text": "a"}), 500, "the log tells")


def test_a_server_of_this_machine_is_called_by_its_own_names(make):
    client = make(hosts=hosts_for("127.0.0.1", ["photos.example"]))
    assert client.get("/health/live", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/health/live", headers={"Host": "[::1]:8000"}).status_code == 200
    assert client.get("/health/live", headers={"Host": "Photos.example"}).status_code == 200
    refused(client.get("/api/about", headers={"Host": "evil.example:8000"}), 421, "not called so")
    assert hosts_for("0.0.0.0", []) == ("*",)


def test_every_answer_says_what_the_page_may_load(client):
    for path in ("/", "/api/about", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert len(headers["x-request-id"]) == 16


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="seconds='0' is not valid"):
        ServeSettings.parse({"seconds": "0"})
    assert "secret" not in repr(ServeSettings(token="secret"))
