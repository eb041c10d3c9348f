"""The table of docs/s_curves.md is what results/s_curves.json says."""

import json
import statistics
from pathlib import Path

import pytest

from phasescope.experiments.s_curves import Config, setting

ROOT = Path(__file__).parents[2]
HEADER = (
    "| setting | S-ratio | number of S's | steps to 1% | bumps | taken by another (control) | end |"
)


def row(run):
    """Medians over seeds of S-ratio, steps and end, means of counts, shares of all bumps."""
    values = {
        name: [v for v in numbers if v is not None]
        for name, numbers in run["numbers"]["per_seed"].items()
    }
    bumps = sum(values["bumps"])
    taken = "–"
    if values.get("contested") and bumps:
        shares = [sum(values[name]) / bumps for name in ("contested", "contested_null")]
        taken = f"{shares[0]:.2f} ({shares[1]:.2f})"
    n_seeds = len(run["numbers"]["per_seed"]["t1"])
    reached = len(values["t1"])
    steps = f"{statistics.median(values['t1']):.0f}" if reached > n_seeds / 2 else "–"
    if reached < n_seeds and steps != "–":
        steps += f" ({reached} of {n_seeds})"
    cells = (
        setting(Config(**run["config"])),
        f"{statistics.median(values['s_ratio']):.3g}",
        f"{statistics.mean(values['n_rises']):.2g}",
        steps,
        f"{statistics.mean(values['bumps']):.3g}",
        taken,
        f"{statistics.median(values['end']):.1e}",
    )
    return "| " + " | ".join(cells) + " |"


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / "results" / "s_curves.json").read_text(encoding="utf-8"))


def test_the_table_of_the_page_is_that_of_the_results(results):
    page = (ROOT / "docs" / "s_curves.md").read_text(encoding="utf-8")
    lines = page.split(HEADER)[1].splitlines()[2:]
    assert lines[: lines.index("")] == [row(run) for run in results["settings"]["runs"]]


def test_the_page_tells_the_verdicts_of_the_results(results):
    page = (ROOT / "docs" / "s_curves.md").read_text(encoding="utf-8")
    for claim in results["claims"]:
        assert f"**{claim['id']}** ({claim['verdict']})" in page
