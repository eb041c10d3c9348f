"""Tests of the figures of counts over seeds."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import SettingCounts, counts_against_dropped_steps, counts_by_setting

ROWS = [
    SettingCounts("MLP, SGD 0.1, batch 64", np.array([80, 90, 100]), np.array([85, 95, 99])),
    SettingCounts("CNN <b>", np.array([10.5, 20.5]), np.array([30.0, 40.0])),
]


def test_every_seed_is_a_mark_with_the_median_and_the_null_beside():
    figure = counts_by_setting(ROWS)
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    assert drawn["seed"].x.tolist() == [80, 90, 100, 10.5, 20.5]
    assert drawn["median over seeds"].x.tolist() == [90, 15.5]
    assert drawn["norm null, seed"].x.tolist() == [85, 95, 99, 30, 40]
    assert drawn["norm null, median"].x.tolist() == [95, 35]
    assert drawn["norm null, seed"].marker.symbol == "circle-open"
    assert drawn["seed"].y.tolist() == pytest.approx([-0.12] * 3 + [0.88] * 2)
    assert drawn["norm null, seed"].y.tolist() == pytest.approx([0.22] * 3 + [1.22] * 2)


def test_settings_are_named_from_top_to_bottom_as_written():
    axis = counts_by_setting(ROWS).layout.yaxis
    assert axis.ticktext == ("MLP<br>SGD 0.1, batch 64", "CNN &lt;b&gt;")
    assert axis.range[0] > axis.range[1]


def test_the_published_interval_is_a_band_with_its_mean():
    band, mean = counts_by_setting(ROWS).layout.shapes
    assert (band.x0, band.x1, band.name) == (80.9, 104.1, "published: 80.9 to 104.1")
    assert mean.x0 == 92.5


def test_without_a_published_interval_there_is_no_band():
    figure = counts_by_setting(ROWS, published=None, published_center=None)
    assert figure.layout.shapes == ()
    assert "published" not in figure.layout.meta["seen"]


def test_no_setting_is_refused():
    with pytest.raises(ValueError, match="at least one setting, but got none"):
        counts_by_setting([])


def test_counts_without_early_steps_show_every_seed_the_median_and_the_null():
    dropped = np.array([0, 10, 100])
    counts = np.array([[90, 80, 70], [92, 84, 60], [97, 85, 65]])
    figure = counts_against_dropped_steps(dropped, counts, counts + 5)
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    assert len(drawn) == 8
    assert drawn["data, seed 1"].y.tolist() == [92, 84, 60]
    assert drawn["data, median over seeds"].y.tolist() == [92, 84, 65]
    assert drawn["norm null, median over seeds"].y.tolist() == [97, 89, 70]
    assert drawn["norm null, median over seeds"].line.dash == "dash"
    assert drawn["data, seed 0"].line.width < drawn["data, median over seeds"].line.width
    assert drawn["data, seed 0"].x == ("0", "10", "100")
