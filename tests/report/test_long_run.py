"""A report of 25,000 epochs in a real browser: its size, and how soon it can be used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasescope.figures import (
    NetworkFrame,
    Stretch,
    grokking_curves,
    measures_over_training,
    network_over_training,
)
from phasescope.report import write_report

N, P = 25_000, 113
MOST_BYTES, MOST_SECONDS = 15e6, 3.0


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of a run of the published size, from synthetic curves."""
    generator, t = np.random.default_rng(0), np.arange(N + 1)
    noise = 10 ** (0.1 * generator.normal(size=N + 1))
    grown = 1 / (1 + np.exp((t - 11_000) / 600))
    losses = {
        "train": 3 * np.exp(-t / 150) + 1e-7 * noise,
        "test": 10 ** (8 * grown - 6.5) * noise,
    }
    spikes = range(12_000, N, 900)
    for start in spikes:
        losses["train"][start : start + 40] *= 30
    phases = [Stretch("memorisation", 0, 1400), Stretch("clean-up", 9400, 14_000)]
    a, b = np.meshgrid(np.arange(P), np.arange(P))
    power = np.full(P // 2, 2 / P)
    frames = [
        NetworkFrame(
            int(step),
            power,
            power,
            np.exp(-np.arange(P) / 50),
            generator.uniform(size=512),
            np.cos(2 * np.pi * 14 * (a + b) / P) + generator.normal(size=(P, P)),
            generator.uniform(size=(P, P)),
        )
        for step in np.linspace(0, N, 24)
    ]
    kept = t[::100]
    figures = {
        "curves": grokking_curves(
            t,
            losses,
            {"train": 1 - grown, "test": 1 - grown},
            phases=phases,
            spikes=[Stretch("train loss up", start, start + 40) for start in spikes],
        ),
        "network": network_over_training(frames, steps=t, losses=losses),
        "measures": measures_over_training(
            kept, {"loss (nats)": {"test": losses["test"][kept]}}, phases=phases
        ),
    }
    return write_report(
        tmp_path_factory.mktemp("long") / "report.html",
        title="25,000 epochs",
        summary="Synthetic.",
        claims=[],
        figures=figures,
        config={},
        environment={},
        numbers={},
    )


def test_it_is_small(long_run: Path):
    assert long_run.stat().st_size <= MOST_BYTES


@pytest.mark.slow
def test_every_epoch_is_a_dot(open_report: Callable[..., Any], long_run: Path):
    n_dots = open_report(long_run).page.evaluate(
        """() => [...document.querySelectorAll('.drawing')].map((gd) =>
             gd._fullData.filter((t) => t.type === 'scattergl').map((t) => t._length))"""
    )
    assert n_dots[0][:2] == [N, N]
    assert n_dots[1][:2] == [N, N]


@pytest.mark.slow
def test_the_slider_moves_all_views_at_once(open_report: Callable[..., Any], long_run: Path):
    opened = open_report(long_run)
    found = opened.page.evaluate(
        """async () => {
             const gd = document.querySelectorAll('.drawing')[1];
             const {method, args} = gd.layout.sliders[0].steps[3];
             await Plotly[method](gd, ...args);
             const shown = gd._fullData.filter((t) => t.visible === true);
             return [shown.length, shown[shown.length - 1].x[0]];
           }"""
    )
    assert found == [9, int(np.linspace(0, N, 24)[3])]
    assert opened.problems == []


@pytest.mark.slow
def test_it_can_be_used_within_three_seconds(chromium: Any, long_run: Path):
    """On a machine with nothing else to do: seconds until the first figure answers."""
    seconds = []
    for _ in range(3):
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.add_init_script(
            """new MutationObserver(() => {
                 if (!window.usable && document.querySelector('.drawing[data-state=live]'))
                   window.usable = performance.now();
               }).observe(document, {subtree: true, childList: true, attributes: true});"""
        )
        page.goto(long_run.as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-drawn=true]", state="attached")
        seconds.append(page.evaluate("window.usable") / 1000)
        page.close()
    assert min(seconds) <= MOST_SECONDS
