"""Random walks: closed forms against exact matrices, and the optimizer's own recursion."""

import math

import numpy as np
import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.ranks import count_above, participation_ratio, stable_rank
from phasescope.analysis.spectrum import spectrum
from phasescope.analysis.walks import (
    random_walk_time_vectors,
    random_walk_values,
    walk_null,
    wishart_factor,
)


def cumulated(n: int) -> torch.Tensor:
    """Points of a walk whose increments are the unit vectors: the limit of many dimensions."""
    return torch.ones(n, n, dtype=torch.float64).tril()


@pytest.mark.parametrize("n", [2, 7, 100])
def test_values_are_those_of_the_exact_matrix(n: int):
    """Acceptance test 4: to 1e-10."""
    A = cumulated(n)
    S = torch.linalg.svdvals(A - A.mean(0))[:-1]
    torch.testing.assert_close(random_walk_values(n), S, rtol=1e-10, atol=0)
    S = torch.linalg.svdvals(A)
    torch.testing.assert_close(random_walk_values(n, centered=False), S, rtol=1e-10, atol=0)
    assert float((random_walk_values(n) ** 2).sum()) == pytest.approx((n * n - 1) / 6)


def test_time_vectors_are_cosines():
    V = random_walk_time_vectors(40, 39)
    torch.testing.assert_close(V.T @ V, torch.eye(39, dtype=torch.float64), rtol=0, atol=1e-12)
    found = spectrum(gram(cumulated(40)), center="steps").time_vectors[:, :39]
    torch.testing.assert_close((V.T @ found).abs(), torch.eye(39).double(), rtol=0, atol=1e-9)


def test_counts_shares_and_ranks_are_the_published_ones():
    S, raw = random_walk_values(400), random_walk_values(400, centered=False)
    assert (count_above(S), count_above(raw)) == (10, 5)
    assert participation_ratio(S) == pytest.approx(2.5, rel=1e-4)
    assert participation_ratio(raw) == pytest.approx(1.5, rel=1e-2)
    assert stable_rank(S) == pytest.approx(math.pi**2 / 6, rel=1e-4)
    assert stable_rank(raw) == pytest.approx(math.pi**2 / 8, rel=1e-2)
    shares = (S**2 / (S**2).sum())[:5]
    expected = torch.tensor([0.608, 0.152, 0.068, 0.038, 0.024]).double()
    torch.testing.assert_close(shares, expected, atol=5e-4, rtol=0)
    assert float((raw**2 / (raw**2).sum())[0]) == pytest.approx(8 / math.pi**2, rel=1e-2)
    ratios = raw[0] / raw[:5]
    torch.testing.assert_close(ratios, torch.tensor([1, 3, 5, 7, 9]).double(), rtol=1e-3, atol=0)


def test_drift_puts_its_energy_into_the_odd_cosines():
    t = torch.arange(2000.0, dtype=torch.float64)
    t = (t - t.mean()) / (t - t.mean()).norm()
    shares = (random_walk_time_vectors(2000, 4).T @ t) ** 2
    expected = torch.tensor([96 / math.pi**4, 0, 96 / math.pi**4 / 81, 0]).double()
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)


def test_momentum_and_decay_give_the_known_shares():
    n = 300
    null = walk_null(torch.ones(n), torch.arange(1, n + 1), momentum=0.9)
    shares = null.S**2 / (null.S**2).sum()
    assert float(shares[0]) == pytest.approx(0.6618, abs=5e-5)
    assert float(shares[1]) == pytest.approx(0.1609, abs=5e-5)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_the_walk_is_that_of_the_optimizer_itself(nesterov: bool, decoupled: bool, monkeypatch):
    """Gradients that are unit vectors make the weights themselves the response matrix."""
    from phasescope.analysis import walks

    monkeypatch.setattr(walks, "_BLOCK", 7)  # several blocks
    n, decay, momentum = 20, 0.05, 0.8
    scales, rates = torch.linspace(2, 0.5, n).double(), torch.linspace(0.1, 0.3, n).double()
    w = torch.nn.Parameter(torch.zeros(n, dtype=torch.float64))
    optimizer = torch.optim.SGD(
        [w], lr=1.0, momentum=momentum, nesterov=nesterov, weight_decay=0 if decoupled else decay
    )
    points = [w.detach().clone()]
    for t in range(n):
        optimizer.param_groups[0]["lr"] = float(rates[t])
        if decoupled:
            w.data *= 1 - float(rates[t]) * decay
        w.grad = torch.zeros(n, dtype=torch.float64)
        w.grad[t] = scales[t]
        optimizer.step()
        points.append(w.detach().clone())
    steps = torch.tensor([0, 3, 4, 11, 20])
    A = torch.stack(points)[steps]
    found = walk_null(
        scales, steps, learning_rates=rates, momentum=momentum, nesterov=nesterov,
        weight_decay=decay, decoupled=decoupled,
    )  # fmt: skip
    expected = spectrum(gram(A), center="steps").S
    torch.testing.assert_close(found.S, expected, rtol=1e-9, atol=1e-12)
    assert (found.center, found.normalize) == ("steps", False)
    assert torch.equal(found.steps, steps)
    assert found.draws.shape == (1, 5)


