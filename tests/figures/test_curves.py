"""Tests of the figures of quantities over steps."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import metrics_over_time, norms_over_time, training_curves

STEPS = np.arange(5)


def test_every_norm_of_every_tensor_is_a_dot_on_a_logarithmic_axis():
    norms = np.random.default_rng(0).lognormal(size=(5, 2))
    figure = norms_over_time(STEPS, norms, ["fc.weight", "fc.bias<b>"])
    check_house_rules(figure)
    assert figure.layout.yaxis.type == "log"
    assert [trace.name for trace in figure.data] == ["fc.weight", "fc.bias&lt;b&gt;"]
    for i, trace in enumerate(figure.data):
        assert trace.mode == "markers"
        np.testing.assert_array_equal(trace.y, norms[:, i])


def test_norms_that_a_logarithmic_axis_cannot_show_are_counted_in_the_caption():
    norms = np.array([[1.0], [0.0], [np.nan], [np.inf], [2.0]])
    figure = norms_over_time(STEPS, norms, ["w"])
    assert np.isfinite(figure.data[0].y).tolist() == [True, False, False, False, True]
    assert "3 of 5 points cannot be drawn" in figure.layout.meta["seen"]


def test_more_tensors_than_colours_get_colours_by_order():
    figure = norms_over_time(STEPS, np.ones((5, 20)), [str(i) for i in range(20)])
    assert len({trace.marker.color for trace in figure.data}) == 20


def test_a_tensor_without_a_name_is_refused():
    with pytest.raises(ValueError, match="norms has 2 columns and there are 1 names"):
        norms_over_time(STEPS, np.ones((5, 2)), ["a"])


def test_training_loss_is_drawn_for_every_step_and_accuracy_where_it_was_evaluated():
    loss = np.array([2.3, 1.0, np.nan, 0.5, 0.25], dtype=np.float32)
    figure = training_curves(STEPS, loss, np.array([0, 5]), np.array([0.1, 0.9]))
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    np.testing.assert_array_equal(drawn["training loss"].y, loss)
    assert drawn["training loss"].mode == "markers"
    assert drawn["test accuracy"].x.tolist() == [0, 5]
    assert "1 of 5 points cannot be drawn" in figure.layout.meta["seen"]


def test_figures_without_a_drawable_point_are_empty_and_say_so():
    figure = norms_over_time(STEPS, np.zeros((5, 1)), ["w"])
    assert "5 of 5 points cannot be drawn" in figure.layout.meta["seen"]


def test_every_metric_has_a_panel_and_every_value_a_dot():
    steps = np.arange(5)
    metrics = {"loss": (steps, np.ones(5)), "lr<b>": (steps[::2], np.zeros(3))}
    figure = metrics_over_time(metrics)
    assert [len(trace.y) for trace in figure.data] == [5, 3]
    assert "<b>" not in figure.data[1].name
    assert "loss 5, lr<b> 3" in figure.layout.meta["seen"]
    with pytest.raises(ValueError, match="at least one metric, but got none"):
        metrics_over_time({})
