import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.analysis.phases import Moment, Phase
from phasescope.analysis.spikes import find_spikes
from phasescope.figures import (
    Stretch,
    grokking_curves,
    measures_over_training,
    scales_over_training,
)

STEPS = np.arange(25)


def test_every_step_of_both_losses_is_a_dot_on_logarithmic_axes():
    losses = {"train": np.logspace(0, -6, 25), "test": np.ones(25)}
    phases = [Stretch("memorisation", 0, 10), Stretch("clean-up", 10, 24)]
    spikes = [Stretch("train loss up", 12, 14)]
    figure = grokking_curves(
        STEPS, losses, {"train": np.ones(25), "test": np.zeros(25)}, phases=phases, spikes=spikes
    )
    check_house_rules(figure)
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    drawn = [trace for trace in figure.data if trace.name == "train"]
    np.testing.assert_array_equal(drawn[0].y, losses["train"][1:])  # step 0 has no logarithm
    assert all(trace.type == "scattergl" for trace in figure.data)
    shaded = [(s.x0, s.x1) for s in figure.layout.shapes]
    assert shaded.count((1, 10)) == 2  # one for each panel
    assert next(t for t in figure.data if t.name == "spike").x == (13.0,)
    assert "1 spikes" in figure.layout.meta["seen"]


def test_what_was_found_is_drawn_as_it_is():
    loss = [1.0] * 300
    loss[150] = 10.0
    steps = list(range(300))
    end = Moment(100, 90, 110)
    phases = [Phase("memorisation", Moment(0, 0, 0), end), Phase("circuit formation", end, None)]
    spikes = find_spikes(steps, loss)
    curves = grokking_curves(steps, {"train": loss}, {"train": loss}, phases=phases, spikes=spikes)
    check_house_rules(curves)
    assert [(s.x0, s.x1) for s in curves.layout.shapes][:1] == [(1, 100)]
    assert {(s.x0, s.x1) for s in curves.layout.shapes} == {(1, 100), (100, 299)}
    assert next(t for t in curves.data if t.name == "spike").x == (150.0,)
    measures = measures_over_training(steps, {"share": {"a": loss}}, phases=phases)
    assert {(s.x0, s.x1) for s in measures.layout.shapes} == {(1, 100), (100, 299)}
    scales = {"gradient_norm": np.ones(300), "share_below_epsilon": np.zeros(300)}
    scaled = scales_over_training(np.arange(300), scales, 1e-8, spikes=spikes)
    assert next(t for t in scaled.data if t.name == "spike").x == (150.0,)
    with pytest.raises(ValueError, match="test must have one value for each of increasing steps"):
        grokking_curves(steps, {"test": loss[1:]}, {})


def test_losses_that_have_no_logarithm_are_counted():
    figure = grokking_curves(STEPS[:3], {"train": np.array([1.0, 0.0, 0.5])}, {})
    assert "1 of 2 points cannot be drawn" in figure.layout.meta["seen"]


def test_measures_have_a_panel_for_each_unit():
    panels = {"loss (nats)": {"test": np.logspace(0, -4, 25)}, "share": {"purity": STEPS / 25}}
    figure = measures_over_training(STEPS, panels, phases=[Stretch("clean-up", 5, 9)])
    check_house_rules(figure)
    assert [trace.name for trace in figure.data] == ["test", "purity"]
    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", None)
    np.testing.assert_array_equal(figure.data[1].y, STEPS / 25)
