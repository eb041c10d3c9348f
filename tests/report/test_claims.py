"""Tests of claims: the rules of evidence, the files, the table."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from phasescope.report import (
    VERDICTS,
    Claim,
    ExperimentResults,
    claims_table,
    load_results,
    save_results,
)

CLAIM = Claim(
    id="A1",
    statement="92.5 of [400, P] exceed 10%",
    source="the post",
    rule="interval meets [80.9, 104.1]",
    value=91.25,
    interval=(84.0, 97.5),
    unit="singular values",
    null="norm null: 93.2",
    n_seeds=10,
    verdict="reproduced",
    sentence="Reproduced [bold]and so is the null[/bold].",
)
RESULTS = ExperimentResults(
    experiment="gradient_spectrum",
    preset="DEFAULT",
    config={"lr": 0.1, "hidden": [128]},
    commit="abc",
    environment={"torch": "2.13.0"},
    seeds=tuple(range(10)),
    claims=(CLAIM, dataclasses.replace(CLAIM, id="A2", value=None, interval=None)),
    settings={"MLP": {"counts": [1, 2]}},
)


def printed(claims: list[Claim]) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(claims_table(claims))
    return text.getvalue()


@pytest.mark.parametrize("verdict", ["reproduced", "refuted", "answered"])
@pytest.mark.parametrize("n_seeds", [0, 5, 9])
def test_fewer_than_ten_seeds_decide_nothing(verdict: str, n_seeds: int):
    allowed = "inconclusive" if n_seeds >= 5 else "not tested"
    message = f"{verdict}.*A1 needs at least 10 .* there are {n_seeds}.*use the verdict '{allowed}'"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CLAIM, verdict=verdict, n_seeds=n_seeds)


@pytest.mark.parametrize(("verdict", "least"), [("inconclusive", 5), ("not tested", 0)])
def test_five_seeds_are_inconclusive_and_fewer_test_nothing(verdict: str, least: int):
    assert dataclasses.replace(CLAIM, verdict=verdict, n_seeds=least).verdict == verdict
    if least:
        with pytest.raises(ValueError, match="at least 5 independent seeds"):
            dataclasses.replace(CLAIM, verdict=verdict, n_seeds=least - 1)


def test_ten_seeds_allow_every_verdict():
    assert [dataclasses.replace(CLAIM, verdict=v).verdict for v in VERDICTS] == list(VERDICTS)


def test_an_unknown_verdict_is_refused_with_the_known_ones():
    claim = dataclasses.replace(CLAIM)
    # Past the annotation, whose check in these tests comes first.
    object.__setattr__(claim, "verdict", "proved")
    with pytest.raises(ValueError, match=r"'reproduced', 'refuted', .* but it is 'proved'"):
        claim.__post_init__()


@pytest.mark.parametrize(
    "change", [{"value": float("nan")}, {"value": np.inf}, {"interval": (0.0, float("inf"))}]
)
def test_numbers_of_a_claim_are_finite(change: dict[str, object]):
    with pytest.raises(ValueError, match=r"claim A1 must be finite.*Use None"):
        dataclasses.replace(CLAIM, **change)


def test_an_interval_in_the_wrong_order_is_refused():
    with pytest.raises(ValueError, match=r"must be \(low, high\)"):
        dataclasses.replace(CLAIM, interval=(2.0, 1.0))


def test_results_come_back_as_they_were_saved(tmp_path: Path):
    path = save_results(tmp_path / "results" / "a.json", RESULTS)
    assert load_results(path) == RESULTS


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_any_settings_come_back_as_they_were_saved(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]
):
    results = dataclasses.replace(RESULTS, settings=settings)
    path = save_results(tmp_path_factory.mktemp("results") / "a.json", results)
    assert load_results(path).settings == settings


def test_lists_of_numbers_take_a_line_and_strings_stay_as_they_are(tmp_path: Path):
    settings = {"curve": [[1, 2.5, None], []], "names": ["a,  b", "[\n 1]"], "text": "[\n1,\n 2]"}
    path = save_results(tmp_path / "a.json", dataclasses.replace(RESULTS, settings=settings))
    assert load_results(path).settings == settings
    assert "[ 1, 2.5, null ]" in path.read_text(encoding="utf-8")


def test_numbers_of_a_diverged_run_are_saved_as_null(tmp_path: Path):
    diverged = dataclasses.replace(RESULTS, settings={"loss": np.array([1.0, np.nan, np.inf])})
    path = save_results(tmp_path / "a.json", diverged)
    assert load_results(path).settings == {"loss": [1.0, None, None]}
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path: Path):
    path = save_results(tmp_path / "a.json", RESULTS)
    save_results(path, dataclasses.replace(RESULTS, commit="def"))
    assert load_results(path).commit == "def"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "a.json must have exactly .* unknown: sedes"),
        ({"seeds": ...}, "missing: seeds"),
        ({"seeds": ..., "sedes": [1]}, "unknown: sedes; missing: seeds"),
        ({"claims": [{"id": "A1"}]}, r"claims\[0\] of .* missing: interval, n_seeds"),
        ({"claims": ["A1"]}, r"claims\[0\] of .* must be a JSON object .* it is 'A1'"),
    ],
)
def test_unknown_and_missing_keys_are_errors_that_name_them(
    tmp_path: Path, change: dict[str, object], message: str
):
    path = save_results(tmp_path / "a.json", RESULTS)
    record = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not ...}))
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path):
    path = save_results(tmp_path / "a.json", RESULTS)
    path.write_text(path.read_text(encoding="utf-8")[:50])
    with pytest.raises(ValueError, match=r"must be JSON, but .*a.json is not"):
        load_results(path)


def test_a_file_cannot_smuggle_in_a_verdict_that_its_seeds_do_not_carry(tmp_path: Path):
    path = save_results(tmp_path / "a.json", RESULTS)
    path.write_text(path.read_text(encoding="utf-8").replace('"n_seeds": 10', '"n_seeds": 3'))
    with pytest.raises(ValueError, match="needs at least 10 independent seeds"):
        load_results(path)


def test_the_table_shows_the_claim_with_brackets_as_written():
    text = printed([CLAIM])
    for part in (
        "92.5 of [400, P] exceed 10%",
        "reproduced",
        "91.25 [84, 97.5] singular",
        "norm null: 93.2",
        "[bold]and so is",
    ):
        assert part in text


def test_the_table_says_what_was_not_measured():
    nothing = dataclasses.replace(CLAIM, value=None, interval=None, n_seeds=0, verdict="not tested")
    assert "not measured, 0 seeds" in printed([nothing])
