import math

import pytest
import torch

from phasescope.analysis.smoothing import ema


def tensorboard(values: list[float], smoothing: float) -> list[float]:
    """TensorBoard's loop, line by line."""
    last, count, out = 0.0, 0, []
    constant = all(v == values[0] for v in values)
    for value in values:
        if constant or not math.isfinite(value):
            out.append(value)
            continue
        last = last * smoothing + (1 - smoothing) * value
        count += 1
        debias = 1.0 if smoothing == 1 else 1 - smoothing**count
        out.append(last / debias)
    return out


@pytest.mark.parametrize("smoothing", [0.0, 0.08, 0.6, 0.92, 0.999, 1.0])
def test_the_average_equals_tensorboards_recurrence(smoothing: float):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300, generator=generator, dtype=torch.float64)
    values[[0, 7, 50, 51]] = torch.tensor([math.nan, math.inf, math.nan, -math.inf]).double()
    expected = torch.tensor(tensorboard(values.tolist(), smoothing), dtype=torch.float64)
    torch.testing.assert_close(
        ema(values, smoothing), expected, rtol=1e-12, atol=1e-14, equal_nan=True
    )


def test_constant_series_are_returned_unchanged_and_smoothing_is_clipped():
    constant = torch.full((5,), 0.1)
    assert torch.equal(ema(constant, 0.9), constant.double())
    values = torch.tensor([1.0, 2.0, 4.0])
    assert torch.equal(ema(values, -3.0), values.double())
    assert torch.equal(ema(values, 7.0), torch.zeros(3).double())


def test_white_noise_keeps_the_share_that_the_docstring_states():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(8, 20_000, generator=generator)
    for s, share in ((0.08, 0.92), (0.6, 0.5), (0.92, 0.204)):
        assert abs(float(ema(noise, s)[:, 500:].std()) - share) < 0.01
