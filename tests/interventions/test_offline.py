import numpy as np
import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.interventions import (
    flat_weights,
    keep,
    leading_subspace,
    random_subspace,
    remove,
    replay,
    replay_curves,
)
from phasescope.models import MLP, seeded
from phasescope.training import accuracy, train


def problem(n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 10, generator=generator)
    return x, (x[:, :3] @ torch.eye(3) + 0.3 * x[:, 3:6]).argmax(1)


def batches(seed: int, n_steps: int):
    x, y = problem()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        rows = torch.randint(0, len(x), (32,), generator=generator)
        yield x[rows], y[rows]


def network() -> nn.Module:
    return seeded(lambda: MLP((10, 16, 3)), 0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of SGD with momentum, and one of plain SGD, with updates and gradients."""
    runs = {}
    for name, momentum in (("plain", 0.0), ("momentum", 0.9)):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
        path = tmp_path_factory.mktemp("runs") / name
        save = {"updates": ps.every(1), "gradients": ps.every(1), "weights": ps.every(1)}
        with ps.Recorder(path, model, optimizer, save=save) as recorder:
            train(model, optimizer, batches(1, 120), recorder=recorder)
        runs[name] = ps.open_run(path)
    return runs


def as_double(series) -> torch.Tensor:
    return torch.from_numpy(series[:]).double()


def test_projecting_the_displacement_is_projecting_every_recorded_gradient(recorded):
    run = recorded["plain"]
    subspace = leading_subspace(run.gradients, 8)
    B = subspace.basis.double()
    W, G = as_double(run.weights), as_double(run.gradients)
    slow = W[0] - 0.05 * torch.cumsum((G @ B.T) @ B, 0)  # gradient by gradient, float64
    steps = [1, 7, 60, 120]
    by_updates = replay(run.updates, subspace, steps=steps)
    by_gradients = replay(run.gradients, subspace, steps=steps, factors=-0.05)
    for found in (by_updates, by_gradients):
        for row, step in enumerate(steps):
            assert (W[0] + found.inside()[row] - slow[step - 1]).abs().max() < 1e-5
            assert (W[step] - W[0] - found.displacement[row]).abs().max() < 1e-6
    # Exact where nothing was rounded to float32: the identity, not an accident of small numbers.
    exact = replay(G, ps.Subspace.spanned_by("B", B), steps=steps, factors=-0.05)
    assert (W[0] + exact.inside()[-1] - slow[-1]).abs().max() < 1e-13 + 1e-6 * 8
    assert exact.displacement.dtype == torch.float64


def test_with_momentum_the_projection_commutes_with_the_recursion(recorded):
    run = recorded["momentum"]
    subspace = leading_subspace(run.gradients, 5)
    B, G = subspace.basis.double(), as_double(run.gradients)
    velocity, moved = torch.zeros(G.shape[1]).double(), torch.zeros(G.shape[1]).double()
    for g in G:
        velocity = 0.9 * velocity + B.T @ (B @ g)
        moved -= 0.05 * velocity
    found = replay(run.updates, subspace)
    assert (found.inside()[0] - moved).abs().max() < 1e-5
    assert moved.abs().max() > 1e-2


def test_the_part_inside_and_the_rest_sum_to_the_whole(recorded):
    run = recorded["plain"]
    found = replay(run.updates, leading_subspace(run.updates, 10), steps=[30, 120])
    for k in (1, 4, 10):
        torch.testing.assert_close(found.inside(k) + found.outside(k), found.displacement)
        inner = (found.inside(k).double() * found.outside(k).double()).sum(1)
        assert (inner.abs() < 1e-5 * found.displacement.double().square().sum(1)).all()
        share = found.inside(k).double().square().sum(1) / found.displacement.double().square().sum(
            1
        )
        torch.testing.assert_close(found.captured(k), share, rtol=1e-5, atol=0)
    assert float(found.captured(10)[1]) > 0.9


def test_random_directions_are_worse_than_the_leading_ones(recorded):
    run = recorded["momentum"]
    model, (x, y) = network(), problem()
    start = flat_weights(model)
    P = len(start)
    measured = []
    for subspace in (leading_subspace(run.updates, 10), random_subspace(P, 10, seed=1)):
        found = replay(run.updates, subspace, steps=[60, 120])
        measured.append(replay_curves(model, start, found, lambda m: accuracy(m, x, y), [2, 10]))
    leading, random = measured
    assert torch.equal(leading.full, random.full)
    assert float(leading.full[1]) > 0.9
    assert float(leading.inside[1, 1]) > float(leading.full[1]) - 0.03
    assert float(random.inside[1, 1]) < 0.6
    # What the leading directions take along, the rest lacks; a random rest lacks nothing.
    assert float(random.outside[1, 1]) > float(random.full[1]) - 0.02
    assert torch.equal(flat_weights(model), start)
    assert leading.inside.shape == (2, 2)


def test_blocks_and_memory_do_not_change_the_result(recorded):
    run = recorded["plain"]
    subspace = leading_subspace(run.updates, 3)
    whole = replay(run.updates, subspace, steps=[5, 50])
    small = replay(run.updates, subspace, steps=[5, 50], memory=200_000)
    torch.testing.assert_close(small.displacement, whole.displacement, rtol=0, atol=0)
    torch.testing.assert_close(small.coordinates, whole.coordinates, rtol=1e-12, atol=1e-14)


def test_a_learning_rate_schedule_is_a_factor_per_step():
    G = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rates = torch.linspace(0.1, 0.01, 6, dtype=torch.float64)
    subspace = random_subspace(4, 2, seed=0, dtype=torch.float64)
    found = replay(G, subspace, factors=-rates)
    torch.testing.assert_close(found.displacement[0], -(rates[:, None] * G).sum(0))


def test_planted_low_rank_gradients_are_recovered_exactly():
    # Three planted directions: the leading subspace is their span, and replay loses nothing.
    planted = random_subspace(500, 3, seed=4, dtype=torch.float64).basis
    weights = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    G = weights @ planted
    subspace = leading_subspace(G, 3)
    assert (subspace.basis.double() @ planted.T).square().sum() == pytest.approx(3, abs=1e-5)
    found = replay(G, subspace, steps=[10, 40], factors=-0.1)
    assert found.outside().abs().max() < 1e-5
    assert (found.captured() > 1 - 1e-7).all()  # the basis is float32
    with pytest.raises(ValueError, match=r"k must be between 1 and 3.*k=4 arrived"):
        leading_subspace(G, 4)


def quadratic(transform=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights after 60 steps on a quadratic that curves in a known plane only, and its minimum."""
    plane = random_subspace(30, 2, seed=2, dtype=torch.float64)
    model = nn.Linear(30, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    goal = plane.basis.T @ torch.tensor([3.0, -1.0], dtype=torch.float64)
    curvature = torch.tensor([1.0, 0.3], dtype=torch.float64)

    def loss_fn(weights, _):
        return 0.5 * (curvature * (plane.basis @ (weights[0] - goal)).square()).sum()

    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, _):
            return self.inner.weight

    whole = Weights()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.5)
    x = torch.zeros(1)
    train(whole, optimizer, [(x, x)] * 60, loss_fn=loss_fn, transform=transform)
    return flat_weights(whole), goal


