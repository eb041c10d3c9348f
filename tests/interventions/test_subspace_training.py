import copy

import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.interventions import (
    InSubspace,
    flat_weights,
    intrinsic_dimension,
    leading_subspace,
    random_subspace,
)
from phasescope.models import MLP, seeded
from phasescope.training import train


def batches(n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64):
    for _ in range(n):
        x = torch.randn(8, 6, generator=generator, dtype=dtype)
        yield x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def network() -> nn.Module:
    return seeded(lambda: MLP((6, 5, 3), nn.Tanh), 1).double()


def test_sgd_on_coordinates_is_sgd_on_projected_gradients():
    model, subspace = network(), random_subspace(53, 7, seed=3, dtype=torch.float64)
    inside = InSubspace(model, subspace)
    train(
        inside,
        torch.optim.SGD(inside.parameters(), lr=0.3, momentum=0.9),
        batches(20, torch.Generator().manual_seed(0)),
    )
    slow = copy.deepcopy(model)
    optimizer = torch.optim.SGD(slow.parameters(), lr=0.3, momentum=0.9)
    basis = subspace.basis
    for x, y in batches(20, torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(slow(x), y).backward()
        g = torch.cat([p.grad.reshape(-1) for p in slow.parameters() if p.grad is not None])
        rest = basis.T @ (basis @ g)
        for p in slow.parameters():
            p.grad, rest = rest[: p.numel()].view_as(p), rest[p.numel() :]
        optimizer.step()
    assert (inside.weights() - flat_weights(slow)).abs().max() < 1e-12
    assert (inside.weights() - flat_weights(model)).norm() > 0.1


def test_the_model_that_it_is_made_of_stays_and_its_buffers_too():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    before = copy.deepcopy(model.state_dict())
    P = sum(p.numel() for p in model.parameters())
    inside = InSubspace(model, random_subspace(P, 3, seed=0))
    train(
        inside,
        torch.optim.SGD(inside.parameters(), lr=0.3),
        batches(5, torch.Generator().manual_seed(0)),
    )
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert [name for name, _ in inside.named_parameters()] == ["coordinates"]
    # Its own running statistics moved, as in any model in training mode.
    assert int(inside.inner.get_buffer("1.num_batches_tracked")) == 5
    assert "basis" not in inside.state_dict()


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    inside = InSubspace(model, random_subspace(16, 2, seed=0))
    with torch.no_grad():
        inside.coordinates.fill_(1.0)
    x = torch.randn(3, 4)
    W = inside.weights().view(4, 4)
    torch.testing.assert_close(inside(x), torch.tanh(x @ W.T) @ W.T)


def test_a_recorder_records_the_coordinates(tmp_path):
    inside = InSubspace(network(), random_subspace(53, 4, seed=0))
    optimizer = torch.optim.Adam(inside.parameters(), lr=0.1)
    with ps.Recorder(
        tmp_path / "run", inside, optimizer, save={"weights": ps.every(1)}
    ) as recorder:
        train(inside, optimizer, batches(6, torch.Generator().manual_seed(0)), recorder=recorder)
    weights = ps.open_run(tmp_path / "run").weights
    assert weights.shape == (7, 4)
    torch.testing.assert_close(torch.from_numpy(weights[-1]), inside.coordinates.detach().float())


@pytest.mark.parametrize(("n", "k"), [(40, 40), (300, 20), (5000, 64)])
def test_a_random_subspace_is_orthonormal_and_nested(n: int, k: int):
    basis = random_subspace(n, k, seed=5).basis.double()
    assert (basis @ basis.T - torch.eye(k).double()).abs().max() < 1e-6
    numbers = torch.randn(k, n, generator=torch.Generator().manual_seed(5)).double()
    # Row j lies in the span of the first j + 1 rows of the normal numbers, on the side of row j.
    coordinates = numbers @ basis.T
    assert coordinates.triu(1).abs().max() < 1e-4
    assert (coordinates.diagonal() > 0).all()


def test_a_random_subspace_is_uniform():
    # The share of a fixed unit vector in it is beta(k/2, (n-k)/2): mean k/n.
    shares = torch.tensor(
        [float(random_subspace(50, 10, seed=s).basis[:, 0].square().sum()) for s in range(400)]
    )
    sd = (2 * 10 * 40 / (50**2 * 52)) ** 0.5
    assert abs(float(shares.mean()) - 0.2) < 4 * sd / 20
    assert abs(float(shares.std()) / sd - 1) < 0.15
    state = torch.get_rng_state()
    random_subspace(50, 10, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_the_leading_subspace_is_that_of_the_svd():
    A = torch.randn(12, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A *= torch.linspace(3, 0.2, 12, dtype=torch.float64)[:, None]
    V = torch.linalg.svd(A, full_matrices=False).Vh[:5]
    basis = leading_subspace(A, 5).basis.double()
    assert (basis @ V.T).abs().diagonal().min() > 1 - 1e-6
    centred = torch.linalg.svd(A[2:] - A[2:].mean(0), full_matrices=False).Vh[:3]
    found = leading_subspace(A, 3, center="steps", steps=slice(2, None)).basis.double()
    assert (found @ centred.T).abs().diagonal().min() > 1 - 1e-6


def test_more_directions_than_steps_are_refused():
    with pytest.raises(ValueError, match=r"k must be between 1 and 3.*k=4 arrived"):
        leading_subspace(torch.randn(3, 10), 4)
    with pytest.raises(ValueError, match=r"between 1 and 10 directions.*k=11 arrived"):
        random_subspace(10, 11, seed=0)


def test_a_subspace_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"'random' must lie in the model's 53 parameters.*54"):
        InSubspace(network(), random_subspace(54, 2, seed=0))


@pytest.mark.parametrize("answer", range(6))
def test_the_bisection_finds_every_answer(answer: int):
    dimensions = [1, 4, 9, 16, 25]

    def performance(d: int) -> float:
        return 0.95 if answer < 5 and d >= dimensions[answer] else float("nan")

    found = intrinsic_dimension(performance, 1.0, dimensions)
    assert found.dimension == (dimensions[answer] if answer < 5 else None)
    assert found.below == (dimensions[answer - 1] if answer else 0)
    assert found.target == 0.9
    assert len(found.tried) <= 3


def test_a_search_without_order_or_baseline_is_refused():
    with pytest.raises(ValueError, match=r"strictly increasing, is required.*\[3, 2\]"):
        intrinsic_dimension(float, 1.0, [3, 2])
    with pytest.raises(ValueError, match=r"baseline=0.0 and share=0.9 arrived"):
        intrinsic_dimension(float, 0.0, [1])


def test_a_least_squares_problem_of_known_dimension_needs_exactly_that():
    # Targets depend on d0 random directions of the weights at the optimum: fewer do not reach it.
    P, needed = 60, 12
    truth = random_subspace(P, needed, seed=1, dtype=torch.float64)

    def fall(k: int) -> float:
        inside = InSubspace(
            nn.Linear(P, 1, bias=False).double(),
            ps.Subspace("part of the truth", truth.basis[:k]),
        )
        with torch.no_grad():
            inside.start.zero_()
        goal = truth.basis.sum(0)
        optimizer = torch.optim.SGD(inside.parameters(), lr=0.5)
        for _ in range(60):
            optimizer.zero_grad()
            loss = 0.5 * (inside.weights() - goal).square().sum()
            loss.backward()
            optimizer.step()
        final = 0.5 * float((inside.weights() - goal).detach().square().sum())
        return 1 - final / (0.5 * float(goal.square().sum()))

    found = intrinsic_dimension(fall, 1.0, range(1, needed + 1), share=1 - 1e-9)
    assert found.dimension == needed
    assert found.below == needed - 1


def test_a_layer_that_is_used_twice_leaves_a_module_that_can_be_saved_and_copied():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    inside = InSubspace(model, random_subspace(12, 2, seed=0))
    x = torch.ones(2, 3)
    names = set(inside.state_dict())
    torch.testing.assert_close(inside(x), model(x))
    inside(x).sum().backward()
    assert set(inside.state_dict()) == names
    assert not any(value.requires_grad for name, value in inside.inner.state_dict().items())
    torch.testing.assert_close(copy.deepcopy(inside)(x), model(x))
