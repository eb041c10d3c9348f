"""The table of docs/gradient_spectrum.md is what results/gradient_spectrum.json says."""

import json
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER = (
    "| setting | seeds | above 5% | above 10% | above 15% | held-out residual, 300 steps | test "
    "accuracy |"
)
MODELS = {"mlp": "MLP", "convnet": "CNN"}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
RATES = {0.01: ".01", 0.1: ".1", 0.001: "1e-3"}


def table_of(results):
    """Means over seeds of 400 randomly sampled steps, a row for each setting of the grid."""
    settings = defaultdict(list)
    for run in results["settings"]["runs"]:
        c = run["config"]
        key = (c["model"], c["optimizer"], c["learning_rate"], c["batch_size"])
        settings[key].append(run["numbers"])
    order = sorted(settings, key=lambda k: (k[0] != "mlp", k[1] != "sgd", k[2], k[3]))
    return [
        row(f"{MODELS[m]}, {OPTIMIZERS[o]} {RATES[lr]}, batch {b}", settings[m, o, lr, b])
        for m, o, lr, b in order
    ]


def row(title, runs):
    samples = [sample for run in runs for sample in run["samples"]["400"]["random"]]
    counts = [statistics.mean(s["counts"][i] for s in samples) for i in range(3)]
    null = statistics.mean(s["null_counts"][1] for s in samples)
    residual = statistics.mean(
        point["median"]
        for run in runs
        for point in run["residuals"]
        if point["curve"] == "random steps held out" and point["n_sampled"] == 300
    )
    accuracy = statistics.mean(run["test_accuracy"] for run in runs)
    cells = [
        title,
        len(runs),
        f"{counts[0]:.0f}",
        f"{counts[1]:.0f} ({null:.0f})",
        f"{counts[2]:.0f}",
        f"{residual:.2f}".removeprefix("0"),
        f"{accuracy:.3f}".removeprefix("0"),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / "results" / "gradient_spectrum.json").read_text(encoding="utf-8"))


def test_the_table_of_the_page_is_that_of_the_results(results):
    page = (ROOT / "docs" / "gradient_spectrum.md").read_text(encoding="utf-8")
    lines = page.split(HEADER)[1].splitlines()[2:]
    shown = lines[: lines.index("")]
    assert shown == table_of(results)
