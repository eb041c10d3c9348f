"""B13 for grokking: planted growth rates of waves, of their readers and of other frequencies."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from phasescope.analysis.grokking import fourier_basis
from phasescope.experiments import grokking
from phasescope.experiments.grokking.carriers import carrier_claim, carriers, movement
from phasescope.experiments.grokking.figures import figures
from phasescope.models import PairTransformer

P, KEY = 7, 2
CONFIG = replace(grokking.DEFAULT, p=P, d_model=6, n_heads=1, d_mlp=4, weights_every=10)
STEPS = [0, 5, *range(10, 110, 10)]  # one of them is not evenly spaced
EVENTS = {"circuit formation": 10, "clean-up": 40, "grokked": 48}
# Growth per interval, during circuit formation and behind the grok.
RATES = {"carrier": (0.2, 0.05), "reader": (0.1, 0.1), "matched": (0.3, 0.15), "far": (3.0, 0.1)}


def grown(name: str, step: int) -> float:
    before, behind = RATES[name]
    return math.prod(1 + (before if t < 40 else behind) for t in range(0, step, 10))


def network(step: int) -> PairTransformer:
    """Two columns for each frequency; the neurons read the key, through equal attention."""
    basis = fourier_basis((P,))
    model = PairTransformer(P, d_model=6, n_heads=1, d_mlp=4)
    size = {1: grown("far", step), KEY: grown("carrier", step), 3: grown("matched", step)}
    waves = {k: basis.rows[basis.rows_of([k])].T.float() for k in size}
    named = {name: torch.zeros_like(w) for name, w in model.state_dict().items()}
    turns = torch.tensor([0.0, 0.8, 1.6, 2.4])
    reading = torch.stack([turns.cos(), turns.sin()])
    named["embed.W_E"][:P] = torch.cat([size[k] * waves[k] for k in size], 1)
    named["blocks.0.attn.W_V"][0] = named["blocks.0.attn.W_O"][0] = torch.eye(6)
    named["blocks.0.mlp.W_in"][2:4] = grown("reader", step) * reading
    model.load_state_dict(named)
    return model


def kept(name: str) -> float:
    return math.log2(RATES[name][1] / RATES[name][0])


def test_planted_rates_are_found_again():
    found = carriers(CONFIG, STEPS, network, [KEY], EVENTS)
    assert found is not None
    json.dumps(found, allow_nan=False)
    assert found["steps"] == list(range(0, 100, 10))
    row = found["kept"][str(KEY)]
    # The frequency that grew most like the key, not the first one.
    assert row["matched_frequency"] == 3
    for name in ("carrier", "reader", "matched"):
        assert row[name] == pytest.approx(kept(name), abs=1e-4)
    assert found["movement"]["carrier"][0] == pytest.approx(0.2, rel=1e-5)


def test_without_a_grok_or_readers_nothing_is_compared():
    assert carriers(CONFIG, STEPS, network, [KEY], EVENTS | {"grokked": None}) is None
    assert carriers(CONFIG, STEPS, network, [KEY], EVENTS | {"grokked": 90}) is None
    assert carriers(CONFIG, STEPS, network, [1], EVENTS) is None  # no neuron reads it
    every = list(range(1, CONFIG.p // 2 + 1))
    assert carriers(CONFIG, STEPS, network, every, EVENTS) is None  # none is left to compare with
    assert carriers(replace(CONFIG, n_layers=2), STEPS, network, [KEY], EVENTS) is None


def test_movement_is_relative_to_the_earlier_weights():
    parts = torch.tensor([[[3.0, 4.0]], [[3.0, 5.0]], [[0.0, 5.0]]], dtype=torch.float64)
    assert movement(parts)[:, 0].tolist() == pytest.approx([0.2, 3 / math.sqrt(34)])


def planted(n_seeds: int, *, reader: float, matched: float, **changes: Any):
    return [
        grokking.Results(
            replace(grokking.DEFAULT, seed=seed, **changes),
            {
                "carriers": {
                    "kept": {
                        str(key): {
                            "carrier": -1.0,
                            "reader": -1 + reader + 0.01 * (seed % 3),
                            "matched": -1 + matched + 0.01 * (seed % 2),
                        }
                        for key in (3, 8)
                    }
                }
            },
        )
        for seed in range(n_seeds)
    ]


@pytest.mark.parametrize(
    ("reader", "matched", "verdict"),
    [
        (0.5, 0.5, "reproduced"),
        (-0.5, 0.5, "refuted"),
        (0.5, -0.5, "refuted"),  # no carrier stops more than another frequency does
        (0.5, 0.095, "inconclusive"),
    ],
)
def test_planted_movement_gets_its_verdict(reader: float, matched: float, verdict: str):
    runs = planted(10, reader=reader, matched=matched)
    if verdict == "inconclusive":
        for seed, run in enumerate(runs):
            for row in run.numbers["carriers"]["kept"].values():
                row["matched"] += (-1) ** seed * 0.5
    found = carrier_claim(runs)
    assert (found.id, found.verdict) == ("B13", verdict)
    assert found.value == pytest.approx(reader + 0.009)


def test_runs_without_a_grok_count_nowhere_and_too_few_give_no_verdict():
    silent = grokking.Results(grokking.DEFAULT, {"carriers": None})
    assert carrier_claim([silent]).verdict == "not tested"
    assert carrier_claim(planted(9, reader=0.5, matched=0.5)).verdict == "inconclusive"
    many = [*planted(4, reader=-1, matched=-1, p=23), *planted(10, reader=0.5, matched=0.5)]
    assert carrier_claim(many).verdict == "reproduced"


@pytest.mark.parametrize("changes", [{"operation": "multiply"}, {"weights_every": 100}])
def test_the_rule_is_of_addition_and_of_its_own_interval(changes: dict[str, Any]):
    others = planted(12, reader=-1, matched=-1, **changes)
    assert carrier_claim(others).verdict == "not tested"
    assert carrier_claim([*others, *planted(10, reader=0.5, matched=0.5)]).verdict == "reproduced"


def test_a_run_says_whether_its_carriers_were_followed(tmp_path: Path):
    result = grokking.run(grokking.SMOKE, tmp_path / "run")
    assert result.numbers["carriers"] is None  # it is too short to grok


def test_the_movement_is_drawn_over_the_seeds():
    runs = planted(2, reader=0.5, matched=0.5)
    for run in runs:
        run.numbers["carriers"] |= {
            "steps": [0, 50],
            "movement": {"carrier": [0.1, 0.2], "reader": [0.3, 0.4], "matched": [0.5, 0.6]},
        }
    drawn = figures(runs)["carriers and readers"]
    named = {trace.name: trace for trace in drawn.data}
    assert set(named) >= {"carriers", "readers", "other frequencies, seed 1"}
    assert named["readers"].y.tolist() == [0.3, 0.4]
