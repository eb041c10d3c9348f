import os

import pytest

from phasescope.trajectory.files import write_atomic


@pytest.mark.parametrize("failing", ["replace", "write"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    if failing == "replace":

        def full_disk(*ignored):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="disk full"):
            write_atomic(path, "new")
    else:
        with pytest.raises(TypeError):
            write_atomic(path, 5)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_with_its_own_line_ends_and_folders_are_made(tmp_path):
    write_atomic(str(tmp_path / "a" / "b.txt"), "ä\n\r\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä\n\r\n".encode()


def test_a_reader_that_holds_the_file_open_on_windows_is_waited_for(tmp_path, monkeypatch):
    original, calls = os.replace, []

    def held(*paths):
        calls.append(1)
        if len(calls) < 3:
            raise PermissionError
        original(*paths)

    monkeypatch.setattr(os, "replace", held)
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    calls.clear()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(PermissionError))
    with pytest.raises(PermissionError):
        write_atomic(tmp_path / "a", b"newer")
    assert os.listdir(tmp_path) == ["a"]
