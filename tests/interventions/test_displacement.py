import math

import pytest
import torch
from torch import nn

from phasescope.components import Subspace
from phasescope.interventions import AtWeights, ablate, ablated, flat_weights, random_subspace
from phasescope.models import MLP, seeded
from phasescope.training import accuracy, class_losses


def vector(seed: int, n: int = 53) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_strength_one_undoes_the_training_in_the_part_and_two_reverses_it():
    start, end = vector(0), vector(1)
    part = random_subspace(53, 4, seed=2, dtype=torch.float64)
    B = part.basis
    torch.testing.assert_close(B @ ablated(start, end, part), B @ start)
    torch.testing.assert_close(B @ (ablated(start, end, part, 2.0) - start), -B @ (end - start))
    assert torch.equal(ablated(start, end, part, 0.0), end)
    # Nothing happens outside: the rest of the displacement stays.
    rest = ablated(start, end, part) - end
    torch.testing.assert_close(B.T @ (B @ rest), rest)


def quadratic_model(end: torch.Tensor) -> nn.Module:
    model = nn.Linear(len(end), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(end[None])
    return model


def test_controls_are_as_long_as_what_is_removed():
    start, end = vector(0), vector(1)
    model = quadratic_model(end)
    part = random_subspace(53, 1, seed=2, dtype=torch.float64)
    within = Subspace("within", random_subspace(53, 6, seed=2, dtype=torch.float64).basis)

    def moved(m: nn.Module) -> torch.Tensor:
        step = m.weights - end
        inside = within.basis @ step
        return torch.stack([step.norm(), inside.norm(), (part.basis @ step)[0]])

    found = ablate(model, start, part, moved, within=within, n_controls=30, seed=1)
    length = float((part.basis @ (end - start)).abs())
    assert found.removed == pytest.approx(length)
    assert found.displacement == pytest.approx(float((end - start).norm()))
    expected = torch.tensor(found.alphas).double() * length
    for table in (found.values[None], found.controls, found.controls_within):
        torch.testing.assert_close(table[..., 0], expected.expand_as(table[..., 0]))
    torch.testing.assert_close(found.controls_within[..., 1], found.controls_within[..., 0])
    # A random direction of the whole space has 6 / 53 of its square in the subspace.
    share = float((found.controls[:, 2, 1] / length).square().mean())
    assert abs(share - 6 / 53) < 4 * math.sqrt(2 * 6 * 47 / (53**2 * 55) / 30)
    assert torch.equal(flat_weights(model), end)


def test_without_within_there_are_no_second_controls_and_seeds_repeat():
    model, start = quadratic_model(vector(1)), vector(0)
    part = random_subspace(53, 2, seed=2, dtype=torch.float64)
    first, second = (
        ablate(model, start, part, lambda m: float(m.weights.sum()), n_controls=3, seed=4)
        for _ in range(2)
    )
    assert first.controls_within.shape == (0, 5, 1)
    assert torch.equal(first.controls, second.controls)
    state = torch.get_rng_state()
    ablate(model, start, part, lambda m: 0.0, n_controls=2)
    assert torch.equal(state, torch.get_rng_state())


def test_mistakes_are_named():
    model, part = quadratic_model(vector(1)), random_subspace(53, 2, seed=2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"has nothing in 'random'"):
        ablate(model, vector(1), part, lambda m: 0.0)
    with pytest.raises(ValueError, match=r"vector of the model's 53 parameters.*\(7,\)"):
        ablate(model, vector(1, 7), part, lambda m: 0.0)
    other = random_subspace(54, 2, seed=0, name="other")
    with pytest.raises(ValueError, match=r"'other' must lie in the model's 53 parameters"):
        ablate(model, vector(0), part, lambda m: 0.0, within=other)
    with pytest.raises(ValueError, match=r"weights of the 54 parameters of 'other'.*\(53,\)"):
        ablated(vector(0), vector(1), other)


def test_a_model_at_other_weights_leaves_its_own_and_its_buffers():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = flat_weights(model) * 2
    other = AtWeights(model, weights)
    other.train()
    out = other(torch.randn(8, 4))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert not torch.equal(out, model.eval()(torch.randn(8, 4)))
    x, y = torch.randn(30, 4), torch.zeros(30, dtype=torch.long)
    assert accuracy(other, x, y) == accuracy(model, x, y)
    with pytest.raises(ValueError, match=r"the model's 29 parameters is required.*\(3,\)"):
        AtWeights(model, torch.zeros(3))


def test_gradients_flow_into_the_weights_of_a_vector():
    model = nn.Linear(3, 1, bias=False)
    weights = torch.ones(3, requires_grad=True)
    AtWeights(model, weights)(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [1, 2, 3]


def test_losses_of_classes_are_the_loss_split_by_class():
    model = seeded(lambda: MLP((6, 5, 3)), 0)
    x, y = torch.randn(50, 6), torch.randint(0, 2, (50,))
    found = class_losses(model, x, y, 3, batch_size=7)
    for c in range(2):
        loss = nn.functional.cross_entropy(model(x[y == c]), y[y == c])
        assert float(found[c]) == pytest.approx(loss.item(), rel=1e-5)
    assert math.isnan(float(found[2]))
    with pytest.raises(ValueError, match=r"labels from 0 to 0, but there are 50 samples"):
        class_losses(model, x, torch.ones_like(y), 1)


class TwoNames(nn.Module):
    """One module under two names, and one parameter in two modules."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again = self.first
        self.other = nn.Linear(2, 2)
        self.other.weight = self.first.weight

    def forward(self, x):
        return self.again(x) + self.other(x)


def test_a_module_with_two_names_has_its_own_weights_afterwards():
    model = TwoNames()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = torch.arange(8.0)
    moved = AtWeights(model, weights)(torch.tensor([[1.0, 1.0]]))
    W, b, c = weights[:4].reshape(2, 2), weights[4:6], weights[6:]
    torch.testing.assert_close(moved, 2 * W.sum(1)[None] + b + c)
    assert isinstance(model.first.weight, nn.Parameter)
    assert model.again is model.first
    assert model.other.weight is model.first.weight
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_weights_that_are_not_finite_are_refused():
    model = seeded(lambda: nn.Linear(2, 1), 0)
    start = flat_weights(model)
    start[1] = math.nan
    with pytest.raises(ValueError, match=r"finite weights are required .*length nan. Check start="):
        ablate(model, start, random_subspace(3, 1, seed=0), lambda m: 0.0)
