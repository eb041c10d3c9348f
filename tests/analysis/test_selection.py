"""Selecting steps by value."""

import numpy as np
import pytest
import torch

from phasescope.analysis.selection import select_steps

RECORDED = torch.tensor([3, 5, 8, 10, 13, 18])


@pytest.mark.parametrize(
    ("steps", "rows"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        (slice(None), [0, 1, 2, 3, 4, 5]),
        (slice(8, None), [2, 3, 4, 5]),
        (slice(None, 10), [0, 1, 2]),
        (slice(4, 11), [1, 2, 3]),
        (slice(np.int64(4), np.int64(11)), [1, 2, 3]),
        (slice(None, None, 5), [0, 2, 4, 5]),
        (slice(0, None, 5), [1, 3]),
        ([13, 3], [4, 0]),
        (np.array([10]), [3]),
        (torch.tensor([18, 5]), [5, 1]),
        (range(3, 9, 5), [0, 2]),
    ],
)
def test_steps_are_values_and_not_rows(steps, rows: list[int]):
    assert select_steps(RECORDED, steps).tolist() == rows


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([3, 9], ValueError, r"1 of 2 were not; the first is 9, .* recorded steps are \[8, 10\]"),
        ([400], ValueError, r"the first is 400, its nearest recorded steps are \[13, 18\]"),
        ([3, 5, 3], ValueError, r"may be selected once, but \[3, 5, 3\] repeats"),
        ([], ValueError, r"non-empty list of step values, but \[\] arrived"),
        (torch.ones(2, 2, dtype=torch.int64), ValueError, "non-empty list of step values"),
        (torch.tensor([3.0]), TypeError, r"whole numbers, but values of torch.float32"),
        (RECORDED > 5, TypeError, r"torch.bool arrived. Pass the step values .* not a mask"),
        (slice(19, None), ValueError, r"selects none of the 6 steps from 3 to 18"),
        (slice(-2, None), ValueError, r"no part may be negative.* last recorded step is 18"),
        (slice(None, None, 0), ValueError, r"no part may be negative"),
        (slice(0.5, None), TypeError, r"whole numbers, but slice\(0.5, None, None\) arrived"),
    ],
)
def test_impossible_selections_say_what_to_do(steps, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        select_steps(RECORDED, steps)


def test_long_selections_are_shortened_in_messages():
    with pytest.raises(ValueError, match=r"\.\.\. repeats some"):
        select_steps(RECORDED, [3] * 100)
