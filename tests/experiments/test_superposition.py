"""The experiment at tiny size, its measures on planted geometry, its rule, and its figures."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from figures.captions import check_house_rules
from phasescope.experiments import superposition as experiment
from phasescope.experiments.runner import finish, run_all
from phasescope.experiments.superposition.config import LEVELS, Config, per_seed
from phasescope.experiments.superposition.run import has_line, measure
from phasescope.report import load_results

TINY = replace(experiment.SMOKE, n_steps=60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("superposition")


@pytest.fixture(scope="module")
def results(directory):
    configs = (TINY, replace(TINY, importance_decay=0.8, at_once=4), replace(TINY, seed=1))
    return list(run_all(experiment, configs, directory))


def test_every_seed_and_density_has_its_numbers(results, directory):
    for result in results:
        config = result.config
        assert len(per_seed([result], "densities_at_half")) == config.n_seeds
        for name in ("d_star", "represented", "loss"):
            values = np.array(result.numbers["by_density"][name])
            assert values.shape == (config.n_seeds, config.n_densities)
            assert np.isfinite(values).all()
        assert np.array(result.numbers["norm_by_importance"]).shape == (3, 12)
        assert result.detail.W.shape == (3, 12, 3)
    # Dense features: no better than the largest few; they beat the zero predictor.
    assert np.array(results[0].numbers["by_density"]["loss"]).max() < 1.5
    (again,) = run_all(experiment, [TINY], directory)
    assert again.numbers == results[0].numbers
    np.testing.assert_array_equal(again.detail.W, results[0].detail.W)


def test_a_run_that_was_interrupted_gives_the_same_numbers(results, tmp_path):
    whole = results[1]
    config = whole.config
    experiment.run(config, tmp_path)
    chunks = sorted((tmp_path / "chunks").glob("*.safetensors"))
    assert len(chunks) == 2
    chunks[1].unlink()
    assert experiment.run(config, tmp_path).numbers == whole.numbers


def tetrahedron():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    for a, b in combinations(corners, 2):
        assert a @ b == pytest.approx(-1 / 3)
    return torch.tensor(corners)


def test_planted_polytopes_are_lines_at_their_level_and_random_directions_are_not():
    config = Config(n_features=12, d=9, n_densities=2, n_seeds=1)
    W = torch.block_diag(tetrahedron(), tetrahedron(), tetrahedron()).expand(1, 2, 12, 9)
    numbers = measure(config, W, torch.ones(1, 2))
    lines = {level: numbers["per_group"][f"line {level}"] for level in LEVELS}
    assert lines == {level: [float(level == "3/4")] for level in LEVELS}
    assert not any(numbers["per_group"][f"control {level}"][0] for level in LEVELS)
    bins = np.array(numbers["histogram"]).sum(0)
    assert bins.sum() == 24
    assert bins[150] == 24  # .75 lies in the middle of its bin, not on an edge
    np.testing.assert_allclose(numbers["by_density"]["d_star"], 9 / 12)


def test_a_smooth_distribution_has_no_line():
    D = torch.linspace(0, 1, 2001).unsqueeze(0)
    assert not any(bool(has_line(D, level)) for level in LEVELS.values())
    spike = torch.cat([D, torch.full((1, 40), 0.5)], dim=1)
    assert bool(has_line(spike, 0.5))
    assert not bool(has_line(spike[:, ::200], 0.4))


def planted(lines, n_seeds=100, halves=5.0):
    n_groups = n_seeds // experiment.DEFAULT.group_size
    groups = {f"line {level}": [float(level in lines)] * n_groups for level in LEVELS}
    groups |= {f"control {level}": [0.0] * n_groups for level in LEVELS}
    numbers = {"per_seed": {"densities_at_half": [halves] * n_seeds}, "per_group": groups}
    return experiment.Results(replace(experiment.DEFAULT, n_seeds=n_seeds), numbers)


def test_five_seeds_of_the_deciding_setting_have_as_many_features_as_the_published_run():
    assert experiment.DEFAULT.group_size == 5
    assert experiment.PRESETS["paper"][0].group_size == 1


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (planted(LEVELS), "reproduced"),
        (planted([level for level in LEVELS if level != "3/8"]), "refuted"),
        (planted(LEVELS, halves=2.0), "refuted"),
        (planted(LEVELS, n_seeds=20), "inconclusive"),
    ],
)
def test_every_level_and_the_half_decide_d8(run, verdict):
    (claim,) = experiment.claims([run])
    assert claim.verdict == verdict
    assert claim.id == "D8"


def test_without_the_deciding_setting_nothing_is_tested(results, tmp_path):
    claims, report = finish(
        experiment,
        "superposition",
        "smoke",
        results,
        results_file=tmp_path / "superposition.json",
        report_file=tmp_path / "report.html",
    )
    assert [claim.verdict for claim in claims] == ["not tested"]
    assert report.stat().st_size > 10_000
    stored = load_results(tmp_path / "superposition.json")
    assert stored.seeds == (0, 1, 2, 3)
    assert experiment.summary(results[0])["lines"] >= 0


def test_figures_show_levels_importances_and_products(results):
    drawn = experiment.figures(results)
    for figure in drawn.values():
        check_house_rules(figure)
    assert {"levels_1", "importance_2", "products_1", "dimensions_per_feature", "loss"} <= set(
        drawn
    )
    assert len(drawn["products_1"].data) == 3
    numbers_only = [replace(result, detail=None) for result in results]
    assert "products_1" not in experiment.figures(numbers_only)
