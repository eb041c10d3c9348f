"""Tests of the figure of held-out residuals."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import ResidualCurve, residual_curve

N = np.array([100, 200, 400])


def curve(label: str, level: float) -> ResidualCurve:
    median = np.full(3, level)
    return ResidualCurve(label, N, median, 0.9 * median, 1.1 * median)


def test_median_and_deciles_are_drawn_and_the_null_is_dashed_in_the_same_colour():
    figure = residual_curve([curve("raw", 0.5), curve("centred", 0.6)], [curve("null", 0.9)])
    check_house_rules(figure)
    medians = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in medians] == ["raw", "centred", "null"]
    assert [trace.line.dash for trace in medians] == ["solid", "solid", "dash"]
    assert medians[0].line.color == medians[2].line.color != medians[1].line.color
    np.testing.assert_array_equal(medians[0].y, np.full(3, 0.5))
    lowest = next(trace for trace in figure.data if trace.name == "raw, lowest decile")
    assert lowest.fill == "tonexty"
    np.testing.assert_allclose(lowest.y, 0.45)


def test_a_residual_above_one_stays_in_the_frame():
    assert residual_curve([curve("raw", 2.0)]).layout.yaxis.range[1] > 2.2


def test_labels_are_drawn_as_written():
    assert residual_curve([curve("<b>", 0.5)]).data[-1].name == "&lt;b&gt;"


@pytest.mark.parametrize(("n_curves", "n_nulls"), [(0, 0), (1, 2)])
def test_curves_and_nulls_must_go_together(n_curves: int, n_nulls: int):
    curves, nulls = [curve("a", 0.5)] * n_curves, [curve("b", 0.5)] * n_nulls
    with pytest.raises(ValueError, match=f"{n_curves} curves and {n_nulls} nulls"):
        residual_curve(curves, nulls)