def test_the_true_subspace_of_a_quadratic_is_full_training_and_its_complement_is_none():
    plane = random_subspace(30, 2, seed=2, dtype=torch.float64)
    full, goal = quadratic()
    assert (full - goal).abs().max() < 1e-3
    inside, _ = quadratic(keep(plane))
    assert (inside - full).abs().max() < 1e-12
    outside, _ = quadratic(remove(plane))
    assert outside.abs().max() < 1e-12
    other, _ = quadratic(keep(random_subspace(30, 2, seed=9, dtype=torch.float64)))
    assert (other - goal).norm() > 0.5 * goal.norm()


def test_bad_input_is_refused_with_advice(recorded):
    run = recorded["plain"]
    subspace = leading_subspace(run.updates, 2)
    with pytest.raises(ValueError, match=r"227 columns of the subspace 'leading'.*have 10"):
        replay(torch.zeros(5, 10), subspace)
    with pytest.raises(ValueError, match=r"increase from 0 on and end by 120.*\[121\] arrived"):
        replay(run.updates, subspace, steps=[121])
    with pytest.raises(ValueError, match=r"k must be between 1 and 2.*'leading', but k=3"):
        replay(run.updates, subspace).inside(3)
    updates = torch.from_numpy(run.updates[:])
    updates[7, 3] = torch.inf
    with pytest.raises(ValueError, match=r"an update before step 120 is not"):
        replay(updates, subspace)
    assert replay(updates, subspace, steps=[7]).displacement.isfinite().all()
    with pytest.raises(ValueError, match=r"vector of the model's 4 parameters is required.*227"):
        replay_curves(nn.Linear(3, 1), torch.zeros(4), replay(run.updates, subspace), id, [1])


def test_a_run_without_updates_or_with_gaps_says_what_to_record(tmp_path):
    model = nn.Linear(10, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ps.Recorder(
        tmp_path / "run", model, optimizer, save={"gradients": ps.every(2)}
    ) as recorder:
        train(model, optimizer, batches(0, 9), recorder=recorder)
    run = ps.open_run(tmp_path / "run")
    subspace = random_subspace(33, 2, seed=0)
    with pytest.raises(KeyError, match=r"has not recorded 'updates'.*every\(1\)"):
        replay(run.updates, subspace)
    with pytest.raises(ValueError, match=r"a gap after step 0.*every\(1\)"):
        replay(run.gradients, subspace, factors=-0.1)
    assert np.array_equal(run.gradients.steps, [0, 2, 4, 6, 8])
