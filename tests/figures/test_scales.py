"""Tests of the figure of Adam's scales."""

from typing import Any

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import Stretch, scales_over_training

T = 50
SCALES = {
    "gradient_norm": np.geomspace(1.0, 1e-6, T),
    "step_norm": np.concatenate([[0.0], np.full(T - 1, 0.1)]),  # the warm-up begins at rate 0
    "root_second_moment": np.geomspace(1e-3, 1e-9, T),
    "normalised": np.full(T, 0.5),
    "share_below_epsilon": np.linspace(0, 1, T),
}


def test_every_update_is_a_dot_beside_epsilon_and_the_spikes():
    spikes = [Stretch("train loss up", 10, 14), Stretch("train loss up", 30, 30)]
    figure: Any = scales_over_training(np.arange(T), SCALES, 1e-8, spikes=spikes)
    check_house_rules(figure)
    named = {trace.name: trace for trace in figure.data}
    assert len(named) == 7
    assert named["median √v̂"].y.tolist() == pytest.approx(SCALES["root_second_moment"].tolist())
    assert list(named["ε"].y) == [1e-8, 1e-8]
    assert list(named["spike"].x) == [12, 30]
    assert named["√v̂ below ε"].yaxis == "y2"
    assert np.isnan(named["norm of the step"].y[0])
    assert "2 spikes" in figure.layout.meta["seen"]


def test_without_spikes_none_are_announced():
    figure: Any = scales_over_training(np.arange(T), SCALES, 1e-8)
    assert "spike" not in {trace.name for trace in figure.data}
    assert "Triangles" not in figure.layout.meta["seen"]
