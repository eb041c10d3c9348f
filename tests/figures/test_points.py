"""Tests of the dots: every point up to the limit, the extremes beyond it."""

import numpy as np
import pytest

from phasescope.figures.points import MAX_POINTS, dots, drawing_note, drawn_rows


def test_every_point_is_drawn_up_to_the_limit():
    y = np.random.default_rng(0).standard_normal(MAX_POINTS)
    trace = dots(np.arange(MAX_POINTS), y, name="loss", color="#000")
    assert trace.type == "scattergl"
    assert trace.mode == "markers"
    np.testing.assert_array_equal(trace.y, y)


def test_beyond_the_limit_no_excursion_is_lost():
    y = np.random.default_rng(0).standard_normal(MAX_POINTS + 12_345)
    y[[17, 100_001]] = 50, -50
    rows = drawn_rows(y)
    assert len(rows) <= MAX_POINTS
    assert (np.diff(rows) > 0).all()
    assert {17, 100_001} <= set(rows.tolist())


def test_the_lowest_and_the_highest_of_every_run_are_kept():
    y = np.random.default_rng(1).standard_normal(1000)
    rows = drawn_rows(y, limit=100)
    slow = {
        start + pick
        for start in range(0, 1000, 20)
        for pick in (y[start : start + 20].argmin(), y[start : start + 20].argmax())
    }
    assert set(rows.tolist()) == slow


def test_values_that_are_not_finite_do_not_hide_the_extremes():
    y = np.array([np.nan, 3.0, np.inf, 1.0, 2.0, np.nan, np.nan, np.nan])
    assert {1, 3} <= set(drawn_rows(y, limit=2).tolist())


def test_a_caption_says_nothing_when_every_point_is_drawn():
    assert drawing_note(np.ones((3, 5), dtype=bool), "not finite") == ""


def test_a_caption_says_how_many_points_are_not_drawn_and_why():
    note = drawing_note(np.array([[True, False], [True, True]]), "zero")
    assert note == " 1 of 4 points cannot be drawn (zero)."


@pytest.mark.parametrize(("n", "said"), [(MAX_POINTS, False), (MAX_POINTS + 1, True)])
def test_a_caption_says_when_a_trace_is_thinned(n: int, said: bool):
    assert ("the lowest and the highest" in drawing_note(np.ones(n, dtype=bool), "")) == said
