"""A run is followed while another process writes, kills, resumes and ends it."""

import hashlib
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import phasescope as ps
from live.writer import CHECKPOINT, Writer
from phasescope.live import RunTail, Watch, document
from phasescope.trajectory import series as series_module


def settle(watch: Watch) -> None:
    """Look until nothing more is to be had and no search is under way."""
    while watch.poll() or watch._search.busy:
        threading.Event().wait(0.01)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shown(watch: Watch, path: Path) -> None:
    """What is shown is what is committed: nothing twice, nothing left out."""
    run = ps.open_run(path)
    for name, blocks in watch.metrics.items():
        series = run[f"metrics/{name}"]
        assert blocks.last_step == series.steps[-1]
        assert sum(blocks._rows) == len(series)
        assert blocks._sums.sum() == pytest.approx(float(np.nansum(series[:])), rel=1e-5)
    for name, norms in watch.norms.items():
        assert norms.names == run[name].labels
        np.testing.assert_allclose(norms.blocks._sums.sum(0), run[name][:].sum(0), rtol=1e-5)


def test_a_run_is_followed_from_before_it_begins_until_after_it_was_resumed(tmp_path: Path):
    path = tmp_path / "run"
    watch = Watch(path)
    assert not watch.poll()
    assert (watch.status, watch.run) == ("waiting", None)
    assert document(watch)["headline"].endswith("is not there yet")
    with Writer(path) as writer:
        writer.train(10)
        settle(watch)
        assert watch.status == "recording"
        assert watch.last_step == 9
        shown(watch, path)
        before = digests(path)
        settle(watch)
        assert digests(path) == before  # looking changes nothing
        writer.train(240)
        settle(watch)
        assert (watch.last_step, watch.rewinds) == (249, 0)
        shown(watch, path)
        writer.kill()
    # With other random numbers, and farther than it was when it was killed before one looks again.
    with Writer(path, seed=1) as writer:
        writer.train(100)
        assert 2 * CHECKPOINT + 100 > 250
        settle(watch)
        assert (watch.last_step, watch.rewinds) == (299, 1)
        shown(watch, path)
        assert any("went back" in line for line in document(watch)["remarks"])
        writer.train(700)
        writer.end()
    settle(watch)
    shown(watch, path)
    assert watch.status == "complete"
    assert watch.ended
    assert watch.rewinds == 1
    content = document(watch)
    (phase,) = [row for row in content["phases"] if row[0] == "loss"]
    assert 280 < float(phase[2].split()[0]) < 320
    assert phase[-1].startswith("1.weight x")
    fell = [item.alarm for item in watch.alarms if item.metric == "loss"]
    assert fell
    assert 200 <= fell[0].step <= 350
    assert {item.alarm.direction for item in watch.alarms if item.metric == "loss"} == {"down"}


def test_a_rollback_that_is_seen_before_it_has_caught_up(tmp_path: Path):
    path = tmp_path / "run"
    watch = Watch(path)
    with Writer(path) as writer:
        writer.train(190)
        settle(watch)
        writer.kill()
    with Writer(path, seed=1) as writer:
        writer.train(5)
        settle(watch)
        assert (watch.last_step, watch.rewinds) == (CHECKPOINT + 4, 1)
        shown(watch, path)


def test_only_new_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run"
    read: list[int] = []
    fill = series_module._fill

    def counted(file: object, view: memoryview, where: Path) -> None:
        read.append(view.nbytes)
        fill(file, view, where)

    monkeypatch.setattr(series_module, "_fill", counted)
    tail = RunTail(path)
    with Writer(path) as writer:
        writer.train(290)
        while tail.poll().more:
            pass
        whole = sum(read)
        read.clear()
        assert not tail.poll().changed
        assert read == []
        writer.train(3)
        news = tail.poll()
        assert {rows.name: len(rows.steps) for rows in news.rows} == {
            "metrics/loss": 3,
            "metrics/noise": 3,
            **{f"norms/{name}": 3 for name in ("decay", "gradients", "updates", "weights")},
        }
        # Four rows of every array: the last known one is looked at again.
        assert sum(read) == 4 * (2 * 8 + 4 * 10 * 4)
        # A metric of the last step may still come, so its row is not committed.
        assert whole == 289 * 2 * 8 + 290 * 4 * 10 * 4


def test_nothing_leaks_between_looks(tmp_path: Path):
    path = tmp_path / "run"
    watch = Watch(path)
    with Writer(path) as writer:
        writer.train(400)
        settle(watch)
        tracemalloc.start()
        sizes, threads = [], []
        for _ in range(6):
            writer.train(20)
            for _ in range(50):
                watch.poll()
            settle(watch)
            sizes.append(tracemalloc.get_traced_memory()[0])
            threads.append(threading.active_count())
        tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 200_000
    assert len(set(threads)) == 1


def test_a_silent_run_says_so(tmp_path: Path):
    now = [0.0]
    watch = Watch(tmp_path / "run", clock=lambda: now[0])
    with Writer(tmp_path / "run") as writer:
        writer.train(40)
        watch.poll()
        assert watch.status == "recording"
        now[0] = 10.0
        writer.train(20)
        watch.poll()
        assert watch.rate == pytest.approx(2.0)
        assert "of 1,000; 2 steps per second; about 8 min to go" in document(watch)["headline"]
        writer.kill()
    now[0] = 100.0
    watch.poll()
    assert watch.status == "silent"
    assert "nothing new for 90 s" in document(watch)["headline"]


def test_what_is_no_run_is_said_and_waited_for(tmp_path: Path):
    watch = Watch(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    watch.poll()
    assert watch.why.endswith("holds no run.json yet")
    with Writer(tmp_path / "below") as writer:
        writer.train(1)
        watch.poll()
        assert f"below it are the runs {tmp_path / 'below'}" in watch.why
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "trajectory.zarr").mkdir()
    (tmp_path / "trajectory.zarr" / "zarr.json").write_text("{}")
    watch.poll()
    assert "this is not a phasescope run" in watch.why
    assert watch.status == "waiting"


def test_a_run_that_is_deleted_is_forgotten(tmp_path: Path):
    import shutil

    path = tmp_path / "run"
    watch = Watch(path)
    with Writer(path) as writer:
        writer.train(40)
        settle(watch)
        writer.end()
    shutil.rmtree(path)
    settle(watch)
    assert (watch.status, watch.metrics, watch.last_step) == ("waiting", {}, -1)
    with Writer(path, seed=2) as writer:
        writer.train(20)
        settle(watch)
        assert watch.last_step == 19
        shown(watch, path)
