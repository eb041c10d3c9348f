"""The page of a watched run, served to this machine only."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

import jinja2
from markupsafe import Markup

from phasescope.errors import PhasescopeError
from phasescope.live.document import document
from phasescope.live.watch import Watch
from phasescope.report.html import page_style, plotly_script

HOST = "127.0.0.1"
PORT = 8650
_TRIED = 20
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class WatchServer:
    """Serves the page of a watched run on 127.0.0.1 until it is closed.

    The page loads nothing from anywhere else and asks for news every two seconds. Requests under
    another name than 127.0.0.1 or localhost are refused, so that no page of the web can read it.

    Args:
        watch: The run; `poll` looks at it.
        port: Where; by default 8650, or the next that is free.

    Raises:
        PhasescopeError: The port that was asked for is in use, or may not be used.

    Example:
        >>> import urllib.request
        >>> with WatchServer(Watch("no/such/run")) as server:
        ...     server.poll()
        ...     with urllib.request.urlopen(server.address + "state") as answer:
        ...         state = json.load(answer)
        False
        >>> state["status"], state["headline"].startswith("waiting: ")
        ('waiting', True)
    """

    def __init__(self, watch: Watch, port: int | None = None) -> None:
        self._watch = watch
        # The watch is looked at by this thread and shown by those of the server.
        self._lock = threading.Lock()
        self._texts = {
            "/": ("text/html", _page(watch.path.name)),
            "/page.js": ("text/javascript", _resource("page.js")),
            "/plotly.js": ("text/javascript", plotly_script()),
        }
        self._shown: tuple[tuple[int, str, str], bytes] | None = None
        self._server = _bound(port)
        self._server.owner = self
        self.port: int = self._server.server_address[1]
        self.address = f"http://{HOST}:{self.port}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    def poll(self) -> bool:
        """Look at the run; whether there may be more to read at once."""
        with self._lock:
            return self._watch.poll()

    def close(self) -> None:
        """Stop serving; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def __enter__(self) -> WatchServer:
        """The server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.close()

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, type and body of the answer to a request."""
        if path in self._texts:
            kind, text = self._texts[path]
            return 200, kind, text.encode()
        if path != "/state":
            return 404, "text/plain", b"there is only the page of one run here: /\n"
        norms = query.get("norms", "")
        with self._lock:
            # Silence and rate change by themselves.
            state = (self._watch.version, self._watch.status, norms)
            key = "-".join((str(id(self)), *map(str, state)))
            if query.get("version") == key:
                return 204, "application/json", b""
            if self._shown is None or self._shown[0] != state:
                content = document(self._watch, norms or None) | {"key": key}
                self._shown = state, json.dumps(content, allow_nan=False).encode()
            return 200, "application/json", self._shown[1]


class _Server(ThreadingHTTPServer):
    # On Windows reuse would let two servers have one port.
    allow_reuse_address = os.name != "nt"
    daemon_threads = True
    owner: WatchServer


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    # A connection that is kept alive would be answered after the server has been closed.
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        """Answer one request."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        if name not in (HOST, "localhost"):
            self._send(403, "text/plain", b"only 127.0.0.1 and localhost are served\n")
            return
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self._send(*self.server.owner.answer(parts.path, query))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the reader has closed the page
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing about requests."""


def _bound(port: int | None) -> _Server:
    candidates = [port] if port is not None else [*range(PORT, PORT + _TRIED), 0]
    failure: Exception | None = None
    for candidate in candidates:
        try:
            return _Server((HOST, candidate), _Handler)
        except (OSError, OverflowError) as error:
            failure = error
    advice = "Leave --port out and the next free one is taken."
    raise PhasescopeError(
        f"port {port} of {HOST} must be free to serve the page, but it is not ({failure}). {advice}"
    )


def _page(name: str) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_resource("page.html.jinja"))
    return template.render(name=name, style=Markup(page_style()))


def _resource(name: str) -> str:
    return files("phasescope.live").joinpath(name).read_text(encoding="utf-8")
