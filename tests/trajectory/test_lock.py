import subprocess
import sys

import pytest

from phasescope.errors import RunError
from phasescope.trajectory.lock import RunLock


def test_a_lock_is_exclusive_within_a_process_and_can_be_taken_again_after_release(tmp_path):
    first = RunLock(tmp_path)
    with pytest.raises(RunError, match=r"another Recorder of this process. Close it first"):
        RunLock(tmp_path)
    first.release()
    first.release()  # a second release does nothing
    RunLock(tmp_path).release()


def test_two_directories_are_locked_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    locks = [RunLock(tmp_path / "a"), RunLock(tmp_path / "b")]
    for lock in locks:
        lock.release()


def test_a_link_to_a_locked_directory_is_the_same_directory(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    lock = RunLock(tmp_path / "real")
    with pytest.raises(RunError, match="another Recorder"):
        RunLock(tmp_path / "link")
    lock.release()


def test_another_live_process_is_refused_by_the_number_of_the_owner(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from phasescope.trajectory.lock import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout.readline().strip() == b"held"
        with pytest.raises(RunError, match=rf"process \(process {owner.pid}\)\. Wait for it, stop"):
            RunLock(tmp_path)
        # A refused attempt neither breaks the lock nor hides its owner from the next one.
        with pytest.raises(RunError, match=str(owner.pid)):
            RunLock(tmp_path)
        owner.stdin.close()
        owner.wait()
    RunLock(tmp_path).release()


def test_a_file_of_that_name_that_is_no_lock_is_left_alone(tmp_path):
    (tmp_path / "lock").write_text("my notes")
    with pytest.raises(RunError, match=r"was made by something else .*my notes"):
        RunLock(tmp_path)
    assert (tmp_path / "lock").read_text() == "my notes"


def test_the_lock_file_of_a_dead_process_is_not_in_the_way(tmp_path):
    (tmp_path / "lock").write_text("process 1\n")
    lock = RunLock(tmp_path)
    assert "process 1\n" not in (tmp_path / "lock").read_text()
    lock.release()
