"""The rules that the page of nulls compares run, and their tables have every rule and noise."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("calibration.counting")


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("calibration.comparing")


def test_rules_find_what_is_planted_in_the_kinds_of_noise_that_they_allow(counting: ModuleType):
    kind = counting.NOISES["log-normal 1"]
    A = counting.draw(kind, 5.0, 3)
    found = counting.ours(A, 3) | counting.formulas(A, 3)
    assert found["the same, parameters equalised"] == counting.K
    assert found["`located_components`, whitened: located"] == counting.K
    assert found["Tracy–Widom, p < .05, one variance"] > counting.K
    assert found["10 % of the largest"] > 50  # of 60


def test_packages_are_called_as_they_want_to_be(counting: ModuleType):
    for name in ("dyson_equalizer", "kneed", "optht", "screenot"):
        pytest.importorskip(name, reason="needs the packages of the extra `bench`")
    found = counting.packages(counting.draw(counting.NOISES["equal variances"], 5.0, 0))
    assert found["dyson-equalizer 0.1.8"] == found["optht 0.2: unknown noise"] == counting.K
    assert found["optht 0.2: noise given"] == counting.T


def test_draws_differ_between_kinds_and_amplitudes(counting: ModuleType, monkeypatch):
    seeds = []
    monkeypatch.setattr(counting, "draw", lambda kind, amplitude, seed: seed)
    monkeypatch.setattr(counting, "counts", lambda A, seed: seeds.append(seed) or {"rule": 0})
    for kind in counting.NOISES.values():
        for amplitude in (0.0, *counting.AMPLITUDES):
            counting.collect(kind, amplitude, counting.N_NOISE)
    assert len(set(seeds)) == len(seeds)


def test_tables_have_a_row_for_every_rule(counting: ModuleType, comparing: ModuleType):
    cell = {"hits": 1, "n": 4, "rate": 0.25, "low": 0.05, "high": 0.7, "median_count": 2.0}
    settings = {"noise_draws": 4, "planted_draws": 4, "planted": 4, "steps": 60}
    settings |= {"parameters": 9, "surrogates": 19, "level": 0.05, "draws": 4, "power_draws": 1}
    columns = {"one": {"a rule": cell}, "two": {"a rule": cell}}
    texts = counting.tables({"settings": settings, "noise": columns, "planted": {"2": columns}})
    assert texts[1].splitlines()[2] == "| a rule | 25.0 % (5–70) | 25.0 % (5–70) |"
    assert texts[5].splitlines()[2] == "| a rule | 25 % (2) | 25 % (2) |"
    texts = comparing.tables({"settings": settings, "noise": columns, "power": columns})
    assert texts[3].splitlines()[0] == "| rule | one | two |"


def test_nulls_with_p_values_answer_for_every_rule(comparing: ModuleType):
    kind = comparing.NOISES["equal variances"]
    found = comparing.profiles(kind, 1, 4.0) | comparing.walks(kind, 1, 0.3)
    assert found["time profile: autocorrelation"]
    assert found["random walk of the path's increments"]
    assert len(found) == 6
