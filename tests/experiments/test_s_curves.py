"""The experiment at tiny size, its decision rules on planted seeds, and its figures."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import phasescope as ps
from figures.captions import check_house_rules
from phasescope.datasets import low_rank_targets
from phasescope.experiments import s_curves as experiment
from phasescope.experiments.rules import share
from phasescope.experiments.runner import finish, run_all
from phasescope.experiments.s_curves import contests, plateaus, softmax
from phasescope.experiments.s_curves.config import GD, GRID, MATCHED, SMALL, Config, per_seed
from phasescope.experiments.s_curves.evidence import Evidence
from phasescope.models import Factorization, initial_factors
from phasescope.report import load_results
from phasescope.training import EnsembleSGD, train_ensemble

run_module = sys.modules["phasescope.experiments.s_curves.run"]  # not the function of that name
RULES = {rule.id: rule for part in (plateaus, contests, softmax) for rule in part.RULES}
TINY = replace(experiment.SMOKE, d=12, n_steps=60, n_seeds=4, window=3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("s_curves")


@pytest.fixture(scope="module")
def results(directory):
    configs = (TINY, replace(TINY, rank=1, n_steps=200), replace(TINY, optimizer="adam", seed=1))
    return list(run_all(experiment, configs, directory))


def test_every_seed_has_its_numbers_and_they_are_those_of_the_training(results):
    result = results[0]
    names = ("t50", "s_ratio", "bumps", "contested", "spread", "larger_first", "largest_angle")
    for name in names:
        assert len(per_seed([result], name)) == 4
    seeds = range(4)
    targets = low_rank_targets(seeds, d=12, rank=2).to("cpu", torch.float32)
    params = {k: v.float() for k, v in initial_factors(seeds, d=12, rank=2).items()}
    loss = train_ensemble(params, Factorization(targets.matrices), EnsembleSGD(0.05), 60)
    np.testing.assert_array_equal(result.detail.loss, loss.numpy())
    np.testing.assert_allclose(
        per_seed([result], "end"), (loss[:, -1] / loss[:, 0]).numpy(), rtol=1e-5
    )
    angle = ps.principal_angles(params["X"], targets.A)[:, -1]
    np.testing.assert_allclose(per_seed([result], "largest_angle"), angle.numpy(), rtol=1e-4)


def test_the_theory_of_rank_one_runs_beside_the_training(results):
    result = results[1]
    assert result.detail.theory_loss.shape == (4, 201)
    assert per_seed([result], "theory_gap").max() < 0.05  # O(learning rate)
    ratio = per_seed([result], "t_half") / per_seed([result], "t_half_theory")
    assert np.nanmax(np.abs(ratio - 1)) < 0.1


def test_seeds_that_do_not_fit_into_memory_at_once_give_the_same_numbers(
    results, tmp_path, monkeypatch
):
    per_seed_bytes = 4 * 2**2 * 61
    assert 4 * per_seed_bytes < run_module.MEMORY
    monkeypatch.setattr(run_module, "MEMORY", 2 * per_seed_bytes)
    split = experiment.run(TINY, tmp_path / "split")
    for name, values in results[0].numbers["per_seed"].items():
        if name == "contested_null":  # its control draws other targets
            continue
        ours = np.array([np.nan if v is None else v for v in values])
        np.testing.assert_allclose(per_seed([split], name), ours, rtol=1e-4, atol=1e-6)


def test_another_batch_has_other_seeds(results):
    assert results[2].config.seed == 1
    targets = low_rank_targets([4], d=12, rank=2)
    first = (targets.matrices.square().sum() / 2).item()
    start = initial_factors([4], d=12, rank=2)
    loss, _ = Factorization(targets.matrices)(start)
    assert results[2].detail.loss[0, 0] == pytest.approx(loss.item(), rel=1e-5)
    assert loss.item() != pytest.approx(first)


def test_a_finished_batch_is_read_and_smoke_gives_no_verdict(results, directory, tmp_path):
    (again,) = run_all(experiment, [TINY], directory)
    assert again.numbers == results[0].numbers
    claims, report = finish(
        experiment,
        "s_curves",
        "smoke",
        results,
        results_file=tmp_path / "s_curves.json",
        report_file=tmp_path / "report.html",
    )
    assert {claim.verdict for claim in claims} == {"not tested"}
    assert [claim.id for claim in claims] == list(experiment.CLAIM_IDS)
    assert report.stat().st_size > 10_000
    assert load_results(tmp_path / "s_curves.json").seeds == tuple(range(8))


def test_figures_show_every_seed_the_theory_and_the_slider(results):
    drawn = experiment.figures(results)
    for figure in drawn.values():
        check_house_rules(figure)
    assert {"loss_sgd", "loss_adam", "alignments_rank_2", "s_ratio", "spread"} <= set(drawn)
    names = {trace.name for trace in drawn["loss_sgd"].data}
    assert names == {"seed", "median over seeds", "theory, median"}
    numbers_only = [replace(result, detail=None) for result in results]
    assert "s_ratio" in experiment.figures(numbers_only)


def test_the_grid_has_every_setting_once_and_summaries_are_numbers(results):
    assert len(set(GRID)) == len(GRID) == len({experiment.setting(c) for c in GRID})
    assert set(experiment.summary(results[0])) == {"steps to 1%", "S-ratio", "bumps"}
    assert experiment.summary(results[1])["S-ratio"] > 1
    assert experiment.setting(Config(momentum=0.9, imbalance=2.0)) == (
        "rank 2, SGD 0.05, momentum 0.9, X/Y x4"
    )


DEFAULTS = {
    "t50": 20.0, "t10": 60.0, "t1": 100.0, "end": 1e-9, "s_ratio": 20.0, "plateau_length": 10.0,
    "n_rises": 1.0, "diverged": 0.0, "conserved_drift": 0.01, "bumps": 2.0, "contested": 1.8,
    "contested_null": 0.2, "on_plateau": 0.4, "plateau_share": 0.2, "prominence": 0.1,
    "spread": 0.3, "larger_first": 1.0, "as_predicted": 1.0, "t_larger": 50.0, "t_smaller": 60.0,
    "singular_ratio": 1.2, "t_half": 80.0, "t_tenth": 50.0, "t_irrelevant": 30.0,
    "singular_value": 1.0, "end_excess": 0.0, "exponential_residual": 0.2,
    "algebraic_residual": 0.1, "growth_rate": 0.5, "t_half_theory": 80.0,
}  # fmt: skip


def planted(n_seeds=128, changes=None):
    """All settings as if they had come out so; `changes` maps settings to other values."""
    generator = np.random.default_rng(0)
    runs = []
    for config in GRID:
        values = DEFAULTS | (changes or {}).get(config, {})
        noise = 1 + 1e-3 * generator.standard_normal(n_seeds)
        numbers = {
            name: (
                value * (noise if value > 2.5 or value < 1e-3 else 1.0) * np.ones(n_seeds)
            ).tolist()
            for name, value in values.items()
        }
        runs.append(experiment.Results(replace(config, n_seeds=n_seeds), {"per_seed": numbers}))
    return runs


def verdict(name, runs):
    return RULES[name].claim(Evidence(runs)).verdict


FULL = {config: {"s_ratio": 1.0} for config in GRID if config.rank == 100}


def test_plateaus_of_low_rank_and_none_of_full_rank_reproduce_e1():
    assert verdict("E1", planted()) == "refuted"  # full rank has one, too
    assert verdict("E1", planted(changes=FULL)) == "reproduced"
    assert verdict("E1", planted(99, FULL)) == "inconclusive"
    assert verdict("E1", planted(4, FULL)) == "not tested"
    flat = FULL | {GD[2]: {"s_ratio": 1.5}}
    assert verdict("E1", planted(changes=flat)) == "refuted"


def test_the_closer_law_decides_e2():
    assert verdict("E2", planted()) == "refuted"
    exponential = {GD[1]: {"exponential_residual": 0.05}}
    assert verdict("E2", planted(changes=exponential)) == "reproduced"


def test_e3_needs_all_three_parts_at_both_decays():
    good = {
        config: {"t_tenth": 60.0 + 20 * config.weight_decay, "t_irrelevant": 25.0, "end": 0.01}
        for config in GRID
        if config.rank == 1 and config.optimizer == "sgd" and config.weight_decay
    }
    assert verdict("E3", planted(changes=good)) == "reproduced"
    slower = {config: values | {"t_irrelevant": 40.0} for config, values in good.items()}
    assert verdict("E3", planted(changes=slower)) == "refuted"


def test_e5_needs_more_contests_than_its_control():
    assert verdict("E5", planted()) == "reproduced"
    by_chance = {GD[2]: {"contested_null": 1.9}}
    assert verdict("E5", planted(changes=by_chance)) == "refuted"


def test_e6_is_refuted_where_adam_makes_fewer_bumps_at_one_rank():
    more = {config: {"bumps": 3.0, "spread": 0.2} for config in MATCHED.values()}
    assert verdict("E6", planted(changes=more)) == "reproduced"
    fewer = more | {MATCHED[2]: {"bumps": 1.0, "spread": 0.2}}
    assert verdict("E6", planted(changes=fewer)) == "refuted"


def test_questions_are_answered():
    found = {claim.id: claim for claim in experiment.claims(planted())}
    assert {found[i].verdict for i in ("E4", "E10", "E11")} == {"answered"}
    assert found["E4"].value == 1.0
    assert found["E4"].interval[0] == pytest.approx(0.025 ** (1 / 128))


def test_a_setting_that_is_missing_is_named():
    runs = [run for run in planted() if run.config.optimizer != "adamw"]
    claim = next(c for c in experiment.claims(runs) if c.id == "E8")
    assert claim.verdict == "not tested"
    assert "AdamW 0.01, decay 0.01" in claim.sentence


def test_another_number_of_steps_is_another_setting():
    runs = planted()
    evidence = Evidence([replace(r, config=replace(r.config, n_steps=10)) for r in runs])
    assert not evidence.has(GD[1])
    assert Evidence(runs).has(replace(SMALL[1, 0.1], seed=3, n_seeds=7))


def test_a_share_has_its_exact_interval():
    found = share(np.ones(128, dtype=bool))
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 128))
