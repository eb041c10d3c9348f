"""The rules of decision of the grokking claims, on planted numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phasescope.experiments import grokking

N_SEEDS = 10


def planted(n_seeds: int = N_SEEDS, **effects: float) -> list[grokking.Results]:
    """Runs whose grokking times differ by the factors given for each activation and operation."""
    settings: dict[str, dict[str, Any]] = {
        name: {"activation": name}
        for name in ("relu", "gelu", "gelu_new", "gelu_fast", "silu", "solu_ln")
    }
    settings |= {name: {"operation": name} for name in ("subtract", "multiply")}
    settings |= {"slow": {"learning_rate": 5e-4}, "fast": {"learning_rate": 5e-3}}
    generator = np.random.default_rng(0)
    runs = []
    for seed in range(n_seeds):
        base = 2000 * 2 ** generator.normal(0, 0.5)  # seeds vary together: pairing removes it
        for name, fields in settings.items():
            config = replace(grokking.DEFAULT, seed=seed, **fields)
            time = base * effects.get(name, 1.0) * 2 ** generator.normal(0, 0.05)
            peaks = list(range(40 if name == "slow" else 5))
            empty = {"peak": [], "drift": None, "drift_control": None}
            up = {"peak": peaks, "drift": 0.2 + 0.01 * seed, "drift_control": -0.1}
            numbers = {
                "times": {"grokked": int(time), "memorised": int(time / 10)},
                "final_measures": {"cube_fve": 0.95 + 0.001 * seed},
                "other_basis": {"cube_fve": 0.02},
                "untrained": {"cube_fve": 1e-4},
                "spikes": {"train_loss_up": up, "train_loss_down": empty},
                "falling_share": 0.9 + 0.001 * seed,
            }
            runs.append(grokking.Results(config, numbers))
    return runs


def verdicts(runs: list[grokking.Results]) -> dict[str, str]:
    found = {claim.id: claim.verdict for claim in grokking.claims(runs)}
    return {id: verdict for id, verdict in found.items() if id.startswith("C")}


def test_planted_effects_get_their_verdicts():
    found = verdicts(planted(gelu=0.3, silu=0.8, solu_ln=4.0, subtract=1.5, multiply=1.4))
    assert found == {
        "C1": "reproduced",
        "C2": "refuted",
        "C4": "reproduced",
        "C8": "reproduced",
        "C9": "reproduced",  # both stay at 1 where GELU is at .3
        "C10": "reproduced",
        "C11": "refuted",  # memorisation shrinks with the rest
        "C16": "reproduced",
        "C17": "reproduced",
        "C20": "answered",
    }


def test_equal_times_refute_what_says_they_differ():
    found = verdicts(planted())
    for id in ("C4", "C8", "C9", "C10"):
        assert found[id] == "refuted"
    assert verdicts(planted(gelu=0.5, silu=1.5))["C8"] == "refuted"
    assert verdicts(planted(silu=1.5))["C11"] == "reproduced"


@pytest.mark.parametrize(("n_seeds", "most"), [(9, "inconclusive"), (4, "not tested")])
def test_too_few_seeds_give_no_verdict(n_seeds: int, most: str):
    found = verdicts(planted(n_seeds, gelu=0.3, silu=0.8))
    assert set(found.values()) == {most}


def test_without_runs_nothing_is_tested():
    found = grokking.claims([])
    assert {claim.verdict for claim in found} == {"not tested"}
    assert [claim.id for claim in found] == list(grokking.CLAIM_IDS)
    assert all(claim.rule for claim in found)


def test_the_noise_floor_stands_beside_every_comparison_of_times():
    beside = {claim.id: claim.null for claim in grokking.claims(planted())}
    for id in ("C4", "C8", "C9", "C10", "C11"):
        assert beside[id].startswith("GELU-new against GELU-fast: ")
        assert "not run" not in beside[id]
