"""The decision rules of D1-D7 on planted seeds."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import phasescope as ps
from phasescope.experiments import monosemanticity as experiment
from phasescope.experiments.monosemanticity import features, losses, neurons
from phasescope.experiments.monosemanticity.config import (
    DECIDING,
    FEW_POWER_RATES,
    LONG,
    LONG_POWER,
    SKIPS,
    TOP_K,
)
from phasescope.experiments.monosemanticity.evidence import Evidence
from phasescope.experiments.monosemanticity.losses import FAST, PLAIN, START

RULES = {rule.id: rule for part in (losses, features, neurons) for rule in part.RULES}
DEFAULTS = {
    "loss": 0.034, "mono_90": 0.1, "mono_999": 0.01, "covered": 0.1, "ignored": 0.0, "dead": 0.0,
    "bias_mono": -0.13, "bias_poly": 0.03, "silent_share": 0.0, "with_gradient": 0.9,
    "t_half": 100.0, "t_tenth": 700.0, "rank_auc": 0.5, "late_gain": 0.01, "new_rank": 0.0,
    "late_loss": -0.05, "moved": 0.1, "turned": 0.0,
}  # fmt: skip
GOOD = {
    FAST: {"mono_90": 0.65, "loss": 0.039},
    START: {"mono_90": 0.6, "covered": 0.6, "loss": 0.0295},
    LONG_POWER: {"late_gain": 0.08, "new_rank": 9.0, "rank_auc": 0.8},
}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """The planted differences are large: a rough interval tells them as well."""
    monkeypatch.setattr(ps, "interval", partial(ps.interval, n_resamples=200))


def planted(changes=None, n_seeds=128):
    """All deciding points as if they had come out so; `changes` maps points to other values."""
    generator = np.random.default_rng(0)
    changes = GOOD if changes is None else changes
    runs = []
    for config in DECIDING:
        points = []
        for point in config.points:
            values = DEFAULTS | changes.get(point, {})
            per_seed = {
                name: (value + 1e-3 * generator.standard_normal(n_seeds)).tolist()
                for name, value in values.items()
            }
            steps = [config.record_steps[i] for i in config.annealed]
            # All fall alike, from ten times the last loss to it: some pair of records matches.
            loss = values["loss"] * np.geomspace(10, 1, len(steps))
            mono = np.full(len(steps), values["mono_90"])
            points.append(
                {
                    "per_seed": per_seed,
                    "annealed": {
                        "steps": steps,
                        "loss": np.tile(loss, (n_seeds, 1)).tolist(),
                        "mono_90": (mono + 0.01 * generator.random((n_seeds, 1))).tolist(),
                    },
                    "by_feature": {"mono": [0.5] * 64, "ignored": [0.0] * 64},
                }
            )
        runs.append(experiment.Results(replace(config, n_seeds=n_seeds), {"points": points}))
    return runs


def verdict(name, runs):
    return RULES[name].claim(Evidence(runs)).verdict


def test_losses_are_compared_where_they_are_equal():
    """At a loss that both have; a setting that is only further trained is not ahead there."""
    runs = planted()
    evidence = Evidence(runs)
    found = evidence.matched(PLAIN, FAST)
    assert len(found) == 128
    assert found.mean() == pytest.approx(0.55, abs=0.01)
    assert abs(evidence.matched(PLAIN, PLAIN, shift=1).mean()) < 0.01
    apart = GOOD | {FAST: {"mono_90": 0.65, "loss": 3.4}}
    assert np.isnan(Evidence(planted(apart)).matched(PLAIN, FAST)).all()


def test_the_pair_of_equal_losses_is_the_latest_one():
    runs = planted()
    steps = runs[0].numbers["points"][1]["annealed"]["steps"]
    for point in runs[0].numbers["points"]:
        annealed = point["annealed"]
        annealed["loss"] = [[10.0**-i for i in range(len(steps))]] * 128
        annealed["mono_90"] = [[float(i) for i in range(len(steps))]] * 128
    runs[0].numbers["points"][3]["annealed"]["loss"] = [
        [10.0**-i * (1.01 if i < 10 else 2.0) for i in range(len(steps))]
    ] * 128
    runs[0].numbers["points"][3]["annealed"]["mono_90"] = [[9.5] * len(steps)] * 128
    np.testing.assert_allclose(Evidence(runs).matched(PLAIN, FAST), 0.5)


def test_d1_needs_both_pairs_at_equal_loss():
    assert verdict("D1", planted()) == "reproduced"
    assert verdict("D1", planted(GOOD | {START: {"mono_90": 0.15}})) == "refuted"
    apart = GOOD | {FAST: {"mono_90": 0.65, "loss": 3.4}}
    claim = RULES["D1"].claim(Evidence(planted(apart)))
    assert claim.verdict == "not tested"
    assert verdict("D1", planted(n_seeds=99)) == "inconclusive"


def test_d2_needs_biases_of_both_signs_and_no_cost():
    assert verdict("D2", planted()) == "reproduced"
    assert verdict("D2", planted(GOOD | {PLAIN: {"bias_poly": -0.03}})) == "refuted"
    costly = GOOD | {START: GOOD[START] | {"loss": 0.037}}
    assert verdict("D2", planted(costly)) == "refuted"
    within = GOOD | {START: GOOD[START] | {"loss": 0.0344, "covered": 0.4}}
    assert verdict("D2", planted(within)) == "refuted"


def test_d3_is_refuted_where_one_setting_has_one_kind_only():
    assert verdict("D3", planted()) == "reproduced"
    slow = FEW_POWER_RATES.points[0]
    assert verdict("D3", planted(GOOD | {slow: {"covered": 0.0}})) == "refuted"
    assert verdict("D3", planted(GOOD | {slow: {"covered": 0.97}})) == "refuted"
    assert verdict("D3", planted(GOOD | {slow: {"covered": 0.05}})) == "inconclusive"


def test_d5_needs_the_largest_late_gain_and_rarer_features():
    assert verdict("D5", planted()) == "reproduced"
    late = GOOD | {LONG: {"late_gain": 0.2}}
    assert verdict("D5", planted(late)) == "refuted"
    frequent = GOOD | {LONG_POWER: {"late_gain": 0.08, "new_rank": -5.0}}
    assert verdict("D5", planted(frequent)) == "refuted"


def test_questions_are_answered_with_their_numbers():
    changes = GOOD | {
        START: {"silent_share": 0.07, "t_half": 400.0},
        SKIPS["quantile"]: {"t_half": 80.0},
        TOP_K: {"mono_90": 0.5},
    }
    found = {claim.id: claim for claim in experiment.claims(planted(changes))}
    assert list(found) == list(experiment.CLAIM_IDS)
    assert {found[i].verdict for i in ("D4", "D6", "D7")} == {"answered"}
    assert found["D4"].value == pytest.approx(0.8, abs=0.01)
    assert found["D6"].value == pytest.approx(0.07, abs=0.01)
    assert "quantile: 320" in found["D6"].sentence
    assert found["D7"].value == pytest.approx(0.4, abs=0.01)


def test_a_setting_that_is_missing_is_named():
    runs = [run for run in planted() if run.config.skip != "max"]
    claim = RULES["D6"].claim(Evidence(runs))
    assert claim.verdict == "not tested"
    assert "skip max" in claim.sentence
    other = [replace(run, config=replace(run.config, batch_size=64)) for run in planted()]
    assert RULES["D1"].claim(Evidence(other)).verdict == "not tested"