def test_draws_without_columns_are_distributed_like_walks_with_columns():
    """The T × T construction against noise of d columns made outright, for d above and below T."""
    n, n_draws = 12, 400
    scales = torch.linspace(2, 0.5, n).double()
    for d in (8, 40):
        null = walk_null(
            scales, torch.arange(1, n + 1), n_dimensions=d, n_draws=n_draws, center="steps"
        )
        generator = torch.Generator().manual_seed(1)
        direct = []
        for _ in range(n_draws):
            Z = torch.randn(n, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
            X = (scales[:, None] * Z).cumsum(0)
            direct.append(torch.linalg.svdvals(X - X.mean(0)))
        direct = torch.stack(direct)
        k = min(n - 1, d)
        assert null.draws.shape == (n_draws, min(n, d))
        # Means and spreads of 400 draws each: four standard errors.
        error = (null.draws.std(0)[:k] ** 2 + direct.std(0)[:k] ** 2).sqrt() / math.sqrt(n_draws)
        assert bool(((null.draws.mean(0) - direct.mean(0))[:k].abs() < 4 * error).all())
        ratio = null.draws.std(0)[:k] / direct.std(0)[:k]
        assert bool((ratio.log().abs() < 4 / math.sqrt(n_draws)).all())


def test_many_dimensions_tend_to_the_limit():
    n = 50
    limit = walk_null(torch.ones(n), torch.arange(1, n + 1))
    found = walk_null(torch.ones(n), torch.arange(1, n + 1), n_dimensions=10**7, n_draws=3)
    torch.testing.assert_close(found.S[:5], limit.S[:5], rtol=5e-3, atol=0)


def test_wishart_factors_have_the_right_mean_and_variance():
    generator = np.random.default_rng(0)
    for n, d in ((4, 9), (4, 2)):
        W = torch.stack([(L := wishart_factor(n, d, generator)) @ L.T for _ in range(4000)])
        expected = d * torch.eye(n).double()
        torch.testing.assert_close(W.mean(0), expected, rtol=0, atol=5 * math.sqrt(2 * d / 4000))
        variance = d * (1 + torch.eye(n).double())
        torch.testing.assert_close(W.var(0), variance, rtol=0.25, atol=0)


@pytest.mark.parametrize(
    ("steps", "options", "message"),
    [
        ([1], {}, "at least two increasing numbers of updates between 0 and 5"),
        ([1, 6], {}, "between 0 and 5"),
        ([3, 2], {}, "increasing"),
        ([1, 2], {"learning_rates": torch.ones(4)}, "every one of the 5 updates.*4 learning rates"),
        ([1, 2], {"center": "both"}, "center must be 'none' or 'steps' for a walk"),
        ([1, 2], {"n_dimensions": 0}, "n_dimensions=0 arrived"),
        ([1, 2], {"momentum": 1.0}, r"momentum must lie in \[0, 1\).*momentum=1.0"),
        ([1, 2], {"weight_decay": -1.0}, r"weight_decay=-1.0 arrived: such a walk diverges"),
        ([1, 2], {"learning_rates": 0.0}, "scales are norms: they must be >= 0 and, times"),
    ],
)
def test_impossible_walks_are_refused(unchecked_types, steps, options, message):
    with pytest.raises(ValueError, match=message):
        walk_null(torch.ones(5), torch.tensor(steps), **options)


def test_scales_that_are_no_norms_are_refused():
    with pytest.raises(ValueError, match=r"range from -1 to -1\. Pass the recorded norms"):
        walk_null(-torch.ones(5), torch.tensor([1, 5]))


def test_a_walk_has_at_least_two_points():
    with pytest.raises(ValueError, match="at least two points, but n_points=1"):
        random_walk_values(1)
    with pytest.raises(ValueError, match="1 to 4 time vectors, but k=5"):
        random_walk_time_vectors(5, 5)
