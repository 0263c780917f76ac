"""The server as a process: it starts, logs, stops when told to, and says what is wrong when it cannot start."""

import json
import signal
import socket
import threading
import time

import httpx
import pytest

from tests.serve.conftest import picture


def test_it_serves_logs_and_ends_well_on_sigterm(begin):
    server = begin("--max-mb", "1")
    assert "60 pictures" in server.said
    assert httpx.post(server.address + "/api/search/text", json={"text": "a star"}).status_code == 200
    late = httpx.post(server.address + "/api/tags", files={"picture": b"x" * 1_500_000}, data={"labels": ["a"]})
    assert (late.status_code, "1 MB" in late.json()["error"]) == (413, True)
    assert httpx.get(server.address + "/api/about", headers={"Host": "evil.example"}).status_code == 421
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(timeout=20)
    err = server.log.read_text(encoding="utf-8")
    assert status == 0, err
    lines = [json.loads(line) for line in err.splitlines()]
    asked = next(line for line in lines if line.get("path") == "/api/search/text")
    assert (asked["event"], asked["status"], asked["method"]) == ("request", 200, "POST")
    assert "a star" not in err, "what people look for is not logged"
    with pytest.raises(httpx.TransportError):
        server.get("/health/live")


def test_a_signal_in_the_instant_after_it_says_that_it_serves(begin):
    server = begin(ready=False)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0, server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_what_it_has_begun_it_finishes(begin, told):
    server = begin()
    found = []

    def ask(number):
        data = {"text": f"{number} stars", "method": "occlusion"}
        found.append(httpx.post(server.address + "/api/explain", files={"picture": picture()}, data=data, timeout=60))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for _ in range(200):  # until all are in work
        page = server.get("/metrics").text
        if float(page.split("\ndiptych_requests_active ")[1].split()[0]) >= 10 or found:
            break
        time.sleep(0.02)
    server.process.send_signal(told)
    for thread in threads:
        thread.join()
    assert server.process.wait(timeout=20) == 0
    assert [answer.status_code for answer in found] == [200] * 12


def test_a_port_in_use_a_wrong_index_and_no_run_are_one_line(cli, run_folder, index_folder, tmp_path):
    def refused(*words):
        status, _, err = cli("serve", *words)
        assert status == 2
        assert err.startswith("diptych: ")
        return err.strip().splitlines()[-1]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in refused(run_folder, "--index", index_folder, "--port", port)
    assert "nowhere" in refused(run_folder, "--host", "nowhere.invalid", "--port", 0)
    assert "index" in refused(run_folder, "--index", tmp_path / "none")
    assert "no" in refused(tmp_path / "none")
    assert "seconds" in refused(run_folder, "--seconds", "0")
