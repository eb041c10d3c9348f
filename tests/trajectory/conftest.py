"""What tests of several processes share."""

import itertools
import multiprocessing
import os
import sys

import pytest


@pytest.fixture(scope="session")
def forks():
    """Where children are forked from: a process that has imported everything and done nothing."""
    if os.name == "nt":
        pytest.skip("processes are forked")
    context = multiprocessing.get_context("forkserver")
    modules = [
        "trajectory.loops",
        "trajectory.passes",
        "trajectory.several",
        "trajectory.shards",
        "torch._dynamo",
    ]
    context.set_forkserver_preload(modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        multiprocessing.forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def together(forks, tmp_path_factory):
    """Run a function in every process of a new group and return what each returned."""
    from trajectory.several import Group

    meetings = tmp_path_factory.mktemp("meetings")
    numbers = itertools.count()

    def start(function, *arguments, size=2):
        meeting = meetings / str(next(numbers))
        with Group(forks, size, function, *arguments, meeting=meeting) as group:
            return group.results()

    return start
