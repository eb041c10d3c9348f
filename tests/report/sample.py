"""A report with known numbers and hostile strings, for the tests that open it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plotly.graph_objects import Figure

import phasescope.figures as drawn
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import norm_null, spectrum
from phasescope.report import Claim, write_report

N_STEPS = 300
HOSTILE = (
    '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script><!-- &lt; %{x}'
)


def claim(**changes: Any) -> Claim:
    plain: dict[str, Any] = {
        "id": "A1",
        "statement": "92.5 singular values exceed 10% of the largest",
        "source": "the post",
        "rule": "the 95% interval meets [80.9, 104.1]",
        "value": 91.25,
        "interval": (84.0, 97.5),
        "unit": "singular values",
        "null": "norm null: 93.2",
        "n_seeds": 10,
        "verdict": "reproduced",
        "sentence": 'Reproduced, "and so is" the null,\nwhich says more.',
    }
    return Claim(**(plain | changes))


CLAIMS = (
    claim(),
    claim(id="A2", verdict="refuted"),
    claim(id="A3", verdict="inconclusive", n_seeds=7),
    claim(id="A4", verdict="answered"),
    claim(id="A5", verdict="not tested", value=None, interval=None, n_seeds=0),
)
CONFIG = {"optimizer": {"name": "SGD", "lr": 0.1}, "hidden": [128], "clip": float("inf")}
NUMBERS = {"counts": {"MLP": np.array([90, 93])}, "loss": [0.5, float("nan")]}


@cache
def figures(name: str = "fc.weight") -> dict[str, Figure]:
    """One of every kind; `name` goes wherever the caller can name something."""
    generator = np.random.default_rng(0)
    steps = np.arange(N_STEPS)
    A = generator.standard_normal((N_STEPS, 400)) * np.exp(-steps / 100)[:, None]
    observed = spectrum(gram(torch.from_numpy(A)))
    n = np.array([25, 50, 100])
    curve = drawn.ResidualCurve(name, n, np.exp(-n / 90), np.exp(-n / 80), np.exp(-n / 120))
    counts = generator.integers(80, 100, (10, 3))
    settings = (f"MLP, SGD 0.1, batch 64{name}", "CNN, Adam 0.001, batch 64")
    rows = [drawn.SettingCounts(setting, counts[:, 0], counts[:, 1]) for setting in settings]
    norms = generator.lognormal(size=(N_STEPS, 3))
    return {
        "scree": drawn.scree(observed, norm_null(observed)),
        f"residuals {name}": drawn.residual_curve([curve], [curve]),
        "time": drawn.time_vectors(observed, k=3),
        "norms": drawn.norms_over_time(steps, norms, [name, "fc.bias", "a, b"]),
        "counts": drawn.counts_by_setting(rows),
        "dropped": drawn.counts_against_dropped_steps(np.array([0, 10, 50]), counts, counts + 3),
        "training": drawn.training_curves(steps, norms[:, 0], n, np.exp(-1 / n)),
    }


def write(path: Path, **changes: Any) -> Path:
    parts: dict[str, Any] = {
        "title": "Gradient spectrum",
        "summary": "Every gradient was recorded.",
        "claims": CLAIMS,
        "config": CONFIG,
        "environment": {"torch": "2.13.0"},
        "numbers": NUMBERS,
    }
    parts |= changes
    if "figures" not in parts:
        parts["figures"] = figures()
    return write_report(path, **parts)
