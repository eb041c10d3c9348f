"""Tests of the figure with a panel for every pair of settings."""

from typing import Any

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import CurvePanel, curves_by_setting

STEPS = np.array([0, 1, 10, 100])
VALUES = np.array([[0.0, 0.1, 0.5, 1.0], [0.0, 0.2, 0.3, 0.4], [0.0, 0.0, 0.9, 0.9]])
EVENTS = np.array([90.0, np.nan, 12.0])
PANELS = [
    CurvePanel("add", "relu", STEPS, VALUES, EVENTS),
    CurvePanel("add", "gelu", STEPS, VALUES, EVENTS),
    CurvePanel("multiply <mod>", "gelu", STEPS, VALUES, np.full(3, np.nan)),
]


def drawn(panels=PANELS):
    return curves_by_setting(
        panels,
        event="grokked",
        y_title="test accuracy (share)",
        title="Accuracy by setting",
        computed="On all test pairs.",
        misleads="Steps are logarithmic.",
    )


def test_every_seed_is_a_curve_with_the_median_and_its_event():
    figure: Any = drawn()
    check_house_rules(figure)
    seeds, median, marks = figure.data[:3]
    curves = np.array(seeds.y).reshape(3, 4)  # the last column parts the seeds
    assert curves[:, :3].tolist() == VALUES[:, 1:].tolist()
    assert np.isnan(curves[:, 3]).all()
    assert median.y.tolist() == [0.1, 0.5, 0.9]
    assert sorted(marks.x) == [12, 90]
    assert "5 of 9 seeds did not get there" in figure.layout.meta["seen"]


def test_rows_and_columns_stand_in_their_order_and_may_lack_panels():
    figure: Any = drawn()
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["relu", "gelu", "add", "multiply &lt;mod&gt;"]
    assert len(figure.data) == 9
    assert {trace.xaxis for trace in figure.data[6:]} == {"x4"}


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "needs at least one panel, but got none"),
        ([PANELS[0]] * 2, r"\('add', 'relu'\) has 2. Join their seeds"),
    ],
)
def test_panels_that_cannot_be_placed_are_refused(panels: list[CurvePanel], message: str):
    with pytest.raises(ValueError, match=message):
        drawn(panels)
