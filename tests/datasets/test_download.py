import gzip
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasescope.datasets.download import (
    DataFile,
    cache_directory,
    fetch,
    find_file,
    read_checked,
)
from phasescope.errors import DataError

CONTENT = bytes(range(256)) * 40
FILE = DataFile("numbers.bin", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


def mirror(directory: Path, content: bytes | None) -> str:
    """Address of a folder that serves `content` as the compressed file."""
    directory.mkdir()
    if content is not None:
        (directory / "numbers.bin.gz").write_bytes(content)
    return directory.as_uri() + "/"


def test_cache_directory_is_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PHASESCOPE_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/phasescope"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, ".cache/phasescope"),
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/phasescope"),
        ("darwin", {}, "Library/Caches/phasescope"),
        ("win32", {}, "AppData/Local/phasescope"),
        ("win32", {"LOCALAPPDATA": "{home}/local"}, "local/phasescope"),
    ],
)
def test_cache_directory_is_the_one_of_the_platform(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    variables: dict[str, str],
    expected: str,
):
    for name in ("PHASESCOPE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_directory() == tmp_path / expected


def test_a_plain_file_is_preferred_to_a_compressed_one(tmp_path: Path):
    assert find_file(FILE, tmp_path) is None
    (tmp_path / "numbers.bin.gz").write_bytes(b"")
    assert find_file(FILE, tmp_path) == tmp_path / "numbers.bin.gz"
    (tmp_path / "numbers.bin").write_bytes(b"")
    assert find_file(FILE, tmp_path) == tmp_path / "numbers.bin"


@pytest.mark.parametrize("level", [1, 9])
def test_the_sum_is_that_of_the_content_however_it_was_compressed(tmp_path: Path, level: int):
    path = tmp_path / "numbers.bin.gz"
    path.write_bytes(gzip.compress(CONTENT, level))
    assert read_checked(path, FILE) == CONTENT


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("numbers.bin", CONTENT[:-1], r"10,240 bytes uncompressed .* holds 10,239: it is cut off"),
        ("numbers.bin", CONTENT + b"x", "holds more than 10,240"),
        ("numbers.bin", CONTENT[:-1] + b"x", "damaged or another file of the same size"),
        (
            "numbers.bin.gz",
            gzip.compress(CONTENT, mtime=0)[:-20],
            r"cannot be read as gzip .* good copy",
        ),
        ("numbers.bin.gz", b"not gzip at all", "cannot be read as gzip"),
        ("numbers.bin.gz", gzip.compress(CONTENT * 1000, mtime=0), "holds more than 10,240"),
    ],
)
def test_a_file_with_other_content_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_checked(path, FILE)


def test_a_missing_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_checked(tmp_path / "numbers.bin", FILE)


def test_fetch_takes_the_first_mirror_that_has_the_right_file(tmp_path: Path):
    mirrors = [
        mirror(tmp_path / "empty", None),
        mirror(tmp_path / "cut", gzip.compress(CONTENT)[:-20]),
        mirror(tmp_path / "other", gzip.compress(CONTENT[::-1])),
        mirror(tmp_path / "page", b"<html>Sign in to this network</html>"),
        mirror(tmp_path / "good", gzip.compress(CONTENT)),
    ]
    cache = tmp_path / "new" / "cache"
    assert fetch([FILE], mirrors, cache) == cache
    assert read_checked(cache / "numbers.bin.gz", FILE) == CONTENT
    assert [path.name for path in cache.iterdir()] == ["numbers.bin.gz"]


def test_fetch_leaves_alone_what_is_there(tmp_path: Path):
    (tmp_path / "numbers.bin").write_bytes(CONTENT)
    fetch([FILE], [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.bin"]


def test_a_failed_fetch_says_what_was_tried_and_leaves_nothing(tmp_path: Path):
    mirrors = [mirror(tmp_path / "empty", None), mirror(tmp_path / "page", b"<html></html>")]
    cache = tmp_path / "cache"
    with pytest.raises(DataError) as caught:
        fetch([FILE], mirrors, cache)
    first, tried_empty, tried_page = str(caught.value).splitlines()
    assert first == f"numbers.bin could not be downloaded into {cache}. Tried:"
    assert mirrors[0] in tried_empty
    assert "No such file" in tried_empty
    assert mirrors[1] in tried_page
    assert tried_page.endswith("the answer is not the file (cut off, damaged or another)")
    assert list(cache.iterdir()) == []


def test_fetch_without_mirrors_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="no mirror is known"):
        fetch([FILE], [], tmp_path)


def test_a_cache_that_cannot_be_written_is_a_data_error(tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    good = mirror(tmp_path / "good", gzip.compress(CONTENT))
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch([FILE], [good], tmp_path / "cache")


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves the file under /good/, half of it under /cut/, never under /hang/, else 404."""

    def do_GET(self) -> None:
        body = gzip.compress(CONTENT)
        kind = self.path.split("/")[1]
        if kind == "hang":
            threading.Event().wait(1.0)
            return
        if kind not in ("good", "cut"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if kind == "good" else body[: len(body) // 2])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server on this machine, asked directly whatever proxy is configured."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_fetch_over_http_outlives_errors_cuts_and_silence(tmp_path: Path, server: str):
    mirrors = [f"{server}/{kind}/" for kind in ("missing", "cut", "hang", "good")]
    fetch([FILE], mirrors, tmp_path, timeout=0.3)
    assert read_checked(tmp_path / "numbers.bin.gz", FILE) == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.bin.gz"]


def test_a_failed_fetch_over_http_names_every_reason(tmp_path: Path, server: str):
    with pytest.raises(DataError, match=r"(?s)/missing/numbers.bin.gz: .*404.*/hang/.*timed out"):
        fetch([FILE], [f"{server}/missing/", f"{server}/hang/"], tmp_path, timeout=0.3)
