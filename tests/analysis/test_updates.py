import numpy as np
import pytest
import torch

from phasescope.analysis.updates import update_statistics
from phasescope.components import Subspace
from phasescope.parameters import Component, ParameterTable


@pytest.fixture(scope="module")
def walk() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(12, 50, generator=generator, dtype=torch.float64)
    return 5 + steps.cumsum(0)


class Checkpoints:
    """A matrix that knows its steps and its parameters, as a run's series does."""

    def __init__(self, values: torch.Tensor, steps: list[int], table: ParameterTable) -> None:
        self.values, self.steps, self.parameters = values, np.array(steps), table
        self.shape, self.dtype = tuple(values.shape), values.dtype

    def __getitem__(self, key: object) -> np.ndarray:
        return self.values[key].numpy()


PARTS = {
    "rows": Component("rows", ((0, 7), (20, 31))),
    "strided": Component("strided", blocks=np.array([[2, 3, 10, 5]])),
    "full": Component("full", ((0, 50),)),
    "plane": Subspace.spanned_by(
        "plane", torch.randn(2, 50, generator=torch.Generator().manual_seed(3)).double()
    ),
}


def test_every_statistic_equals_its_definition(walk: torch.Tensor):
    rates = torch.rand(11, generator=torch.Generator().manual_seed(1))
    found = update_statistics(walk, components=PARTS, learning_rates=rates)
    assert found.names == tuple(PARTS)
    for name, part in PARTS.items():
        inside = walk @ part.basis.T if isinstance(part, Subspace) else walk[:, part.columns]
        i, D = found.row(name), inside.diff(dim=0)
        assert int(found.sizes[i]) == inside.shape[1]
        expected = {
            "norm": inside.norm(dim=1),
            "change": D.norm(dim=1),
            "displacement": (inside - inside[0]).norm(dim=1),
            "cosine": torch.cosine_similarity(D[:-1], D[1:], dim=1),
            "radial": torch.cosine_similarity(D, inside[:-1], dim=1),
            "per_parameter": D.square().mean(1),
            "relative": D.norm(dim=1) / inside[:-1].norm(dim=1),
            "per_squared_rates": D.square().mean(1) / rates.double().square(),
            "per_rates": D.square().mean(1) / rates.double() ** 2,
        }
        for field, values in expected.items():
            torch.testing.assert_close(getattr(found, field)[i], values, rtol=1e-12, atol=1e-12)
        length = D.norm(dim=1).sum()
        torch.testing.assert_close(found.path_length[i, -1], length)
        torch.testing.assert_close(found.efficiency[i], (inside[-1] - inside[0]).norm() / length)


def test_blocks_of_columns_give_the_same_as_one_block(walk: torch.Tensor):
    wide = walk.repeat(1, 40)
    parts = {
        "a": Component("a", ((3, 1990),)),
        "b": Component("b", blocks=np.array([[1, 2, 7, 280]])),
    }
    whole = update_statistics(wide, components=parts)
    blocks = update_statistics(wide, components=parts, memory=120_000)
    for field in ("norm", "change", "displacement", "cosine", "radial"):
        torch.testing.assert_close(getattr(whole, field), getattr(blocks, field))


def test_diffusion_and_drift_are_told_apart_by_the_normalisation():
    steps = [0, 1, 3, 7, 15, 31, 63]
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(64, 20_000, generator=generator).double().cumsum(0)[steps]
    drift = torch.tensor(steps).double()[:, None] * torch.ones(1, 30)
    table = ParameterTable(("walk", "drift"), ((20_000,), (30,)))
    found = update_statistics(Checkpoints(torch.cat([walk, drift], 1), steps, table))
    assert found.names == ("walk", "drift")
    torch.testing.assert_close(
        found.per_step[0], torch.ones(6).double(), rtol=0.05, atol=0
    )  # unit variance per step, 20,000 of them: 1 % each
    torch.testing.assert_close(found.per_squared_step[1], torch.ones(6).double())
    assert found.per_parameter[1, -1] > 1000 * found.per_parameter[1, 0]
    assert abs(float(found.efficiency[1]) - 1) < 1e-12


def test_a_small_change_of_large_weights_keeps_its_digits():
    w = torch.full((2, 1000), 1e3, dtype=torch.float64)
    w[1] += 1e-9
    exact = float((w[1] - w[0]).norm())
    assert float(update_statistics(w).change) == pytest.approx(exact, rel=1e-12)


def test_learning_rates_are_summed_over_the_updates_between_checkpoints():
    table = ParameterTable(("w",), ((3,),))
    found = update_statistics(
        Checkpoints(torch.arange(9.0).view(3, 3).double(), [2, 3, 6], table),
        learning_rates=torch.tensor([9.0, 9.0, 0.5, 1.0, 2.0, 3.0, 9.0]),
    )
    assert found.rates is not None
    assert found.rates.tolist() == [0.5, 6.0]
    assert found.squared_rates is not None
    assert found.squared_rates.tolist() == [0.25, 14.0]


def test_bad_input_is_named(walk: torch.Tensor):
    with pytest.raises(ValueError, match="at least two checkpoints, but 1 arrived"):
        update_statistics(walk[:1])
    with pytest.raises(ValueError, match="up to the last checkpoint, of step 11, but it has 3"):
        update_statistics(walk, learning_rates=torch.ones(3))
    with pytest.raises(ValueError, match="Pass learning_rates="):
        _ = update_statistics(walk).per_rates
    with pytest.raises(ValueError, match="components= is empty"):
        update_statistics(walk, components={})
    with pytest.raises(ValueError, match="must have the 50 columns of the basis of 'plane'"):
        update_statistics(walk[:, :40], components=PARTS)
    with pytest.raises(KeyError, match="no component is called 'l0h1'; there are full"):
        update_statistics(walk).row("l0h1")
    broken = walk.clone()
    broken[4, 30] = torch.nan
    with pytest.raises(ValueError, match="'rows' holds others at step 4"):
        update_statistics(broken, components=PARTS)
