"""Curves as lists, arrays and tensors, and what is wrong with them."""

from typing import Any

import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.analysis.curves import as_curve

STEPS = list(range(0, 4000, 10))
NOISE = torch.randn(len(STEPS), generator=torch.Generator().manual_seed(0)).double()
CURVE = (1 / (1 + (1000 / (torch.tensor(STEPS) + 1.0)) ** 8)).double() + 0.02 * NOISE
LOSS = torch.exp(-CURVE)
LOSS[200] *= 10


def forms(values: torch.Tensor) -> list[Any]:
    return [values, values.numpy(), values.tolist()]


def shares(values: Any) -> Any:
    """What `grok_times` takes, in the form in which the values come."""
    if isinstance(values, list):
        return [min(max(value, 0.0), 1.0) for value in values]
    return values.clip(0, 1)


@pytest.mark.parametrize(
    "found",
    [
        lambda t, y: [x.midpoint for x in ps.find_transitions(t, y)],
        lambda t, y: ps.change_points(t, y).steps.tolist(),
        lambda t, y: ps.first_reached(t, y, 0.5, hold=3),
        lambda t, y: ps.log_blocks(t, y, 50).values.tolist(),
        lambda t, y: ps.grok_times(t, shares(y), shares(y)).grokked,
        lambda t, y: ps.falling_share(y),
    ],
)
def test_lists_arrays_and_tensors_are_one(found: Any):
    steps = torch.tensor(STEPS)
    first, *others = (found(t, y) for t, y in zip(forms(steps), forms(CURVE), strict=True))
    assert first
    assert all(other == first for other in others)


def test_spikes_and_movers_take_them_too():
    steps = torch.tensor(STEPS)
    spikes = [
        ps.find_spikes(t, y, noise_factor=3.0).peak.tolist()
        for t, y in zip(forms(steps), forms(LOSS), strict=True)
    ]
    assert spikes[0] == spikes[1] == spikes[2] == [STEPS[200]]
    squares = torch.stack([CURVE.square(), LOSS])
    ratios = [
        ps.movers(t, y, 1000, 1500).ratio.tolist()
        for t, y in zip(forms(steps), forms(squares), strict=True)
    ]
    assert ratios[0] == ratios[1] == ratios[2]


def test_precision_is_kept_and_graphs_are_not():
    weight = torch.ones(3, requires_grad=True)
    steps, values = as_curve([0, 1, 2], weight * 2)
    assert values.dtype is torch.float32
    assert not values.requires_grad
    assert steps.tolist() == [0, 1, 2]
    assert as_curve(np.array([0.0, 5.0]), [True, False])[1].tolist() == [1.0, 0.0]
    strided = np.arange(6.0)[::-2]
    assert as_curve([0, 1, 2], strided)[1].tolist() == [5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([0, 1, 2], [1.0, 2.0], r"values must have one value for each of .* 2 values and 3 steps"),
        ([0, 3, 2], [1.0, 2.0, 3.0], r"but 2 comes after 3, at index 2\. Sort steps and values"),
        ([0, 1, 1], [1.0, 2.0, 3.0], r"but 1 comes after 1, at index 2.*one value per step"),
        ([0.0, 0.5], [1.0, 2.0], r"whole numbers of updates, but step 1 of them is 0\.5"),
        ([0, 1], np.ones((2, 1)), r"shapes are \(2,\) and \(2, 1\)\. Of a recorded metric take"),
        ([], [], r"at least 2 increasing steps, but there are 0 values"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_curves_that_are_none_are_refused(steps: Any, values: Any, message: str):
    with pytest.raises(ValueError, match=message):
        as_curve(steps, values, least=2)
    with pytest.raises(ValueError, match=message.replace("values must", "the curve must")):
        ps.change_points(steps, values)


@pytest.mark.parametrize(
    "numbers", [{"min_evidence": float("nan")}, {"max_transitions": -1}, {"max_sharpness": 0.0}]
)
def test_numbers_that_say_nothing_are_refused(numbers: dict[str, Any]):
    with pytest.raises(ValueError, match="min_evidence must be 0 or more, max_transitions 1 or"):
        ps.find_transitions(STEPS, CURVE, **numbers)


def test_results_in_a_notebook_show_what_was_found_and_not_the_curves():
    squares = torch.ones(2, 400)
    squares[1, 100:150] = 9.0
    assert repr(ps.movers(STEPS, squares, 1000, 1500)) == (
        "Movers(1 of 2 parts with p <= .05 among 62 windows)"
    )
    blocks = ps.log_blocks(STEPS, CURVE, 50)
    assert repr(blocks) == f"LogBlocks({len(blocks)} blocks of 400 evaluations from step 0 to 3990)"
    for found in (ps.find_transitions(STEPS, CURVE), ps.change_points(STEPS, CURVE)):
        assert "blocks" not in repr(found)
        assert "fitted" not in repr(found)
    assert repr(ps.update_statistics(torch.arange(4.0)[:, None] * torch.ones(2))) == (
        "UpdateStatistics(1 components, 4 checkpoints from step 0 to 3)"
    )


def test_nothing_against_nothing_is_no_ratio():
    squares = torch.zeros(2, 400)
    squares[1, 100:150] = 9.0
    found = ps.movers(STEPS, squares, 1000, 1490)
    assert found.ratio.isnan().tolist() == [True, False]
    assert found.p_value.isnan().tolist() == [True, False]
