"""Tests of the figures of ensembles."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import (
    SeedCurves,
    SettingValues,
    alignment_over_training,
    seed_curves,
    values_by_setting,
)

STEPS = np.arange(6)


def test_every_seed_is_a_line_with_gaps_between_and_the_medians_are_medians():
    losses = np.exp(-np.outer([1.0, 2.0, 3.0], STEPS)) * 7
    theory = np.exp(-np.outer([1.0, 2.0, 3.0], STEPS[::2]))
    panels = [
        SeedCurves("rank 1", STEPS, losses, STEPS[::2], theory),
        SeedCurves("b", STEPS, losses),
    ]
    figure = seed_curves(panels, floor=1e-9)
    check_house_rules(figure)
    seeds = figure.data[0]
    assert len(seeds.y) == 3 * 7
    assert np.isnan(seeds.y[6::7]).all()
    np.testing.assert_allclose(seeds.y[:6], np.exp(-1.0 * STEPS), rtol=1e-6)
    np.testing.assert_allclose(figure.data[1].y, np.exp(-2.0 * STEPS))
    np.testing.assert_allclose(figure.data[2].y, np.exp(-2.0 * STEPS[::2]))
    assert [trace.showlegend for trace in figure.data] == [True, True, True, False, False]


def test_losses_that_cannot_be_drawn_are_gaps():
    losses = np.array([[1.0, np.nan, 0.0, np.inf, 0.5, 0.1]])
    drawn = seed_curves([SeedCurves("a", STEPS, losses)]).data[0].y
    assert np.isfinite(drawn).tolist() == [True, False, False, False, True, True, False]


def test_the_slider_shows_one_step_at_a_time():
    maps = np.random.default_rng(0).random((4, 3, 2))
    figure = alignment_over_training(STEPS[:4], maps)
    check_house_rules(figure)
    assert [trace.visible for trace in figure.data] == [False, False, False, True]
    step = figure.layout.sliders[0].steps[1]
    assert step.label == "1"
    assert step.args[0]["visible"] == [False, True, False, False]
    np.testing.assert_allclose(figure.data[1].z, maps[1], rtol=1e-6)


def test_values_are_drawn_with_their_interval_and_those_that_are_missing_are_not():
    rows = [
        SettingValues("rank 1, SGD", np.array([1.0, 2.0, np.nan, 0.0]), 1.5, (0.5, 1.9)),
        SettingValues("rank <2>", np.array([np.nan]), np.nan),
    ]
    figure = values_by_setting(
        rows,
        title="S-ratio of seeds",
        axis="ratio",
        computed="So computed.",
        misleads="When it misleads.",
        log=True,
        null=1.0,
        null_name="an exponential",
    )
    check_house_rules(figure)
    assert sorted(figure.data[0].x) == [1.0, 2.0]
    assert figure.data[1].x[0] == 1.5
    np.testing.assert_allclose(figure.data[1].error_x.array[0], 0.4)
    np.testing.assert_allclose(figure.data[1].error_x.arrayminus[0], 1.0)
    assert "rank &lt;2&gt;" in figure.layout.yaxis.ticktext[1]


def test_what_is_wrong_is_said(unchecked_types):
    with pytest.raises(ValueError, match="at least one panel"):
        seed_curves([])
    with pytest.raises(ValueError, match="3 matrices and 2 steps"):
        alignment_over_training(STEPS[:2], np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match="at least one row"):
        values_by_setting([], title="", axis="", computed="", misleads="")
