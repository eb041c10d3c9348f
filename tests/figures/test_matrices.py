"""Tests of heat maps on a slider and of dimensionalities beside their levels."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import MatrixFrame, dimensionality_levels, matrices_on_slider

CAPTIONS = {
    "title": "A title of a figure",
    "seen": "What is seen.",
    "computed": "How it was computed.",
}
CAPTIONS["misleads"] = "When this misleads."
AXES = {"slider": "step", "x_title": "feature", "y_title": "neuron", "value": "response"}


def test_frames_share_one_scale_and_the_last_one_is_open():
    frames = [MatrixFrame("0", np.eye(2)), MatrixFrame("9", 3 * np.ones((2, 3)))]
    figure = matrices_on_slider(frames, **AXES, **CAPTIONS)
    check_house_rules(figure)
    assert [trace.visible for trace in figure.data] == [False, True]
    assert {(trace.zmin, trace.zmax) for trace in figure.data} == {(0.0, 3.0)}
    step = figure.layout.sliders[0].steps[0]
    assert (step.label, step.args[0]["visible"]) == ("0", [True, False])


def test_a_diverging_scale_is_symmetric_and_one_frame_needs_no_slider():
    frame = MatrixFrame("0", np.array([[-2.0, 1.0]]))
    figure = matrices_on_slider([frame], **AXES, **CAPTIONS, diverging=True)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-2.0, 2.0)
    assert not figure.layout.sliders
    with pytest.raises(ValueError, match="needs at least one frame"):
        matrices_on_slider([], **AXES, **CAPTIONS)


def test_levels_are_drawn_with_the_counts_of_model_and_control():
    counts = np.array([[1, 2, 3], [4, 5, 6]])
    densities, edges = np.array([1.0, 0.1]), np.array([0.0, 0.3, 0.7, 1.0])
    figure = dimensionality_levels(densities, edges, counts, counts[::-1], {"1/2": 0.5})
    check_house_rules(figure)
    assert figure.data[1].x.tolist() == [5, 7, 9]
    assert [a.text for a in figure.layout.annotations] == ["1/2"]
    np.testing.assert_allclose(np.square(figure.data[0].z).sum(0), 1)
    with pytest.raises(ValueError, match="counts by density and bin"):
        dimensionality_levels(densities, edges, counts[:, :2], counts[:, :2], {})
