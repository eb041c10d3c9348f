"""Tests of the figure of curves over seeds beside nulls."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import Bundle, curves_beside_nulls

TEXTS = {"title": "Counts of seeds", "seen": "A window.", "computed": "Counted as it is."}
TEXTS |= {"misleads": "Whenever it does.", "x_title": "step", "y_title": "count"}


def test_seeds_are_thin_lines_with_their_median_and_nulls_are_dashed():
    steps, values = np.array([1, 10, 100]), np.array([[1.0, 2, 3], [3, 4, 5], [8, 9, 10]])
    bundles = [Bundle("data", steps, values), Bundle("norms", steps, values[:1], is_null=True)]
    figure = curves_beside_nulls(bundles, log_x=True, **TEXTS)
    check_house_rules(figure)
    assert len(figure.data) == 5  # three seeds and their median; a single null is its own median
    heavy = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert heavy["data"].y.tolist() == [3, 4, 5]
    assert heavy["norms"].line.dash == "dash"
    assert heavy["data"].line.dash == "solid"
    assert figure.layout.xaxis.type == "log"


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one bundle"):
        curves_beside_nulls([], **TEXTS)
