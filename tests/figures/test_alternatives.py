import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import (
    DirectionCurve,
    DirectionPanel,
    curves_by_directions,
    losses_over_steps,
)

KS = np.array([1, 10, 100])


def curve(name: str, level: float) -> DirectionCurve:
    values = np.array([[level, level, level], [level, level, 3 * level]])
    return DirectionCurve(name, KS, values, 0.9 * values[0], 2.5 * values[0])


def test_every_seed_the_mean_and_its_interval_are_drawn_in_one_colour_per_alternative():
    panels = [
        DirectionPanel("test loss (nats)", [curve("top k", 0.5), curve("random k", 2.0)], log=True),
        DirectionPanel("accuracy", [curve("random k", 0.1)], {"full training": 0.9}),
    ]
    figure = curves_by_directions(
        panels, title="What k gives", computed="As was said.", misleads="As was said."
    )
    check_house_rules(figure)
    means = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in means] == ["top k", "random k", "random k"]
    assert [trace.showlegend for trace in means] == [True, True, False]
    assert means[1].line.color == means[2].line.color != means[0].line.color
    np.testing.assert_allclose(means[0].y, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(means[0].error_y.array, [0.75, 0.75, 0.25])
    seeds = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.y) for trace in seeds] == [6, 6, 6]
    assert figure.layout.shapes[0].y0 == 0.9
    assert "full training" in figure.layout.meta["seen"]


def test_a_diverged_seed_is_not_drawn_and_the_caption_says_so():
    values = np.array([[1.0, 2.0, np.nan], [1.0, 2.0, 3.0]])
    panel = DirectionPanel("loss", [DirectionCurve("a", KS, values)], log=True)
    figure = curves_by_directions([panel], title="t", computed="c.", misleads="m.")
    assert "1 values that are not finite are not drawn" in figure.layout.meta["seen"]
    mean = next(trace for trace in figure.data if trace.mode == "lines+markers")
    assert np.isnan(mean.y[2])


def test_one_seed_has_neither_dots_nor_bars():
    panel = DirectionPanel("loss", [DirectionCurve("a", KS, np.ones((1, 3)))])
    figure = curves_by_directions([panel], title="t", computed="c.", misleads="m.")
    assert len(figure.data) == 1
    assert "one seed" in figure.layout.meta["seen"]


def test_a_figure_without_curves_is_refused():
    with pytest.raises(ValueError, match="needs at least one curve"):
        curves_by_directions([DirectionPanel("loss", [])], title="t", computed="c", misleads="m")


def test_the_reference_is_thick_and_a_model_that_blew_up_is_cut_off():
    steps = np.array([0, 10, 1000])
    losses = {"full": np.array([2.3, 0.5, 0.2]), "random": np.array([2.3, 1e9, np.nan])}
    figure = losses_over_steps(steps, losses, reference="full")
    check_house_rules(figure)
    assert [trace.line.width for trace in figure.data] == [3, 1.8]
    assert figure.layout.yaxis.range[1] < 1
    assert figure.data[0].x[0] == 0.5
    with pytest.raises(ValueError, match=r"one of \['full', 'random'\], but it is 'none'"):
        losses_over_steps(steps, losses, reference="none")
