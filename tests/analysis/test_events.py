"""Edges of planted profiles, and events near and far from them."""

import math

import pytest
import torch

import phasescope as ps


def planted(boundaries: tuple[int, ...], n: int = 120) -> ps.Spectrum:
    """Rows that point along one direction until the first boundary, then along the next."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(200, len(boundaries) + 1, generator=generator))[0].T
    A = 0.02 * torch.randn(n, 200, generator=generator)
    edges = (0, *boundaries, n)
    for i, direction in enumerate(directions):
        A[edges[i] : edges[i + 1]] += direction
    return ps.spectrum(ps.gram(A), normalize=True)


def test_components_begin_and_end_where_they_were_planted():
    edges = ps.profile_edges(planted((20, 50)), 3, share=0.05)
    # By size: the last 70 steps, the middle 30, the first 20.
    for found, (start, stop) in zip(edges.tolist(), ((50, 119), (20, 49), (0, 19)), strict=True):
        reach = 0.05 * (stop - start) + 2
        assert found[0] == pytest.approx(start, abs=reach)
        assert found[1] == pytest.approx(stop, abs=reach)


def test_events_at_the_edges_are_near_and_others_are_not():
    edges = ps.profile_edges(planted((20, 50)), 3, share=0.02)
    near = ps.event_distance(edges, [20, 50], within=(1, 119))
    assert near.octaves < 0.1
    assert near.p < 0.02
    assert near.nearest == pytest.approx((20, 50), abs=2)
    far = ps.event_distance(edges, [5, 8], within=(1, 119))
    assert far.octaves > near.octaves + 0.5
    assert far.p > 0.2


def test_p_values_of_random_events_are_uniform():
    generator = torch.Generator().manual_seed(1)
    times = [30.0, 300.0, 2000.0]
    p_values = [
        ps.event_distance(
            times, (10 ** (1 + 2.5 * torch.rand(2, generator=generator))).tolist(),
            within=(10, 10**3.5), n_draws=99,
        ).p
        for _ in range(200)
    ]  # fmt: skip
    assert 2 <= sum(p <= 0.05 for p in p_values) <= 20
    assert 0.42 < sum(p_values) / 200 < 0.58


def test_distances_are_octaves():
    found = ps.event_distance([100.0], [400.0], within=(1, 1000))
    assert found.octaves == pytest.approx(2.0)
    assert ps.event_distance([0.0], [4.0], within=(1, 1000)).octaves == pytest.approx(2.0)


def test_what_cannot_be_compared_is_refused():
    spectrum = planted((20,))
    with pytest.raises(ValueError, match=r"between 0 and 1/2, but it is 0\.5"):
        ps.profile_edges(spectrum, 1, share=0.5)
    with pytest.raises(ValueError, match="there are 0 times, 1 events"):
        ps.event_distance([], [3.0], within=(1, 10))
    with pytest.raises(ValueError, match="times must be finite, but 1 of 2 are not"):
        ps.event_distance([3.0, math.nan], [3.0], within=(1, 10))
    with pytest.raises(ValueError, match=r"within the span \(1, 10\), but \[30.0\] do not"):
        ps.event_distance([3.0], [30.0], within=(1, 10))
