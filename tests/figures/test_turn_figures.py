"""Tests of the figures of a path and of when components act."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import component_profiles, path_and_bends

T = np.arange(11.0)
PATH = np.stack([5 - np.abs(T - 5), 0.2 * T], axis=1)
BAND = (np.zeros(11), np.ones(11))


def test_a_path_stands_beside_a_walk_of_its_size_with_turns_and_boundaries():
    walk = 1e-3 * np.stack([T, T**2], axis=1)
    figure = path_and_bends(
        PATH, walk, 10 * np.arange(11), T, BAND, turns=(50,), boundaries=(30, 70), what="logits"
    )
    check_house_rules(figure)
    drawn = {trace.name: trace for trace in figure.data}
    assert np.abs(np.stack([drawn["one random walk"].x, drawn["one random walk"].y])).max() == 5
    assert (drawn["turn"].x.tolist(), drawn["turn"].y.tolist()) == ([5], [1])
    assert drawn["bend of the path"].y.tolist() == T.tolist()
    assert [shape.x0 for shape in figure.layout.shapes] == [50, 30, 70]
    assert "1 turns" in figure.layout.meta["seen"]


def test_profiles_stand_beside_the_share_of_a_step_by_chance():
    energy = np.array([[0.5, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4]])
    figure = component_profiles(np.array([3, 5, 8, 9]), energy, ("first <i>", "second"))
    check_house_rules(figure)
    assert figure.data[0].y.tolist() == [50, 50, 0, 0]
    assert [shape.y0 for shape in figure.layout.shapes] == [25, 25]
    assert figure.layout.annotations[0].text == "first &lt;i&gt;"


def test_some_of_the_steps_stand_beside_the_share_among_all():
    figure = component_profiles(np.arange(0, 40, 4), np.full((1, 10), 0.025), ("x",), n_steps=40)
    assert [shape.y0 for shape in figure.layout.shapes] == [2.5]


def test_a_turn_between_the_points_that_are_drawn_has_its_star():
    t = np.arange(0.0, 100.0, 10.0)
    line = np.stack([t, t], axis=1)
    figure = path_and_bends(
        line, line, t.astype(int), 0 * t, (0 * t, t), turns=(43,), what="logits"
    )
    star = next(trace for trace in figure.data if trace.name == "turn")
    assert (star.x.tolist(), list(star.text)) == ([40], ["turn at step 43"])


def test_every_profile_needs_a_label():
    with pytest.raises(ValueError, match="got 1 labels for 2 components"):
        component_profiles(np.arange(4), np.full((2, 4), 0.25), ("one",))
