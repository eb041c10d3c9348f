"""What a run ran on: versions, hardware and the commit of the code."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

DISTRIBUTIONS = ("phasescope", "torch", "numpy", "zarr")
TIMEOUT = 5.0  # seconds; a repository on a slow network disk must not hold up training


def describe_environment() -> dict[str, str | int | bool | None]:
    """Versions, hardware and git commit, to be stored with a run.

    Contains no host name, user name or path, so that runs can be published.

    Returns:
        JSON types only. Versions under `python`, `phasescope`, `torch`, `numpy`, `zarr`; `system`,
        `machine`, `processor`; `cpu_cores` (those this process may use), `torch_threads`; `cuda`
        (name of the first device); `commit` and `dirty` (tracked files differ from it) of the
        repository that the working directory lies in. None where there is nothing or it cannot be
        found out.

    Example:
        >>> describe_environment()["torch"] == torch.__version__
        True
    """
    commit, dirty = _git_state()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in DISTRIBUTIONS},
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor_name(),
        "cpu_cores": _cpu_cores(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "commit": commit,
        "dirty": dirty,
    }


@functools.cache
def _version(distribution: str) -> str | None:
    # Not `module.__version__`: importing zarr to ask for its version costs half a second.
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


@functools.cache
def _processor_name() -> str | None:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or None
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or None


def _git_state() -> tuple[str | None, bool | None]:
    # One call tells both: each starts a process.
    status = _output("git", "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = [] if status is None else status.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], any(not line.startswith("#") for line in lines)


def _output(*command: str) -> str | None:
    """Standard output of a command, stripped; None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=TIMEOUT,
            # Without it `git status` may take the index lock and disturb a commit going on.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
