"""The page of `phasescope watch` in a real browser, while another process writes the run."""

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from live.writer import Writer
from phasescope.errors import PhasescopeError
from phasescope.live import Watch, WatchServer


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchServer]:
    with WatchServer(Watch(tmp_path / "run"), _free_port()) as server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(page: Page, expression: str) -> None:
    """Wait for it; the page forbids the evaluation of strings that `wait_for_function` does."""
    for _ in range(2_400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def look(server: WatchServer) -> None:
    while server.poll():
        pass


def test_the_page_follows_a_run(chromium: Browser, watched: WatchServer, tmp_path: Path):
    look(watched)
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(watched.address, timeout=120_000)
    until(page, "document.getElementById('status').textContent === 'waiting'")
    assert page.inner_text("#headline").endswith("run is not there yet")

    def points() -> Any:
        return page.evaluate(
            """() => Object.fromEntries(document.getElementById('metrics-drawing')._fullData
                 .map((trace) => [trace.name, trace.x.length]))"""
        )

    with Writer(tmp_path / "run") as writer:
        writer.train(150)
        look(watched)
        page.wait_for_selector("#metrics-drawing .scatterlayer", timeout=120_000)
        assert points()["loss"] == 149  # a value of the last step may still come
        writer.train(450)
        look(watched)
        until(page, "document.getElementById('headline').textContent.includes('step 599')")
        assert points()["loss"] > 300  # blocks
        assert page.inner_text("#status") == "recording"
        # Ten tensors are drawn as a map, the chosen norms on the chosen axis.
        heat = "document.getElementById('norms-drawing')"
        until(page, f"{heat}._fullData?.[0].type === 'heatmap'")
        assert page.evaluate(f"{heat}._fullData[0].z.length") == 10
        page.select_option("#norms", "norms/weights")
        until(
            page,
            "document.getElementById('norms-heading').textContent.startsWith('Norms of weights')",
        )
        page.select_option("#axis", "log")
        until(page, f"{heat}._fullLayout.xaxis.type === 'log'")
        assert page.locator("#alarms li").count() >= 1
        writer.train(400)
        writer.end()
    for _ in range(600):  # the search for phases is a thread of its own
        look(watched)
        if watched._watch.ended:
            break
        page.wait_for_timeout(50)
    until(page, "document.querySelectorAll('#phases tr').length === 1")
    assert "1.weight x" in page.inner_text("#phases")
    assert page.inner_text("#status") == "complete"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert problems == []
    assert {url.split("?")[0] for url in requests if not url.startswith("data:")} == {
        watched.address + name for name in ("", "plotly.js", "page.js", "state")
    }
    watched.close()
    until(page, "document.getElementById('status').className === 'gone'")
    page.close()


def fetched(address: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_only_this_machine_and_no_page_of_the_web_is_answered(watched: WatchServer):
    status, body, headers = fetched(watched.address)
    assert status == 200
    assert b"<script src=" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert fetched(watched.address + "state", Host="evil.example")[0] == 403
    assert fetched(watched.address + "state", Host=f"localhost:{watched.port}")[0] == 200
    assert fetched(watched.address + "../../etc/passwd")[0] == 404
    assert watched._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_said_or_stepped_over(watched: WatchServer, tmp_path: Path):
    with pytest.raises(PhasescopeError, match=f"port {watched.port} of 127.0.0.1 must be free"):
        WatchServer(Watch(tmp_path), watched.port)
    with WatchServer(Watch(tmp_path)) as first, WatchServer(Watch(tmp_path)) as second:
        assert first.port != second.port


def test_the_name_of_a_run_is_text_on_the_page(tmp_path: Path):
    with WatchServer(Watch(tmp_path / "<b>run")) as server:
        body = fetched(server.address)[1]
    assert b"<h1>&lt;b&gt;run" in body


def test_a_connection_that_was_used_before_is_not_answered_after_the_end(tmp_path: Path):
    server = WatchServer(Watch(tmp_path / "run"))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/state", headers={"Connection": "keep-alive"})
    with connection.getresponse() as answer:
        assert answer.status == 200
        answer.read()
    server.close()
    server.close()
    with pytest.raises(OSError, match="refused"):
        connection.request("GET", "/state")
    connection.close()
