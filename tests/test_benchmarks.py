"""The benchmarks run at tiny sizes, and their rows, goals and tables say what they should."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FIELDS = {
    "name": str,
    "ours": float,
    "other": float | None,
    "other_name": str,
    "unit": str,
    "ratio": float | None,
    "goal": float | None,
    "goal_on": str | None,
    "met": bool | None,
    "quick": bool,
    "note": str,
    "detail": dict,
}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rows")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("results")


def measured(rows: ModuleType, **changes: Any) -> dict[str, Any]:
    environment = {
        "processor": "Abacus", "cpu_cores": 2, "torch_threads": 1, "python": "3.11", "torch": "2",
        "numpy": "2", "commit": "0123456789abcdef", "dirty": False,
        "libraries": [{"library": "libblas", "architecture": "Bead"}],
    }  # fmt: skip
    row = rows.Row("thing", 2.0, 5.0, "other thing", 2.0, **changes)
    return {"environment": environment, "rows": [row.to_json()]}


def test_a_quick_run_yields_rows_of_every_subject_and_writes_nothing(tmp_path: Path):
    kept = {path: path.read_bytes() for path in BENCHMARKS.iterdir() if path.is_file()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"}
    environment.pop("OPENBLAS_L2_SIZE", None)
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--json"]
    done = subprocess.run(
        [*command, "--scratch", str(tmp_path / "scratch")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert list(found) == [
        "gram", "gram-recorder", "svd", "sign-flips", "import", "recording", "sketch",
        "components", "grokking", "s_curves", "monosemanticity", "measures", "matching",
    ]  # fmt: skip
    for part in found.values():
        assert part["environment"]["torch_threads"] == 1
        assert part["environment"]["removed_variables"] == ["OPENBLAS_CORETYPE"]
        assert any(e["user_api"] == "blas" for e in part["environment"]["libraries"])
        for row in part["rows"]:
            assert {name: isinstance(row[name], FIELDS[name]) for name in row} == {
                name: True for name in FIELDS
            }
            assert row["quick"]
            assert row["met"] is None
    goals = {
        subject: {
            on: [row["goal"] for row in part["rows"] if row["goal_on"] == on]
            for on in ("ratio", "ours")
        }
        for subject, part in found.items()
    }
    assert goals["gram"] == {"ratio": [1.1, 1.0], "ours": [800e6]}
    assert goals["svd"]["ratio"] == [30.0]
    assert goals["import"]["ours"] == [0.3]
    allowed = [1 / (1 + overhead) for overhead in (0.15, 0.5, 0.15, 0.05)]
    assert goals["recording"]["ratio"] == pytest.approx(allowed)
    assert goals["recording"]["ours"] == pytest.approx([0.12e-3])
    assert goals["sketch"]["ratio"] == [0.25]
    assert goals["grokking"]["ratio"] == [3.5, 1 / 2.2, 1.4, 1 / 3]
    assert "OPENBLAS_CORETYPE was set" in done.stderr
    assert str(BENCHMARKS.parent) not in done.stdout
    assert str(tmp_path) not in done.stdout
    assert list((tmp_path / "scratch").iterdir()) == []
    assert kept == {path: path.read_bytes() for path in BENCHMARKS.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("ours", "on", "met"),
    [(2.5, "ratio", True), (2.6, "ratio", False), (2.0, "ours", True), (2.1, "ours", False)],
)
def test_a_ratio_must_reach_its_goal_and_an_amount_must_not_exceed_it(
    rows: ModuleType, ours: float, on: str, met: bool
):
    row = rows.Row("thing", ours, 5.0, "other thing", 2.0, goal_on=on)
    assert row.met is met
    assert row.ratio == 5.0 / ours


def test_calls_are_timed_in_turn(rows: ModuleType):
    order: list[str] = []
    times = rows.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}
    assert all(t >= 0 for t in times["a"])
    assert rows.summary([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0, "n": 3}


def test_merging_replaces_the_subjects_that_were_measured(
    rows: ModuleType, results: ModuleType, tmp_path: Path
):
    path, order = tmp_path / "results.json", ["first", "second"]
    results.merge(path, {"second": measured(rows), "first": measured(rows)}, order)
    again = measured(rows, note="again")
    merged = results.merge(path, {"second": again}, order)
    assert json.loads(path.read_text()) == merged
    assert list(merged) == order
    assert [part["rows"][0]["note"] for part in merged.values()] == ["", "again"]


def test_the_table_of_the_readme_stands_between_its_markers(
    rows: ModuleType, results: ModuleType, tmp_path: Path
):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    for _ in range(2):
        results.write_readme(path, {"a": measured(rows), "b": measured(rows, note="why")})
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| thing | 2 s | 5 s other thing | 2.5x | ≥ 2x | yes |  |" in text
    assert "| yes | why |" in text
    assert "- a, b: Abacus, 2 cores, 1 torch threads; " in text
    assert "(libblas: Bead); commit 0123456789\n" in text
    assert results.BEGIN in (BENCHMARKS / "README.md").read_text()
