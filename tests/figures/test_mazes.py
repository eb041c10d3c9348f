import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.datasets import MazeMix, draw_mazes, walk
from phasescope.figures import Stretch, goals_over_training, maze_walks


def ways(levels, seed):
    return walk(levels, lambda seen: np.zeros((len(seen), 4)), seed=seed)


def test_a_slider_shows_the_ways_of_one_agent_at_a_time():
    levels = draw_mazes(6, MazeMix(elsewhere=1.0, with_star=0.5), size=5, seed=1)
    walks = {"trained": ways(levels, 0), "without": ways(levels, 1)}
    figure = maze_walks(walks)
    assert set(figure.layout.meta) == {"title", "seen", "computed", "misleads"}
    assert "trained, without" in figure.layout.meta["seen"]
    slider = figure.layout.sliders[0]
    assert [step.label for step in slider.steps] == ["trained", "without"]
    lines = [
        i
        for i, trace in enumerate(figure.data)
        if trace.type == "scatter" and trace.mode == "lines"
    ]
    assert len(lines) == 12
    for step, name in zip(slider.steps, walks, strict=True):
        visible = step.args[0]["visible"]
        shown = [figure.data[i] for i in lines if visible[i]]
        assert len(visible) == len(figure.data)
        for level, trace in enumerate(shown):
            end = walks[name].ended[level]
            rows, columns = np.divmod(walks[name].places[level, : end + 1], 5)
            np.testing.assert_array_equal(trace.x, columns)
            np.testing.assert_array_equal(trace.y, rows)
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    np.testing.assert_array_equal(np.array(heat[2].z)[1:-1, 1:-1] == 2, levels.walls[2])


def test_walks_through_other_levels_are_refused():
    one, other = draw_mazes(3, size=5, seed=0), draw_mazes(3, size=5, seed=1)
    with pytest.raises(ValueError, match="those of 'b' are through others"):
        maze_walks({"a": ways(one, 0), "b": ways(other, 0)})
    with pytest.raises(ValueError, match="at least one agent"):
        maze_walks({})


def test_goals_stand_above_the_components_of_the_policy_with_phases_shaded():
    t = np.arange(5) * 10
    goals = {"corner": np.linspace(0, 1, 5), "cheese": np.linspace(0, 0.5, 5)}
    phases = [Stretch("before", 0, 20), Stretch("corner: learned", 20, 40)]
    figure = goals_over_training(t, goals, t[:-1], [np.ones(4), np.zeros(4)], phases)
    check_house_rules(figure)
    assert [trace.name for trace in figure.data] == [
        "corner",
        "cheese",
        "component 1",
        "component 2",
    ]
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2", "y2"]
    np.testing.assert_array_equal(figure.data[1].y, goals["cheese"])
    np.testing.assert_array_equal(figure.data[3].x, t[:-1])
    shaded = {(shape.x0, shape.x1) for shape in figure.layout.shapes}
    assert shaded == {(0, 20), (20, 40)}
    assert "Shaded: before, corner: learned." in figure.layout.meta["seen"]
