import getpass
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phasescope.trajectory import environment
from phasescope.trajectory.environment import describe_environment

KEYS = {
    "python",
    "phasescope",
    "torch",
    "numpy",
    "zarr",
    "system",
    "machine",
    "processor",
    "cpu_cores",
    "torch_threads",
    "cuda",
    "commit",
    "dirty",
}


def git(*arguments: str) -> str:
    names = {
        f"GIT_{who}_{what}": "tester@example.org" if what == "EMAIL" else "tester"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    command = ["git", "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, **names})
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, as the working directory."""
    monkeypatch.chdir(tmp_path)
    # A test started from a git hook inherits variables that point to another repository.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message", "first")
    return tmp_path


def test_the_description_has_the_documented_keys_and_survives_json():
    found = describe_environment()
    assert set(found) == KEYS
    assert json.loads(json.dumps(found)) == found


def test_versions_and_threads_are_those_in_use():
    found = describe_environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] == torch.__version__
    assert found["zarr"] == importlib.metadata.version("zarr")
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["system"] == platform.system()
    assert isinstance(found["cpu_cores"], int)
    assert 1 <= found["cpu_cores"] <= (os.cpu_count() or 1)


def test_nothing_names_the_host_the_user_or_a_path(repository: Path):
    values = [str(value) for value in describe_environment().values()]
    assert not any(socket.gethostname() in value for value in values)
    assert not any(os.sep in value for value in values)
    assert getpass.getuser() not in values


def test_the_commit_is_that_of_the_working_directory(repository: Path):
    found = describe_environment()
    assert found["commit"] == git("rev-parse", "HEAD")
    assert found["dirty"] is False


def test_a_changed_tracked_file_makes_it_dirty_and_an_untracked_one_does_not(repository: Path):
    (repository / "new").write_text("untracked")
    assert describe_environment()["dirty"] is False
    (repository / "file").write_text("two")
    assert describe_environment()["dirty"] is True


@pytest.fixture
def no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("GIT_DIR", raising=False)


@pytest.mark.usefixtures("no_repository")
def test_without_a_repository_there_is_no_commit():
    found = describe_environment()
    assert (found["commit"], found["dirty"]) == (None, None)


@pytest.mark.usefixtures("no_repository")
def test_a_repository_without_commits_has_no_commit():
    git("init", "--quiet")
    assert describe_environment()["commit"] is None


def test_without_git_there_is_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(repository))
    assert describe_environment()["commit"] is None


def test_a_git_that_hangs_is_given_up(repository: Path, monkeypatch: pytest.MonkeyPatch):
    if os.name == "nt":
        pytest.skip("the stand-in for git is a shell script")
    stand_in = repository / "git"
    stand_in.write_text("#!/bin/sh\nexec sleep 20\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(repository), prepend=os.pathsep)
    monkeypatch.setattr(environment, "TIMEOUT", 0.2)
    assert describe_environment()["commit"] is None


def test_a_distribution_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "DISTRIBUTIONS", ("no-such-distribution",))
    assert describe_environment()["no-such-distribution"] is None
