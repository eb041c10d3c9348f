"""Tests of the figures of neurons that serve features."""

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.figures import (
    MeanCurve,
    activations_over_training,
    bias_against_selectivity,
    means_against,
)


def test_neurons_and_features_are_sorted_so_that_a_monosemantic_layer_is_a_diagonal(
    unchecked_types,
):
    permutation = np.array([2, 0, 3, 1])
    S = np.zeros((6, 4))
    S[permutation + 1, np.arange(4)] = [4.0, 3.0, 2.0, 1.0]
    S[0] = 0.5  # serves all features alike; negative responses count as none
    S[5] = -1.0
    figure = activations_over_training(np.array([128]), S[None], setting="toy")
    check_house_rules(figure)
    drawn = np.array(figure.data[0].z)
    assert (drawn[:4].argmax(1) == np.arange(4)).all()
    np.testing.assert_allclose(drawn[4], 0.5)
    assert not drawn[5].any()
    with pytest.raises(ValueError, match="there are 1 and 2 steps"):
        activations_over_training(np.array([1, 2]), S[None], setting="toy")


def test_every_neuron_is_a_dot_and_dead_ones_are_apart(unchecked_types):
    biases = np.array([[-1.0, 0.1, -0.2], [0.3, -0.4, -0.5]])
    selectivity = np.array([[1.0, 0.2, 0.0], [0.5, 0.95, 0.1]])
    figure = bias_against_selectivity(biases, selectivity, n_features=2, setting="toy")
    check_house_rules(figure)
    sorted_biases = np.array(figure.data[2].y).reshape(2, 4)
    np.testing.assert_array_equal(sorted_biases[:, :3], np.sort(biases, axis=1))
    assert "at the 2 features" in figure.layout.meta["seen"]
    assert len(figure.data[0].x) == 5
    assert figure.data[1].y.tolist() == [-0.2]
    with pytest.raises(ValueError, match="a bias and a selectivity are needed for each neuron"):
        bias_against_selectivity(biases, selectivity[:, :2], setting="toy")


def test_means_have_their_intervals():
    ends = np.array([[0.5, 2.0], [1.5, 2.5]])
    curve = MeanCurve("uniform", np.array([0.01, 0.1]), np.array([1.0, 2.0]), ends)
    captions = {"computed": "Means and intervals.", "misleads": "When it does."}
    axes = {"x_title": "learning rate", "y_title": "mono / N", "title": "Monosemantic neurons"}
    figure = means_against([curve], **axes, **captions, log_x=True)
    check_house_rules(figure)
    assert figure.data[0].error_y.array.tolist() == [1.0, 0.5]
    assert figure.data[0].error_y.arrayminus.tolist() == [0.5, 0.5]
    assert figure.layout.xaxis.type == "log"
    assert list(figure.layout.xaxis.ticktext) == ["0.01", "0.1"]
    with pytest.raises(ValueError, match="needs at least one curve"):
        means_against([], **axes, **captions)
