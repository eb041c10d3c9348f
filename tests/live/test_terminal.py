import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from live.writer import Writer
from phasescope.cli import main
from phasescope.live import Watch, watch_in_terminal
from phasescope.live.terminal import sparkline


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_run_is_shown_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TERM", "xterm")
    path = tmp_path / "run"
    lines, screen = io.StringIO(), Terminal()
    with Writer(path) as writer:
        todo = [lambda: writer.train(1_000), writer.end]

        def work_on(seconds: float) -> None:
            if todo:
                todo.pop(0)()

        watch_in_terminal(Watch(path), file=lines, sleep=work_on)
    said = [line.split(" ", 1)[1] for line in lines.getvalue().splitlines()]
    assert said[0].endswith("is not there yet")
    assert "recording at step 999 of 1,000" in said
    assert "complete at step 999 of 1,000" in said
    assert any(line.startswith("loss has been going down, off its forecast") for line in said)
    assert any(line.startswith("phase of loss: 2") and "1.weight" in line for line in said)
    watch_in_terminal(Watch(path), file=screen)
    shown = screen.getvalue()
    for text in ("complete at step 999", "loss", "noise", "norm of updates", "1.weight", "█"):
        assert text in shown


def test_sparklines_are_means_over_logarithmic_time():
    steps = np.arange(1_000.0)
    assert sparkline(steps, np.full(1_000, np.nan)) == ""
    bars = sparkline(steps, np.log1p(steps), width=8)
    assert bars.replace(" ", "") == "".join(sorted(bars.replace(" ", "")))
    assert (bars[0], bars[-1]) == ("▁", "█")


def test_what_cannot_be_watched_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("x")
    assert main(["watch", str(tmp_path / "file")]) == 1
    assert "needs the directory of a run, but" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--every", "0"]) == 1
    assert "positive number of seconds" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_the_watching_and_leaves_the_run(tmp_path: Path):
    command = [sys.executable, "-m", "phasescope.cli", "watch", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        assert p.stdout
        assert p.stderr
        assert "watch it at http://127.0.0.1:" in p.stdout.readline()
        p.send_signal(signal.SIGINT)
        assert p.stdout.read() == "watching ended; the run is left as it is\n"
        assert p.stderr.read() == ""
        assert p.wait(60) == 0
