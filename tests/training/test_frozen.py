"""Gradients at frozen weights: equal to backward's, and nothing is left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from phasescope.analysis.gram import gram
from phasescope.analysis.ranks import count_above
from phasescope.analysis.spectrum import spectrum
from phasescope.models.mlp import MLP, seeded
from phasescope.training.frozen import frozen_gradients


def batches(n: int, *, seed: int = 0, n_classes: int = 3, d: int = 6, size: int = 8):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, d, generator=generator)
    for _ in range(n):
        y = torch.randint(0, n_classes, (size,), generator=generator)
        yield centres[y] + 0.5 * torch.randn(size, d, generator=generator), y


class Awkward(nn.Module):
    """Batch normalisation, dropout, a frozen and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(5, 3)
        self.unused = nn.Parameter(torch.ones(2))
        self.last.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def test_rows_are_the_gradients_that_backward_gives(tmp_path: Path):
    model = seeded(lambda: MLP((6, 5, 3)), 0)
    A = frozen_gradients(model, batches(4), 4, tmp_path / "f.npy")
    assert (A.shape, A.dtype) == ((4, 53), np.float32)
    for row, (x, y) in zip(A, batches(4), strict=True):
        model.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        assert np.array_equal(row, expected.numpy())
    torch.testing.assert_close(gram(A).K.diagonal(), torch.tensor((A**2).sum(1)).double())


def test_nothing_is_left_behind(tmp_path: Path):
    model = seeded(Awkward, 1)
    model.norm.train()
    model.last.eval()
    x, y = next(batches(1))
    functional.cross_entropy(model(x), y).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with torch.no_grad():
        A = frozen_gradients(model, batches(5), 5, tmp_path / "f.npy")
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, p in model.named_parameters():
        assert (p.grad is None) == (grads[name] is None)
        assert p.grad is None or torch.equal(p.grad, grads[name])
    # Columns keep the order of all parameters: zeros where there is no gradient.
    names = [(n, p.numel()) for n, p in model.named_parameters()]
    start = 0
    for name, size in names:
        part = A[:, start : start + size]
        assert (not part.any()) == (name in ("last.bias", "unused"))
        start += size
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]


def test_every_gradient_is_taken_at_the_same_state_and_dropout_draws_anew(tmp_path: Path):
    model = seeded(Awkward, 1)
    batch = next(batches(1))
    A = frozen_gradients(model, [batch] * 2, 2, tmp_path / "a.npy")
    assert not np.array_equal(A[0], A[1])
    model.drop.p = 0.0
    B = frozen_gradients(model, [batch] * 3, 3, tmp_path / "b.npy")
    assert np.array_equal(B[0], B[1])
    assert np.array_equal(B[0], B[2])


def test_too_few_batches_leave_no_file(tmp_path: Path):
    model = MLP((6, 5, 3))
    with pytest.raises(ValueError, match="5 gradients need as many batches, but there were 3"):
        frozen_gradients(model, batches(3), 5, tmp_path / "f.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_is_named(tmp_path: Path):
    model = MLP((6, 5, 3))
    x, y = next(batches(1))
    with pytest.raises(ValueError, match=r"that of batch 1 .* holds nan in parameter 'fc1.weight"):
        frozen_gradients(model, [(x, y), (x * torch.nan, y)], 2, tmp_path / "f.npy")


def test_impossible_requests_are_refused(tmp_path: Path):
    model = MLP((6, 5, 3))
    with pytest.raises(ValueError, match="n=0 and 4 parameters"):
        frozen_gradients(model, batches(1), 0, tmp_path / "f.npy")
    (tmp_path / "f.npy").touch()
    with pytest.raises(FileExistsError, match="Delete it, or write"):
        frozen_gradients(model, batches(1), 1, tmp_path / "f.npy")
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="0 parameters that require a gradient"):
        frozen_gradients(model, batches(1), 1, tmp_path / "g.npy")


def test_ten_classes_have_more_directions_than_two_without_any_training(tmp_path: Path):
    """Acceptance test 7: at least 1.5 times the normalised count, in at least 4 of 5 seeds."""
    more = 0
    for seed in range(5):
        counts = []
        for n_classes in (2, 10):
            model = seeded(lambda k=n_classes: MLP((20, 32, k)), seed)
            draws = batches(120, seed=seed, n_classes=n_classes, d=20, size=64)
            path = tmp_path / f"{seed}-{n_classes}.npy"
            A = frozen_gradients(model, draws, 120, path)
            counts.append(count_above(spectrum(gram(A), normalize=True).S))
        more += counts[1] >= 1.5 * counts[0]
    assert more >= 4
