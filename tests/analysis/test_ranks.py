"""Counts and effective ranks: closed forms, laws and messages."""

import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from phasescope.analysis import ranks
from phasescope.analysis.gram import gram
from phasescope.analysis.spectrum import spectrum

MEASURES = [
    ranks.participation_ratio,
    ranks.stable_rank,
    ranks.effective_rank,
    ranks.entropy_rank,
]
few = settings(max_examples=25, deadline=None)
values = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("r", [1, 3, 50])
def test_r_equal_values_have_rank_r(measure, r: int):
    S = torch.cat([torch.full((r,), 0.3), torch.zeros(7)]).double()
    assert measure(S) == pytest.approx(r, rel=1e-12)


def test_two_unequal_values_have_the_ranks_of_their_formulas():
    S = torch.tensor([2.0, 1.0], dtype=torch.float64)
    p, q = (2 / 3, 1 / 3), (4 / 5, 1 / 5)
    assert ranks.participation_ratio(S) == pytest.approx(25 / 17)
    assert ranks.stable_rank(S) == pytest.approx(5 / 4)
    assert ranks.effective_rank(S) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)))
    assert ranks.entropy_rank(S) == pytest.approx(math.exp(-sum(x * math.log(x) for x in q)))


@few
@given(values, st.floats(1e-6, 1e6))
def test_ranks_do_not_depend_on_scale_or_order_and_stay_within_bounds(S: list[float], scale: float):
    x = torch.tensor(S, dtype=torch.float64)
    for measure in MEASURES:
        assert measure(x.flip(0) * scale) == pytest.approx(measure(x), rel=1e-9)
        assert 1 - 1e-9 <= measure(x) <= len(S) * (1 + 1e-9)
    assert ranks.largest_gap(x * scale) == pytest.approx(ranks.largest_gap(x), rel=1e-9)


@few
@given(values)
def test_ranks_are_ordered_by_how_much_they_weigh_the_tail(S: list[float]):
    x = torch.tensor(S, dtype=torch.float64)
    order = [f(x) for f in (ranks.stable_rank, ranks.participation_ratio)]
    order += [f(x) for f in (ranks.entropy_rank, ranks.effective_rank)]
    assert order[1] <= order[2] * (1 + 1e-9) <= order[3] * (1 + 1e-6) ** 2
    assert order[0] <= order[1] * (1 + 1e-9)


def test_a_value_on_the_threshold_is_not_above_it():
    assert ranks.count_above(torch.tensor([1.0, 0.1])) == 1
    assert ranks.count_above(torch.tensor([1.0, 0.1 * (1 + 1e-8)], dtype=torch.float64)) == 1
    assert ranks.count_above(torch.tensor([1.0, 0.1 * (1 + 1e-5)], dtype=torch.float64)) == 2
    assert ranks.count_above(torch.tensor([5.0, 1.0, 5.0]), 0.0) == 3


def test_energy_rank_is_the_smallest_number_that_holds_the_share():
    S = torch.tensor([1.0, 3.0, 2.0]).sqrt()
    assert [ranks.energy_rank(S, q) for q in (0.4, 0.51, 0.9, 1.0)] == [1, 2, 3, 3]
    assert ranks.energy_rank(torch.tensor([3.0, 1.0]), 0.9) == 1  # exactly nine tenths


def test_the_largest_gap_is_seen_inside_and_across_the_band():
    inside = torch.tensor([1.0, 0.5, 0.14, 0.07, 0.06, 0.0001])
    assert ranks.largest_gap(inside[:5].double()) == pytest.approx(0.5 / 0.14)
    assert ranks.largest_gap(torch.tensor([1.0, 0.9, 0.01]).double()) == pytest.approx(90)
    assert ranks.largest_gap(torch.tensor([1.0, 0.9, 0.01, 0.0001]).double()) == pytest.approx(90)
    assert ranks.largest_gap(torch.tensor([1.0, 0.9])) == 1.0
    assert ranks.largest_gap(torch.tensor([1.0, 0.1, 0.0])) == math.inf


def test_the_summary_puts_every_count_beside_its_null_and_survives_json():
    generator = torch.Generator().manual_seed(0)
    a = torch.linspace(1, 0.02, 40)
    A = torch.randn(40, 50_000, generator=generator) / 50_000**0.5 * a[:, None]
    A += 2 * torch.randn(40, 1, generator=generator) * torch.eye(1, 50_000)
    found = spectrum(gram(A))
    summary = ranks.rank_summary(found)
    assert summary.n_steps == 40
    assert summary.counts == tuple(ranks.count_above(found.S, t) for t in (0.05, 0.1, 0.15))
    norms = found.norms / found.norms.max()
    assert summary.null_counts == tuple(int((norms > t).sum()) for t in (0.05, 0.1, 0.15))
    assert summary.counts != summary.null_counts
    assert summary.k90 <= summary.k95 <= summary.k99
    assert summary.stable_rank == ranks.stable_rank(found.S)
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert plain["counts"] == list(summary.counts)
    assert plain["largest_gap"] == summary.largest_gap


def test_an_infinite_gap_becomes_null_in_json():
    A = torch.zeros(3, 5)
    A[0, 0] = 1
    assert ranks.rank_summary(spectrum(gram(A))).to_dict()["largest_gap"] is None


@pytest.mark.parametrize(
    "S", [torch.zeros(3), torch.tensor([]), torch.tensor([1.0, -1.0]), torch.tensor([math.nan])]
)
@pytest.mark.parametrize("measure", [*MEASURES, ranks.count_above, ranks.largest_gap])
def test_values_that_are_no_spectrum_are_refused(measure, S: torch.Tensor):
    with pytest.raises(ValueError, match=r"finite, non-negative and not all zero, but \d values"):
        measure(S)


def test_impossible_thresholds_shares_and_bands_are_refused():
    S = torch.ones(3)
    with pytest.raises(ValueError, match=r"threshold must be a fraction.*-0.1 arrived"):
        ranks.count_above(S, -0.1)
    with pytest.raises(ValueError, match=r"in \(0, 1\], but 0.0 arrived"):
        ranks.energy_rank(S, 0.0)
    with pytest.raises(ValueError, match=r"low=0.2 and high=0.1 arrived"):
        ranks.largest_gap(S, 0.2, 0.1)
