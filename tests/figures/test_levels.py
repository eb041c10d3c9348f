"""Tests of the figure of a statistic against the level of controls."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import LevelPanel, statistic_by_level

VALUES = np.array([[30.0, 34.0, 50.0], [10.0, 11.0, 12.0]])
INTERVALS = np.array([[31.0, 45.0], [10.0, 12.0]])
PANELS = [
    LevelPanel("label noise <share>", ("0", "<1>"), VALUES, VALUES - 5, INTERVALS),
    LevelPanel("a long name of a control that is cut, share", ("0", ".5"), VALUES, VALUES),
]


def drawn(panels=PANELS):
    return statistic_by_level(panels, "components found", "components", "FlipPA, level .05.")


def test_every_seed_is_a_mark_with_the_median_its_interval_and_the_null():
    figure = drawn()
    check_house_rules(figure)
    null_seeds, null, seeds, median = figure.data[:4]
    assert seeds.y.tolist() == [30, 34, 50, 10, 11, 12]
    assert seeds.x.tolist() == pytest.approx([-0.1] * 3 + [0.9] * 3)
    assert median.y.tolist() == [34, 11]
    # Bars reach to the ends of the interval from the median that is drawn.
    assert (median.y + median.error_y.array).tolist() == [45, 12]
    assert (median.y - median.error_y.arrayminus).tolist() == [31, 10]
    assert null_seeds.y.tolist() == [25, 29, 45, 5, 6, 7]
    assert null.y.tolist() == [29, 6]
    assert null_seeds.marker.symbol == "circle-open"
    assert figure.data[7].error_y.array is None


def test_panels_share_their_vertical_axis_and_name_their_levels():
    figure = drawn()
    assert figure.layout.xaxis.ticktext == ("0", "&lt;1&gt;")
    assert figure.layout.yaxis2.matches == "y"
    texts = [a.text for a in figure.layout.annotations]
    assert texts[0] == "label noise &lt;share&gt;"
    assert texts[1].replace("<br>", " ") == PANELS[1].title
    assert texts[1].count("<br>") == 1
    assert figure.layout.yaxis.title.text == "components"
    assert figure.layout.yaxis2.title.text is None
    assert [t.showlegend for t in figure.data] == [True] * 4 + [False] * 4


def test_a_panel_more_than_fits_a_row_begins_another():
    one, five = drawn(PANELS[:1]), drawn([*PANELS, *PANELS, PANELS[0]])
    assert five.layout.height > one.layout.height
    assert five.layout.yaxis5.domain[1] < five.layout.yaxis.domain[0]


def test_no_panel_is_refused():
    with pytest.raises(ValueError, match="at least one panel, but got none"):
        drawn([])
