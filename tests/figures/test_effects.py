"""Figures of parts: mass against effect, components by frequency."""

import numpy as np
import pytest

from phasescope import figures


def test_every_part_is_a_dot_of_its_sign_and_those_without_are_counted():
    heads = figures.MassAndEffect(
        np.array([0.1, 0.2, 0.3, 0.0]), np.array([1.0, -2.0, 3.0, 4.0]), 0.5, "head"
    )
    figure = figures.mass_against_effect({"heads": heads}, effect="rise of the loss (nats)")
    raises, lowers = figure.data
    assert list(raises.y) == [1.0, 3.0]
    assert list(lowers.y) == [2.0]
    assert list(raises.text) == ["head 0", "head 2"]
    assert "1 parts without mass or effect" in figure.layout.meta["seen"]
    assert figure.layout.annotations[0].text == "heads: ρ = 0.50"


def test_a_component_is_a_row_and_keys_are_marked():
    power = {"raw": np.eye(3), "centred": np.ones((2, 3)) / 3}
    figure = figures.component_frequencies(power, [2])
    assert np.array_equal(figure.data[0].z, np.eye(3))
    assert list(figure.data[1].x) == [1, 2, 3]
    assert [shape.x0 for shape in figure.layout.shapes] == [2, 2]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one kind of parts"):
        figures.mass_against_effect({}, effect="loss")
    with pytest.raises(ValueError, match="at least one spectrum"):
        figures.component_frequencies({}, [1])
