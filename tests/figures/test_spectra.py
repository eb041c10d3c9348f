"""Tests of the figures of one spectrum."""

import dataclasses
import itertools
import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from figures.captions import check_house_rules
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import NormNull, Spectrum, norm_null, spectrum
from phasescope.figures import scree, time_vectors


def planted(S: np.ndarray, **changes: object) -> Spectrum:
    """A spectrum with these singular values, whose time vectors are unit vectors."""
    n, ones = len(S), torch.ones(len(S), dtype=torch.float64)
    plain = Spectrum(
        S=torch.from_numpy(S),
        time_vectors=torch.eye(n, dtype=torch.float64),
        steps=torch.arange(n),
        norms=ones,
        centered_norms=ones,
        center="none",
        normalize=False,
        n_columns=1000,
        resolution=1e-9,
    )
    return dataclasses.replace(plain, **changes)


def random_spectrum(n_steps: int = 30) -> Spectrum:
    A = torch.randn(n_steps, 50, generator=torch.Generator().manual_seed(0))
    return spectrum(gram(A))


def label_boxes(figure: go.Figure) -> list[tuple[float, float]]:
    """Lower and upper edge of each threshold label in pixels above the axis, as drawn."""
    low, high = figure.layout.yaxis.range
    pixels = 340 / (high - low)
    bottoms = [(a.y - low) * pixels + a.yshift for a in figure.layout.annotations]
    return sorted((bottom, bottom + 15) for bottom in bottoms)


def test_scree_draws_every_singular_value_relative_to_the_largest():
    s = random_spectrum()
    null = norm_null(s)
    figure = scree(s, null)
    check_house_rules(figure)
    for trace, S in zip(figure.data, (s.S, null.S), strict=True):
        np.testing.assert_array_equal(trace.x, np.arange(1, 31))
        np.testing.assert_allclose(trace.y, (S / S[0]).numpy())
    assert [trace.marker.symbol for trace in figure.data] == ["circle", "circle-open"]


def test_scree_names_the_counts_of_data_and_null_at_every_threshold():
    s = planted(np.array([1.0, 0.5, 0.12, 0.08, 0.01]))
    null = NormNull(torch.tensor([1.0, 1.0, 0.14, 0.13, 0.06]).double(), s.steps, "none", False)
    texts = [a.text for a in scree(s, null).layout.annotations]
    assert texts == ["<b>5%</b>: 4 (null 5)", "<b>10%</b>: 3 (null 4)", "<b>15%</b>: 2 (null 2)"]
    assert [line.y0 for line in scree(s, null).layout.shapes] == [0.05, 0.1, 0.15]


def test_scree_without_a_null_says_that_the_count_cannot_be_read():
    figure = scree(planted(np.array([1.0, 0.5])))
    assert len(figure.data) == 1
    assert "No null was given" in figure.layout.meta["seen"]


@pytest.mark.parametrize("decades", [1, 3, 6, 8])
def test_threshold_labels_never_stand_on_each_other(decades: int):
    boxes = label_boxes(scree(planted(np.logspace(0, -decades, 400))))
    assert all(below[1] <= above[0] + 1 for below, above in itertools.pairwise(boxes))


def test_rounding_noise_is_outside_the_frame_and_the_caption_says_so():
    figure = scree(planted(np.array([2.0, 1.0, 1e-12, 0.0])))
    assert 10 ** figure.layout.yaxis.range[0] > 0.01
    assert "(2 values at or below 5e-10) is not shown" in figure.layout.meta["seen"]
    assert math.isnan(figure.data[0].y[3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center": "steps"}, "center is 'none' in the spectrum but 'steps' in the null"),
        ({"normalize": True}, "normalize is False in the spectrum but True in the null"),
        (
            {"steps": torch.arange(1, 31)},
            r"steps are 30 values \(0 to 29\) in the spectrum but 30 values \(1 to 30\)",
        ),
        (
            {"steps": torch.arange(29), "S": torch.ones(29).double()},
            r"but 29 values \(0 to 28\) in the null",
        ),
    ],
)
def test_scree_refuses_a_null_of_something_else(change: dict[str, object], message: str):
    s = random_spectrum()
    null = dataclasses.replace(norm_null(s), **change)
    with pytest.raises(ValueError, match=f"{message}.*norm_null"):
        scree(s, null)


def test_scree_refuses_thresholds_that_are_percentages():
    with pytest.raises(ValueError, match=r"between 0 and 1 .* Write 10% as 0\.1"):
        scree(random_spectrum(), thresholds=(10.0,))


def test_time_vectors_draws_every_step_of_the_first_components():
    s = random_spectrum()
    figure = time_vectors(s, k=3)
    check_house_rules(figure)
    assert len(figure.data) == 3
    for i, trace in enumerate(figure.data):
        np.testing.assert_array_equal(trace.x, s.steps.numpy())
        np.testing.assert_array_equal(trace.y, s.time_vectors[:, i].numpy())


def test_time_vectors_names_the_share_of_energy():
    figure = time_vectors(planted(np.array([3.0, 1.0])))
    titles = [a.text for a in figure.layout.annotations]
    assert titles == ["component 1: 90% of the energy", "component 2: 10% of the energy"]


def test_time_vectors_draws_no_more_components_than_there_are():
    assert len(time_vectors(planted(np.array([1.0, 0.5])), k=6).data) == 2


def test_time_vectors_refuses_no_component():
    with pytest.raises(ValueError, match="at least one component, but got k=0"):
        time_vectors(random_spectrum(), k=0)
