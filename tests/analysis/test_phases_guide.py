"""The code of docs/phases.md runs as it stands, and its tables are those of the numbers."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

import phasescope as ps

GUIDE = (Path(__file__).parents[2] / "docs" / "phases.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


class Checkpoints:
    """What a run's weights look like to the analyses."""

    def __init__(self, values: torch.Tensor, steps: torch.Tensor) -> None:
        self.values, self.steps = values, steps.numpy()
        self.shape, self.dtype = tuple(values.shape), values.dtype

    def __getitem__(self, key: object) -> torch.Tensor:
        return self.values[key]


def test_the_guide_runs_and_names_the_part_that_moved(capsys: pytest.CaptureFixture[str]):
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(2_000)
    loss = 2 - 1.5 / (1 + (600 / (steps + 1)) ** 12)
    loss = loss + 0.05 * torch.randn(2_000, generator=generator)
    kept = steps[::10]
    updates = torch.randn(200, 30, generator=generator)
    updates[(kept > 500) & (kept < 700), :10] *= 5
    run = type("Run", (), {"weights": Checkpoints(updates.cumsum(0), kept)})()
    parts = {"first": ps.Component("first", ((0, 10),)), "rest": ps.Component("rest", ((10, 30),))}
    space = {"steps": steps, "loss": loss, "run": run, "parts": parts}
    for example in EXAMPLES:
        exec(example, space)
    midpoint = float(capsys.readouterr().out.split()[1])
    assert abs(midpoint - 599) < 15
    ratios = dict(zip(space["moved"].names, space["during"].ratio.tolist(), strict=True))
    assert ratios["first"] > 10 > 2 > ratios["rest"]


def test_the_tables_of_the_guide_are_those_of_the_committed_numbers():
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("calibrate", docs / "calibrate_phases.py")
    assert spec is not None
    assert spec.loader is not None
    calibrate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calibrate)
    numbers = json.loads(calibrate.NUMBERS.read_text(encoding="utf-8"))
    shown = GUIDE.split("<!-- rates: begin -->")[1].split("<!-- rates: end -->")[0]
    assert shown.strip() == calibrate.tables(numbers)
