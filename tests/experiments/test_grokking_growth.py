"""Growth of key frequencies: planted laws are told apart, and the null is a logistic."""

import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.experiments.grokking.growth import key_growth

# As they are kept: regular ones, and between them log-spaced ones in larger number.
STEPS = sorted({*range(0, 6001, 100), *np.geomspace(1, 6000, 90).astype(int).tolist()})


def planted():
    """Frequency 1: a logistic; 2: the law with an irrelevant part; 3: nothing grows."""
    t = np.array(STEPS, dtype=float)
    noise = np.random.default_rng(0).standard_normal((3, len(t)))
    logistic = 300 / (1 + np.exp(-(t - 2500) / 300))
    law = ps.balanced_growth(torch.from_numpy(t / 700), s=1.0, w0=0.004, p0=3.0)
    curves = np.stack([logistic, 300 * law.u.square().numpy(), np.zeros(len(t))])
    return (curves + 0.3 * noise).T.tolist()


def test_the_law_is_found_where_it_was_planted_and_its_null_is_a_logistic(unchecked_types):
    growth = key_growth(STEPS, planted(), [2])
    (law,) = growth["fits"]
    assert law["key"] == 2
    assert law["aicc_difference"] > 10
    assert law["null_difference"] < 3
    assert law["rmse_share"] < 0.01
    assert law["logistic_rmse_share"] > 2 * law["rmse_share"]
    assert growth["steps"] == list(range(0, 6001, 100))
    assert len(growth["curves"]["2"]) == 61


@pytest.mark.slow
def test_the_law_is_not_found_where_a_logistic_was_planted():
    (logistic,) = key_growth(STEPS, planted(), [1])["fits"]
    assert logistic["aicc_difference"] < 3


def test_a_curve_is_judged_until_its_largest_value(monkeypatch):
    falling = np.array(planted())
    late = np.array(STEPS) >= 4000
    falling[late, 0] -= np.linspace(0, 200, late.sum())
    judged = []

    def compare(times, values):
        judged.append(times[-1].item())
        fit = ps.FittedGrowth({"decay_share": 0.0, "p0_share": 0.0}, 1.0, 0.0, values.numpy())
        return ps.GrowthComparison(fit, fit, 10.0)

    monkeypatch.setattr(ps, "compare_growth", compare)
    found = key_growth(STEPS, falling.tolist(), [1])["fits"][0]
    assert judged[0] == 4000.0
    assert found["n_points"] == 41


def test_what_does_not_grow_or_has_too_few_points_is_left_out():
    flat = [[0.0, 0.0, 0.0]] * len(STEPS)
    assert key_growth(STEPS, flat, [1, 2, 3])["fits"] == []
    few = [step for step in STEPS if step <= 1000]
    assert key_growth(few, planted()[: len(few)], [1])["fits"] == []
