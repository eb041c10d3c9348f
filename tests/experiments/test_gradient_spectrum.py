from dataclasses import replace

import numpy as np
import pytest

import phasescope as ps
from phasescope.datasets import ShuffledBatches
from phasescope.experiments import gradient_spectrum as experiment
from phasescope.experiments.gradient_spectrum.claims import planted_counts
from phasescope.experiments.gradient_spectrum.config import GRID, count_in_samples
from phasescope.experiments.runner import config_hash, finish, known_runs, run_all

TINY = replace(experiment.SMOKE, hidden=8, batch_size=16, n_epochs=2)  # 180 steps


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("gs") / "run"


@pytest.fixture(scope="module")
def results(directory):
    return experiment.run(TINY, directory)


def fake(config, *, count=92.0, null=300.0, residual=0.5, dataset="mnist"):
    """The numbers of a run, as if it had come out so."""
    sample = {"counts": [2.2 * count, count, count / 2.3], "null_counts": [null] * 3}
    sample["largest_gap"] = 1.02
    kinds = ("random", "random_centred")
    samples = {k: [sample] * 2 for k in kinds} | {"even": sample, "even_centred": sample}
    curves = ("random steps held out", "last fifth held out")
    numbers = {
        "dataset": dataset,
        "n_steps": 1876,
        "n_parameters": 101_770,
        "mean_alignment": 0.1,
        "samples": {"300": samples, "400": samples},
        "residuals": [
            {"curve": c, "n_sampled": n, "median": r, "low": r, "high": r}
            for c in curves
            for n, r in ((300, residual), (400, residual - 0.02))
        ],
        "dropped": [
            {"first_step": t, "counts": [9, 100 + t, 1], "null_counts": [9, 200, 1]}
            for t in (0, 100, 200, 500)
        ],
    }
    return experiment.Results(config, numbers)


def grid(n_seeds, **options):
    """Runs of the whole grid; `options` may name a value per setting."""
    runs = []
    for i, config in enumerate(GRID):
        for seed in range(n_seeds):
            chosen = {k: v[i] if isinstance(v, list) else v for k, v in options.items()}
            chosen["count"] = chosen.get("count", 92.0) + 0.1 * seed
            runs.append(fake(replace(config, seed=seed), **chosen))
    return runs


def verdicts(runs):
    return {claim.id: claim.verdict for claim in experiment.claims(runs)}


def test_one_setting_that_meets_the_published_interval_reproduces_a1():
    counts = [200.0] * 8 + [95.0]
    claims = {c.id: c for c in experiment.claims(grid(10, count=counts))}
    assert claims["A1"].verdict == "reproduced"
    assert "1 of 9 settings" in claims["A1"].sentence
    assert claims["A1"].value == pytest.approx(95.45)
    assert "CNN, Adam 0.001, batch 64" in claims["A1"].unit
    assert "300" in claims["A1"].null


def test_a1_is_refuted_only_by_the_whole_grid_with_ten_seeds_each():
    assert verdicts(grid(10, count=200.0))["A1"] == "refuted"
    without_cnn = [r for r in grid(10, count=200.0) if r.config.model == "mlp"]
    assert verdicts(without_cnn)["A1"] == "inconclusive"
    assert verdicts(grid(9, count=200.0))["A1"] == "inconclusive"
    assert verdicts(grid(4, count=200.0))["A1"] == "not tested"


def test_another_data_set_gives_no_verdict():
    runs = [fake(replace(c, seed=s), dataset="digits") for c in GRID for s in range(10)]
    assert set(verdicts(runs).values()) == {"not tested"}


def test_a2_needs_both_counts_and_no_gap():
    runs = grid(10)  # 92 above 10%, 202 above 5%, 40 above 15%
    assert verdicts(runs)["A2"] == "reproduced"
    for run in runs:
        for sample in run.numbers["samples"]["400"]["random"]:
            sample["largest_gap"] = None  # nothing follows the last value above the gap
    assert verdicts(runs)["A2"] == "refuted"
    assert verdicts(grid(10, count=150.0))["A2"] == "refuted"


def test_a3_needs_a_low_residual_that_hardly_falls():
    assert verdicts(grid(10, residual=0.3))["A3"] == "reproduced"
    assert verdicts(grid(10, residual=0.4))["A3"] == "refuted"


