"""The map draws every model once, joins what is joined, and keeps basins apart."""

import numpy as np
import pytest
import torch

import phasescope as ps
from figures.captions import check_house_rules


def planted(sizes: list[int]) -> ps.BasinMap:
    basin = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    basin = basin[torch.randperm(len(basin), generator=torch.Generator().manual_seed(0))]
    return ps.basin_map((basin[:, None] != basin).double(), 0.5)


@pytest.mark.parametrize("sizes", [[1, 1], [4, 1, 3], [30, 12]])
def test_models_of_a_basin_stand_together_and_are_joined(sizes: list[int]):
    found = planted(sizes)
    values = np.linspace(0, 1, sum(sizes))
    figure = ps.figures.basin_map(found, values, value="mono/N")
    check_house_rules(figure)
    lines, dots, heat = figure.data
    assert len(lines.x) == 3 * sum(n * (n - 1) // 2 for n in sizes)
    np.testing.assert_array_equal(dots.marker.color, values)
    places = np.stack([dots.x, dots.y], axis=1)
    distance = np.linalg.norm(places[:, None] - places, axis=2) + 99 * np.eye(len(places))
    assert distance.min() > 0.9
    if max(sizes) > 1:
        same = (found.basin[:, None] == found.basin).numpy()
        nearest = np.where(same, distance, 99).min(1)
        assert (nearest < np.where(same, 99, distance).min(1))[
            found.basin.bincount()[found.basin] > 1
        ].all()
    blocks = np.asarray(heat.z)
    assert blocks[: found.sizes[0], : found.sizes[0]].max() == 0
    assert f"{len(sizes)} basins" in figure.layout.title.text


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="each of the 3 models are required, but 2 values and 3"):
        ps.figures.basin_map(planted([2, 1]), np.zeros(2), value="mono/N")
