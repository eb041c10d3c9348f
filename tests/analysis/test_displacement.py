import numpy as np
import pytest
import torch

from phasescope.analysis.displacement import mean_squared_displacement
from phasescope.analysis.gram import Gram, gram


class Path:
    def __init__(self, values: torch.Tensor, steps: list[int]) -> None:
        self.values, self.steps = values, np.array(steps)
        self.shape, self.dtype = tuple(values.shape), values.dtype

    def __getitem__(self, key: object) -> np.ndarray:
        return self.values[key].numpy()


SPACED = sorted({round(1.12**i) for i in range(55)})


def walk(seed: int, steps: list[int], drift: float = 0.0) -> Gram:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps[-1] + 1, 400, generator=generator).double() + drift
    return gram(Path(noise.cumsum(0)[steps], steps))


@pytest.mark.parametrize("steps", [list(range(0, 300, 5)), SPACED])
def test_planted_exponents_are_found_however_steps_are_spaced(steps: list[int]):
    found = mean_squared_displacement(walk(0, steps))
    assert abs(found.exponent - 1) < 0.08
    assert found.p_value > 0.01
    line = torch.tensor(steps).double()[:, None] * torch.randn(1, 40).double()
    straight = mean_squared_displacement(gram(Path(line, steps)))
    assert straight.exponent == pytest.approx(2, abs=1e-9)
    assert straight.p_value == pytest.approx(0.01)
    still = torch.randn(len(steps), 400, generator=torch.Generator().manual_seed(1)).double()
    assert abs(mean_squared_displacement(gram(Path(still, steps))).exponent) < 0.05


def test_values_are_mean_squared_distances():
    steps = list(range(30))
    points = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)).double()
    found = mean_squared_displacement(gram(points), n_draws=0)
    distances = torch.cdist(points, points).square()
    one = torch.tensor([distances[i, i + 1] for i in steps[:-1]]).mean()
    assert found.lags[0] == 1
    assert float(found.values[0]) == pytest.approx(float(one), rel=1e-10)
    assert int(found.n_pairs[0]) == 29
    assert np.isnan(found.p_value)


def test_the_p_value_errs_as_often_as_it_says_on_walks():
    p = [
        mean_squared_displacement(walk(seed, list(range(40))), n_draws=39, seed=seed).p_value
        for seed in range(50)
    ]
    # p is uniform on a grid of 1/20: at most .1 in five of fifty; 99.9 % of binomials below 13.
    assert sum(x <= 0.1 for x in p) <= 12


def test_a_walk_with_growing_steps_is_no_drift():
    generator = torch.Generator().manual_seed(0)
    growing = torch.randn(80, 400, generator=generator) * torch.arange(1, 81)[:, None]
    found = mean_squared_displacement(gram(growing.double().cumsum(0)))
    assert found.p_value > 0.02


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 8 points, but 5 arrived"):
        mean_squared_displacement(walk(0, list(range(5))))
    with pytest.raises(ValueError, match=r"at least two lags, but max_lag=0\.01 leaves 1"):
        mean_squared_displacement(walk(0, list(range(20))), max_lag=0.01)
