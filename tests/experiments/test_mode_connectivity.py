"""The run at a tiny size, and every decision rule on numbers that were made up."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.experiments import mode_connectivity as experiment
from phasescope.experiments.mode_connectivity.between import RISES, Between
from phasescope.experiments.mode_connectivity.config import (
    APART,
    CONNECTED,
    DECAY_BOTH,
    PRESETS,
    RESNET,
    SMOKE_PAIR,
    SMOKE_TOY,
    TOY,
    Results,
)
from phasescope.experiments.mode_connectivity.family import train_family
from phasescope.models import feature_outputs

N = 120


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return experiment.run(SMOKE_TOY, tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return experiment.run(SMOKE_PAIR, tmp_path_factory.mktemp("pair"))


def test_every_number_of_a_run_is_there_and_finite_but_hops(toy: Results, pair: Results):
    for result, n in ((toy, SMOKE_TOY.n_seeds), (pair, 1)):
        for name, values in result.numbers["per_seed"].items():
            assert len(values) == n
            if not name.startswith("hop"):
                assert np.isfinite(values).all(), name
        json.dumps(result.numbers, allow_nan=False)
    hops = [v for name, vs in toy.numbers["per_seed"].items() if name.startswith("hop") for v in vs]
    assert hops
    assert all(pull is None or pull >= 0 for pull in hops)  # None: no pull suffices
    assert set(experiment.summary(toy)) == {"tolerance", "cross naive", "cross best", "cross curve"}
    assert set(experiment.summary(pair)) == {"ratio naive", "ratio matched"}
    assert len(experiment.for_storage([toy, pair])) == 2
    assert [c.verdict for c in experiment.claims([toy, pair])] == ["not tested"] * 5


def test_a_pull_that_never_suffices_is_stored_as_missing(tmp_path: Path, monkeypatch):
    never = {"hop away": torch.tensor([torch.inf, 0.5]), "table": torch.ones(2, 2)}
    module = importlib.import_module("phasescope.experiments.mode_connectivity.run")
    monkeypatch.setattr(module, "in_chunks", lambda *_: never)
    numbers = experiment.run(SMOKE_TOY, tmp_path).numbers
    assert json.loads(json.dumps(numbers, allow_nan=False))["per_seed"] == {
        "hop away": [None, 0.5],
        "table": [[1.0, 1.0], [1.0, 1.0]],
    }


def test_a_run_goes_on_where_it_was_interrupted(toy: Results, tmp_path: Path):
    one = dataclasses.replace(SMOKE_TOY, n_seeds=1)
    first = experiment.run(one, tmp_path)
    kept = tmp_path / "seeds" / "models-000000.safetensors"
    before = kept.read_bytes()
    again = experiment.run(SMOKE_TOY, tmp_path)
    assert kept.read_bytes() == before
    for name, values in toy.numbers["per_seed"].items():
        assert again.numbers["per_seed"][name] == values
        assert first.numbers["per_seed"][name] == values[:1]


def test_a_family_has_the_noise_that_its_names_say():
    family = train_family(SMOKE_TOY, 3)
    config = SMOKE_TOY
    assert {len(records) for records in family.records.values()} == {len(config.annealed)}
    base, batch, init, both = (
        family.records[f"poly {kind}"][-1]["W_in"] for kind in ("base", "batch", "init", "both")
    )
    near = (base - batch).norm()
    assert 0 < near < min((base - init).norm(), (base - both).norm())
    again = train_family(config, 3).records["poly base"][-1]["W_in"]
    assert torch.equal(base, again)
    middle = family.records["poly base"][config.annealed.index(config.fork_step)]["W_in"]
    for fork in family.forks["poly"]:
        assert 0 < (fork["W_in"] - base).norm() < (base - middle).norm() * 3
    mono = family.records["mono base"]
    assert mono[0]["b_in"].mean() < -0.8
    assert family.records["poly base"][0]["b_in"].abs().mean() < 0.4
    x = family.inputs
    for state in (mono[-1],):
        error = feature_outputs(state, x) - family.targets
        assert family.measure(state)["loss"] == pytest.approx(
            error.square().sum(-1).mean().item(), rel=1e-6
        )


def test_a_permuted_model_is_found_again_and_overlaps_with_itself():
    family = train_family(SMOKE_TOY, 3)
    between = Between(SMOKE_TOY, family, 3)
    state = family.records["poly base"][-1]
    planted = between.symmetry.random(torch.Generator().manual_seed(0))
    other = between.symmetry.permuted(state, planted)
    nearest, barrier = between.nearest(state, other, 5)
    assert barrier < 1e-6
    living = (family.activations(state) > 0).any(1)
    assert torch.equal(nearest["W_in"][0][living], state["W_in"][0][living])
    assert between._overlap(state, nearest) == pytest.approx(living.double().mean().item())


def made_up(values: dict[str, float], spread: float = 0.01, n: int = N) -> Results:
    rng = np.random.default_rng(0)
    zero = {
        f"{pair} {what}": 0.0
        for pair in ("cross", "poly", "mono")
        for what in ("naive", "best", "curve", "gap", "mono first", "mono second")
    }
    zero |= {
        f"{who} {what}": 0.5
        for who in ("away", "on", "independent")
        for what in ("mono", "loss", "barrier", "barrier naive", "overlap")
    }
    zero |= {f"hop {name}": 1.0 for name in ("poly to mono", "mono to poly", "random")}
    zero |= {
        "away level": 0.3,
        "hop same basin": 0.0,
        "tolerance": 0.05,
        "random rise": 1.0,
        "away start mono": 0.1,
    }
    zero |= {"basins": 3.0, "basins poly": 2.0, "basins mono": 2.0, "levels joined": 0.0}
    zero |= {f"basins {level} {share:g}": 1.0 for level in ("poly", "mono") for share in RISES}
    zero |= {
        f"{level} {kind} joined": 1.0
        for level in ("poly", "mono")
        for kind in ("batch", "init", "both")
    }
    named = {**zero, **values}
    per_seed = {
        name: (value + spread * rng.random(n) * (name in values)).tolist()
        for name, value in named.items()
    }
    return Results(dataclasses.replace(TOY, n_seeds=n), {"per_seed": per_seed})


def claim(results: list[Results], name: str):
    return {c.id: c for c in experiment.claims(results)}[name]


APART_NUMBERS = {"cross best": 0.5, "cross curve": 0.3, "cross mono second": 0.6}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "reproduced"),
        ({"cross curve": 0.01}, "refuted"),  # a curve connects the levels
        ({"cross best": 0.02}, "refuted"),  # within the tolerance
        ({"poly best": 0.6}, "refuted"),  # two poly models are as far apart
        ({"cross gap": 0.03}, "inconclusive"),  # no pair of equal loss
        ({"cross mono second": 0.1}, "inconclusive"),  # no difference of mono/N
    ],
)
def test_d9_needs_levels_apart_by_line_and_curve(changed: dict[str, float], verdict: str):
    found = claim([made_up({**APART_NUMBERS, **changed})], "D9")
    assert found.verdict == verdict
    if verdict != "inconclusive":
        assert found.n_seeds == N
        assert found.interval is not None


def test_few_seeds_are_inconclusive_or_not_tested():
    for name, verdict in (("D9", "reproduced"), ("D11", "answered"), ("D10", "answered")):
        assert claim([made_up(APART_NUMBERS, n=10)], name).verdict == verdict
        assert claim([made_up(APART_NUMBERS, n=9)], name).verdict == "inconclusive"
        assert claim([made_up(APART_NUMBERS, n=4)], name).verdict == "not tested"
    some = made_up(APART_NUMBERS, n=30)
    for seed in range(12):  # 18 of 30 count: enough
        some.numbers["per_seed"]["cross gap"][seed] = 0.5
    found = claim([some], "D11")
    assert (found.verdict, found.n_seeds) == ("answered", 18)
    for seed in range(12, 18):
        some.numbers["per_seed"]["cross gap"][seed] = 0.5
    assert claim([some], "D9").verdict == claim([some], "D11").verdict == "inconclusive"


def test_levels_that_differ_in_the_initial_bias_alone_are_shown_beside():
    beside = made_up({**APART_NUMBERS, "cross curve": 0.01}, n=10)
    beside = Results(dataclasses.replace(DECAY_BOTH, n_seeds=10), beside.numbers)
    found = claim([made_up(APART_NUMBERS), beside], "D9")
    assert found.verdict == "reproduced"
    assert "With decay at both levels 10 of 10 seeds have such a pair" in found.sentence
    assert "curves 0 [0, 0.308]" in found.sentence


def test_questions_are_answered_with_numbers_and_nulls():
    numbers = {"away mono": 0.9, "on mono": 0.2, "basins poly": 3.0, "cross mono second": 0.6}
    results = [made_up(numbers, spread=0.1)]
    d10, d11, d12 = (claim(results, name) for name in ("D10", "D11", "D12"))
    assert {c.verdict for c in (d10, d11, d12)} == {"answered"}
    assert d10.value == pytest.approx(3.05, abs=0.02)
    assert d11.value == pytest.approx(1.0)
    assert "same basin 0" in d11.null
    assert d12.value == pytest.approx(0.7, abs=0.02)


def test_fine_tuning_that_stays_where_it_began_answers_nothing():
    found = claim([made_up({"away barrier naive": 0.01})], "D12")
    assert found.verdict == "inconclusive"
    assert "The start was left in 0 " in found.sentence


def test_a_basin_that_no_pull_reaches_has_no_number_but_a_sentence():
    result = made_up(APART_NUMBERS)
    result.numbers["per_seed"]["hop poly to mono"] = [None] * N  # infinity in JSON
    found = claim([result], "D11")
    assert found.value is None
    assert "poly to mono inf (none suffices in 100%)" in found.sentence


def cells(ratios: dict, n: int = 10) -> list[Results]:
    rng = np.random.default_rng(1)
    results = []
    for config, ratio in ratios.items():
        for seed in range(n):
            noise = float(np.exp(0.02 * rng.standard_normal()))
            numbers = {"ratio matched": ratio * noise, "ratio naive": 20.0, "test loss": 0.1}
            numbers |= {"ratio activations": ratio, "ratio random": 30.0}
            per_seed = {name: [value] for name, value in numbers.items()}
            results.append(Results(dataclasses.replace(config, seed=seed), {"per_seed": per_seed}))
    return results


@pytest.mark.parametrize(
    ("near", "far", "verdict"),
    [(1.1, 5.0, "reproduced"), (1.1, 1.2, "refuted"), (4.0, 5.0, "refuted"), (1.5, 5.0, None)],
)
def test_d13_needs_both_the_positive_and_the_negative_cells(near, far, verdict):
    ratios = {**dict.fromkeys(CONNECTED, near), **dict.fromkeys(APART, far), RESNET: 2.0}
    found = claim(cells(ratios), "D13")
    assert found.verdict == (verdict or "inconclusive")
    assert "residual networks, different basins: " in found.sentence
    for ratio, within in ((1.1, "one basin"), (1.5, "undecided")):
        assert f"networks, {within}:" in claim(cells({**ratios, RESNET: ratio}), "D13").sentence
    assert found.n_seeds == 10
    some = {config: 1.1 for config in CONNECTED}
    assert claim(cells(some), "D13").verdict == "not tested"
    assert claim(cells(ratios, n=6), "D13").verdict == "inconclusive"


def test_figures_are_drawn_of_all_parts(toy: Results, pair: Results):
    from figures.captions import check_house_rules

    found = experiment.figures([toy, pair])
    assert [name.split(" ")[0] for name in found] == ["barriers", "hops", "map", "classifiers"]
    for figure in found.values():
        check_house_rules(figure)


def test_configurations_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="odd number of half periods, five at least"):
        dataclasses.replace(TOY, n_steps=4096)
    with pytest.raises(ValueError, match="a classifier's run has one pair"):
        dataclasses.replace(SMOKE_PAIR, n_seeds=3)
    assert PRESETS["default"] == (TOY,)