def test_questions_are_answered_from_the_default_setting():
    claims = {c.id: c for c in experiment.claims(grid(10))}
    assert {claims[i].verdict for i in ("A4", "A5", "A7")} == {"answered"}
    assert claims["A7"].value == pytest.approx(3.0)
    assert "MLP, SGD 0.1, batch 64" in claims["A7"].unit


def test_planted_updates_count_nine_and_more_without_the_early_ones():
    # 1/n > 1/(10 (t0 + 1)) for n = t0 + 1, ..., 10 (t0 + 1) - 1
    assert planted_counts() == {t0: 10 * (t0 + 1) - 1 - t0 for t0 in (0, 10, 50)}
    assert planted_counts()[0] == 9


def test_a_run_measures_what_its_gradients_give(tmp_path):
    config = replace(TINY, keep_trajectory=True)
    results = experiment.run(config, tmp_path / "run")
    run = ps.open_run(tmp_path / "run")
    s = np.linalg.svd(run.gradients[:].astype(np.float64), compute_uv=False)
    ranks = results.numbers["ranks"]["raw"]
    assert ranks["counts"][1] == int((s > 0.1 * s[0]).sum())
    assert ranks["null_counts"][1] == _above(np.linalg.norm(run.gradients[:], axis=1))
    np.testing.assert_allclose(results.numbers["singular_values"][:50], s[:50] / s[0], rtol=1e-5)
    mean = run.gradients[:].astype(np.float64).mean(0)
    first = np.linalg.svd(run.gradients[:].astype(np.float64), full_matrices=False)[2][0]
    cosine = abs(first @ mean) / np.linalg.norm(mean)
    assert results.numbers["mean_alignment"] == pytest.approx(cosine, abs=1e-5)
    assert results.numbers["n_steps"] == 180
    assert count_in_samples(results) <= 90  # half of the steps are sampled in a short run


def _above(values):
    return int((values > 0.1 * values.max()).sum())


def test_gradients_are_deleted_once_analysed(results, directory):
    run = ps.open_run(directory)
    assert "gradients" not in run.series_names
    assert len(run["norms/gradients"]) == 180
    assert not (directory / "trajectory.zarr" / "gradients").exists()
    assert run.dataset("norms").gradients.shape == (180, 4)


def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, results, monkeypatch):
    original = ShuffledBatches.__iter__

    def breaking(self):
        for batch in original(self):
            if self.position > 120:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(ShuffledBatches, "__iter__", breaking)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(TINY, tmp_path / "run")
    monkeypatch.undo()
    resumed = experiment.run(TINY, tmp_path / "run")
    assert resumed.numbers == results.numbers


def test_presets_differ_in_numbers_only_and_every_field_changes_the_hash():
    assert config_hash(TINY) != config_hash(replace(TINY, seed=1))
    assert len({config_hash(config) for config in GRID}) == 9
    assert experiment.PRESETS["paper"] == GRID


def test_figures_and_report_show_every_step(tmp_path, results):
    figures = experiment.figures([results])
    assert set(figures) == {
        "scree",
        "counts",
        "residuals",
        "dropped",
        "time_vectors",
        "norms",
        "training",
    }
    assert len(figures["norms"].data[0].x) == 180
    assert len(figures["training"].data[0].x) == 180
    claims, report = finish(
        experiment,
        "gradient_spectrum",
        "smoke",
        [results],
        results_file=tmp_path / "gs.json",
        report_file=tmp_path / "report.html",
    )
    assert report.stat().st_size > 1_000_000
    stored = ps.report.load_results(tmp_path / "gs.json")
    assert list(stored.claims) == claims
    assert stored.seeds == (0,)
    assert len(stored.settings["runs"]) == 1


def test_finished_runs_are_read_not_repeated(tmp_path, monkeypatch):
    first = list(run_all(experiment, [TINY], tmp_path))
    stored, report = tmp_path / "gs.json", tmp_path / "report.html"
    finish(experiment, "gs", "smoke", first, results_file=stored, report_file=report)
    monkeypatch.setattr(experiment, "run", lambda *_, **__: pytest.fail("it ran again"))
    again = list(run_all(experiment, [TINY], tmp_path))
    assert again[0].numbers == first[0].numbers
    assert again[0].detail is not None  # the figures of a finished run can be drawn again
    elsewhere = list(
        run_all(experiment, [TINY], tmp_path / "new", known=known_runs(experiment, stored))
    )
    assert [c.id for c in experiment.claims(elsewhere)] == [c.id for c in experiment.claims(first)]
    assert count_in_samples(elsewhere[0]) == pytest.approx(count_in_samples(first[0]))
