"""Tests of the figure of one number over seeds, by group."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import seed_strips

TEXTS = {
    "title": "Counts of seeds",
    "seen": "A row is a setting.",
    "computed": "Counted as they are.",
}
TEXTS |= {"misleads": "Whenever it does."}
GROUPS = {
    "MLP, SGD <b>": {"training": [3, 1, 2], "frozen weights": np.array([4.0, 6.0])},
    "CNN": {"frozen weights": [0, 7]},
}


def test_every_seed_is_a_mark_in_the_lane_of_its_series():
    figure = seed_strips(GROUPS, x_title="components", **TEXTS)
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    assert list(drawn["training"].x) == [3, 1, 2]
    assert list(drawn["training"].y) == pytest.approx([-0.18] * 3)
    assert list(drawn["frozen weights"].x) == [4, 6, 0, 7]
    assert list(drawn["frozen weights"].y) == pytest.approx([0.18, 0.18, 1.18, 1.18])
    assert list(drawn["training, median"].x) == [2]
    assert list(drawn["frozen weights, median"].x) == [5, 3.5]
    assert drawn["training"].marker.symbol == "circle"
    assert drawn["frozen weights"].marker.symbol.endswith("-open")
    assert figure.layout.yaxis.ticktext == ("MLP<br>SGD &lt;b&gt;", "CNN")


def test_a_logarithmic_axis_says_what_it_leaves_out():
    figure = seed_strips(GROUPS, x_title="components", log=True, line=1.0, **TEXTS)
    assert {t.name: t for t in figure.data}["frozen weights"].x == (4, 6, 7)
    assert "1 values that are not positive are not drawn" in figure.layout.meta["seen"]
    assert figure.layout.shapes[0].x0 == 1


def test_empty_groups_are_refused():
    with pytest.raises(ValueError, match="at least one group and one series in each"):
        seed_strips({"CNN": {}}, x_title="components", **TEXTS)
