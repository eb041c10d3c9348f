"""Where directions of the parameter space live."""

import math

import pytest
import torch

from phasescope.analysis.mass import direction_mass
from phasescope.parameters import Component, ParameterTable


def test_shares_are_squared_lengths_and_do_not_depend_on_scale():
    table = ParameterTable(("a", "b"), ((2,), (3,)))
    parts = {name: table.component(name) for name in table.names}
    vectors = torch.tensor([[3.0, 0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    expected = torch.tensor([[0.36, 0.64], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(direction_mass(vectors, parts), expected)
    torch.testing.assert_close(direction_mass(1e-6 * vectors, parts), expected)


def test_a_random_direction_has_the_share_of_the_parameters():
    parts = {"odd": Component.from_mask("odd", torch.arange(20_000) % 2 == 1)}
    vectors = torch.randn(5, 20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        direction_mass(vectors, parts), torch.full((5, 1), 0.5).double(), atol=0.03, rtol=0
    )


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 1.0]])
def test_a_direction_needs_a_length(vector: list[float]):
    with pytest.raises(ValueError, match=r"row 1 has squared length (0.0|nan). Leave it out"):
        direction_mass(torch.tensor([[1.0, 0.0], vector]), {"all": Component("all", ((0, 2),))})


def test_components_must_be_parts_of_the_columns():
    with pytest.raises(ValueError, match=r"parts of the 2 columns, but \['wide'\] arrived"):
        direction_mass(torch.ones(1, 2), {"wide": Component("wide", ((0, 3),))})
    with pytest.raises(ValueError, match="but none arrived"):
        direction_mass(torch.ones(1, 2), {})
