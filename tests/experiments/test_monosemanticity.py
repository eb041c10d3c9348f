"""The experiment at tiny size: every seed's numbers, chunks and checkpoints, figures."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import phasescope as ps
from figures.captions import check_house_rules
from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
from phasescope.experiments import monosemanticity as experiment
from phasescope.experiments.monosemanticity.config import (
    DECIDING,
    PLANE,
    PRESETS,
    VARIANTS,
    Config,
    multiplications,
    per_seed,
)
from phasescope.experiments.monosemanticity.numbers import rank_auc, zero_loss
from phasescope.experiments.runner import config_hash, finish, run_all
from phasescope.models import FeatureLoss, initial_feature_model, single_feature_activations
from phasescope.report import load_results
from phasescope.training import EnsembleLAMB, cosine_cycles, train_ensemble

training = sys.modules["phasescope.experiments.monosemanticity.training"]
TINY = replace(
    experiment.SMOKE, learning_rates=(0.01, 0.05), densities=(0.1,), at_once=4, n_seeds=2
)
GRID = (
    TINY,
    replace(TINY, frequencies="power_law", n_neurons=8, densities=(0.05, 0.1)),
    replace(TINY, bias_offsets=(-0.5,), bias_decay=2.0, skip="quantile", learning_rates=(0.02,)),
    replace(TINY, n_groups=4, n_active_groups=2, task="absolute", learning_rates=(0.02,)),
    replace(TINY, top_k=3, task="reprojector", optimizer="adam", learning_rates=(0.02,)),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("monosemanticity")


@pytest.fixture(scope="module")
def results(directory):
    return list(run_all(experiment, GRID, directory))


def test_the_numbers_are_those_of_the_training(results):
    result = results[0]
    frequencies = feature_frequencies(12, 0.1)
    P = torch.stack([feature_directions(12, 8, seed=s) for s in (0, 1, 0, 1)])
    features = SparseFeatures(frequencies, n_models=4, batch_size=32, seed=0)
    params = initial_feature_model([0, 1, 0, 1], d=8, n_neurons=16, n_outputs=12)
    rates = torch.tensor([0.01, 0.01, 0.05, 0.05])
    optimizer = EnsembleLAMB(rates, schedule=cosine_cycles(24))
    for _ in range(5):  # in stretches, since the last loss of each takes a batch
        train_ensemble(params, FeatureLoss(features.draw, P), optimizer, 24)
    S = single_feature_activations(params, P)
    for point in (0, 1):
        rows = slice(2 * point, 2 * point + 2)
        for name, threshold in (("mono_90", 0.9), ("mono_999", 0.999)):
            expected = ps.mono_fraction(S, threshold)[rows].numpy()
            np.testing.assert_allclose(per_seed(result, point, name), expected, atol=1e-6)
        np.testing.assert_allclose(
            per_seed(result, point, "bias"), params["b_in"].mean(1)[rows].numpy(), rtol=1e-5
        )
        detail = result.details[point]
        np.testing.assert_allclose(detail.activations[-1], S[2 * point].numpy(), rtol=1e-5)
        np.testing.assert_allclose(detail.biases, params["b_in"][rows].numpy(), rtol=1e-5)


def test_every_point_has_every_number(results):
    for result in results:
        for i, point in enumerate(result.config.points):
            numbers = result.numbers["points"][i]
            assert numbers["density"] == point.densities[0]
            for name in ("loss", "mono_90", "covered", "with_gradient", "late_gain", "moved"):
                assert np.isfinite(per_seed(result, i, name)).all(), name
            assert len(numbers["annealed"]["loss"]) == 2
            assert len(numbers["annealed"]["loss"][0]) == len(numbers["annealed"]["steps"]) == 3
            assert numbers["annealed"]["steps"][-1] == point.n_steps
            shares = np.array(numbers["by_feature"]["mono"])
            assert shares.mean() == pytest.approx(per_seed(result, i, "covered").mean(), abs=1e-5)
        json.dumps(result.numbers, allow_nan=False)


def test_seeds_see_the_same_held_out_rows_at_every_point(results):
    chunk = training.Chunk(TINY, [0, 1, 2, 3])
    x, target = chunk.held_out()
    assert torch.equal(x[0], x[2])
    assert torch.equal(target[1], target[3])
    assert not torch.equal(target[0], target[1])
    loss = target.square().sum((1, 2)).double() / target.shape[1]
    expected = zero_loss(TINY)
    assert loss.numpy() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("task", ["decoder", "absolute", "reprojector"])
@pytest.mark.parametrize("frequencies", ["uniform", "power_law"])
def test_the_zero_predictors_loss_is_the_mean_square_of_the_targets(task, frequencies):
    config = replace(TINY, task=task, frequencies=frequencies, densities=(0.15,))
    target = training.Chunk(config, [0, 1]).held_out()[1]
    measured = target.square().sum((1, 2)).double() / target.shape[1]
    error = target.square().sum(2).double().std(1) / target.shape[1] ** 0.5
    # The products of features in the re-projector's targets do not average out exactly.
    slack = 0.25 * zero_loss(config) if task == "reprojector" else 0.0
    assert ((measured - zero_loss(config)).abs() < 5 * error + slack).all()


def test_an_interrupted_training_goes_on_bit_for_bit(results, tmp_path, monkeypatch):
    config, whole = GRID[2], results[2]
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    shares = []

    def stop(share, what):
        shares.append(share)
        if len(shares) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path, progress=stop)
    assert list(tmp_path.rglob("checkpoint.safetensors"))
    again = experiment.run(config, tmp_path)
    assert again.numbers == whole.numbers
    np.testing.assert_array_equal(again.details[0].loss, whole.details[0].loss)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


def test_what_a_run_costs_is_said_before_it_starts(tmp_path):
    said = []

    def stop(share, what):
        said.append(what)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(TINY, tmp_path, progress=stop)
    assert "4 models, about 0 min and 1 MB" in said[0]
    cost = experiment.expected_cost(experiment.PRESETS["replication"][0])
    assert cost.n_models == 6
    assert 60 < cost.seconds < 1e6
    assert 20e6 < cost.memory < 200e6


def test_a_finished_run_is_read_and_smoke_gives_no_verdict(results, directory, tmp_path):
    (again,) = run_all(experiment, [GRID[1]], directory)
    assert again.numbers == results[1].numbers
    claims, report = finish(
        experiment,
        "monosemanticity",
        "smoke",
        results,
        results_file=tmp_path / "monosemanticity.json",
        report_file=tmp_path / "report.html",
    )
    assert {claim.verdict for claim in claims} == {"not tested"}
    assert [claim.id for claim in claims] == list(experiment.CLAIM_IDS)
    assert report.stat().st_size > 10_000
    stored = load_results(tmp_path / "monosemanticity.json")
    assert stored.seeds == (0, 1)
    row = stored.settings["runs"][1]["config"]
    assert Config(**row) == GRID[1]  # lists of JSON are tuples again
    assert config_hash(Config(**row)) == config_hash(GRID[1])
    assert set(experiment.summary(results[0])) == {"loss", "mono/N at .9", "covered"}


def test_figures_show_seeds_activations_biases_sweeps_and_ranks(results):
    drawn = experiment.figures(results)
    for figure in drawn.values():
        check_house_rules(figure)
    expected = {"loss_per_seed", "loss", "mono_90", "mono_by_learning_rates", "state_by_rank"}
    assert expected | {"activations_0", "biases_0"} <= set(drawn)
    assert len(drawn["activations_0"].data) == 3
    plane = [replace(TINY, n_neurons=k, densities=(0.05, 0.1)) for k in (8, 16)]
    numbers = results[1].numbers
    runs = [experiment.Results(replace(c, learning_rates=(0.01,)), numbers) for c in plane]
    assert "plane_0" in experiment.figures(runs)


def test_the_order_of_features_is_told_by_the_area_under_the_curve():
    def auc(states):
        return rank_auc(torch.tensor([states], dtype=torch.bool)).item()

    assert auc([1, 1, 0, 0]) == 1.0
    assert auc([0, 0, 1, 1]) == 0.0
    assert auc([1, 0, 0, 1]) == 0.5
    assert np.isnan(auc([0, 0, 0, 0]))


def test_the_settings_are_many_and_each_is_itself():
    points = [p for c in (*DECIDING, *PLANE, *VARIANTS) for p in c.points]
    names = {experiment.setting(p) for p in points}
    shared = {experiment.setting(replace(p, n_seeds=1)) for p in points}
    assert names == shared
    assert len({replace(p, n_seeds=1) for p in points}) == len(names)
    assert all(p.n_steps == p.record_steps[p.annealed[-1]] for p in points)
    assert {len(c.points) for c in PRESETS["replication"]} == {6}
    assert "2 of 8 groups" in experiment.setting(DECIDING[-2])


def test_multiplications_are_those_of_the_neurons_that_act():
    config = Config()
    assert multiplications(config) == 128 * (32 + 64)
    assert multiplications(replace(config, top_k=8)) == 128 * 32 + 8 * 64
    grouped = replace(config, n_groups=8, n_active_groups=2)
    assert multiplications(grouped) == 8 * 32 + 32 * (32 + 64)


@pytest.mark.parametrize("n_steps", [4096, 100, 128, 4200])
def test_a_training_that_does_not_end_at_a_small_rate_is_refused(n_steps):
    with pytest.raises(ValueError, match=r"odd number of half periods.*Pass n_steps=\d+"):
        Config(n_steps=n_steps)
    assert asdict(Config(n_steps=4224))["n_steps"] == 4224


@pytest.mark.gpu
def test_the_same_on_a_gpu(results, tmp_path):
    on_gpu = experiment.run(replace(TINY, device="cuda"), tmp_path)
    for point in (0, 1):
        ours, theirs = (per_seed(run, point, "loss") for run in (results[0], on_gpu))
        np.testing.assert_allclose(theirs, ours, rtol=0.02)
