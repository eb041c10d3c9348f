"""Tests of plain JSON values."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.report.plain import json_text, plain_value


@dataclass
class Config:
    lr: float
    hidden: tuple[int, ...]


def test_what_experiments_hold_becomes_plain():
    value = {
        "config": Config(0.1, (128, 10)),
        "array": np.arange(4, dtype=np.int64).reshape(2, 2),
        "scalar": np.float32(0.5),
        "tensor": torch.tensor([True, False]),
        "path": Path("a"),
        "none": None,
        "text": "é",
    }
    assert plain_value(value) == {
        "config": {"lr": 0.1, "hidden": [128, 10]},
        "array": [[0, 1], [2, 3]],
        "scalar": 0.5,
        "tensor": [True, False],
        "path": "a",
        "none": None,
        "text": "é",
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_numbers_that_json_has_not_become_null(number: float):
    assert plain_value({"loss": [1.0, number]}) == {"loss": [1.0, None]}
    assert json_text(np.array([number])) == "[\n  null\n]\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, {1, 2}]}, r"results.a\[1\] must be .* but it is set"),
        ({"a": Config}, "results.a must be .* but it is type"),
        ({"a": {3: 1}}, "keys of results.a must be strings .* 3 is int"),
    ],
)
def test_what_has_no_json_form_is_refused_by_name(value: object, message: str):
    with pytest.raises(TypeError, match=message):
        plain_value(value, "results")
