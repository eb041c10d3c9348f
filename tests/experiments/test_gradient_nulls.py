from dataclasses import replace

import pytest
import torch

import phasescope as ps
from phasescope.experiments import gradient_nulls as experiment
from phasescope.experiments.gradient_nulls.config import (
    DECIDING,
    DECIDING_SETTINGS,
    OTHERS,
    PLACES,
    VARIANTS,
)
from phasescope.experiments.gradient_nulls.counting import counts
from phasescope.experiments.gradient_nulls.processes import make_process
from phasescope.experiments.gradient_nulls.series import leading_directions, overlap
from phasescope.experiments.gradient_nulls.training import other_order, sampled_steps
from phasescope.experiments.runner import config_hash

SMOKE = {config.process: config for config in experiment.SMOKE}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gn")
    names = ("mnist", "planted")
    return [experiment.run(SMOKE[name], directory / name) for name in names]


def matrix(n=40, columns=3000, seed=0):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed))


def fake(config, *, flips=30, frozen=40, overlap=0.02):
    """The numbers that claims and verdicts read, as if a run had come out so."""
    row = {"count": 100, "norm_null": 400, "flip_count": flips}
    null = {"matched_count": 120, "flip_count": frozen}
    series = {"centred": {"count": 100}}
    pairs = ("gradients and weights", "gradients and updates", "gradients and increments")
    pairs += ("increments and weights", "two halves of the gradients", "random directions")
    rows = dict.fromkeys(("gradients", "updates", "increments"), series)
    numbers = {
        "dataset": "mnist",
        "nulls": {"training": dict.fromkeys(VARIANTS, row)}
        | {place: dict.fromkeys(VARIANTS, null) for place in PLACES},
        "series": {
            "rows": rows | {"weights": series | {"walk": {"centred": {"count": 10.0}}}},
            "overlaps": dict.fromkeys(pairs, overlap),
        },
    }
    return experiment.Results(config, numbers)


def runs(n_seeds, settings=(*DECIDING_SETTINGS, *OTHERS), **options):
    """`options` may name a value for each setting."""
    found = []
    for i, config in enumerate(settings):
        chosen = {k: v[i] if isinstance(v, list) else v for k, v in options.items()}
        found += [fake(replace(config, seed=seed), **chosen) for seed in range(n_seeds)]
    return found


def verdict_of(claim_id, found):
    return {claim.id: claim.verdict for claim in experiment.claims(found)}[claim_id]


def test_a6_is_reproduced_by_one_setting_below_half_and_refuted_by_three_above():
    many = [30] * 8
    assert verdict_of("A6", runs(10, flips=many)) == "refuted"
    assert verdict_of("A6", runs(10, flips=[15, *many[1:]])) == "reproduced"
    assert verdict_of("A6", runs(10, flips=[20, *many[1:]])) == "reproduced"  # exactly a half
    assert verdict_of("A6", runs(9, flips=many)) == "inconclusive"
    assert verdict_of("A6", runs(4, flips=many)) == "not tested"


def test_a6_is_not_refuted_without_all_three_settings_nor_by_an_interval_around_half():
    assert verdict_of("A6", runs(10, DECIDING_SETTINGS[:2])) == "not tested"
    mixed = runs(10)
    for run in mixed[:10]:
        row = run.numbers["nulls"]["training"]
        wide = {"count": 100, "norm_null": 400, "flip_count": 12 + 2 * run.config.seed}
        run.numbers["nulls"]["training"] = row | {DECIDING: wide}
    assert verdict_of("A6", mixed) == "inconclusive"


def test_the_smallest_of_the_frozen_counts_is_compared():
    found = runs(10)
    for run in found:
        run.numbers["nulls"]["end"] = {
            name: {"matched_count": 120, "flip_count": 10} for name in VARIANTS
        }
    claim = {c.id: c for c in experiment.claims(found)}["A6"]
    assert claim.value == pytest.approx(3)


def test_questions_need_ten_seeds_of_every_setting():
    assert {verdict_of(i, runs(10)) for i in ("A8", "A16")} == {"answered"}
    assert verdict_of("A8", runs(10, DECIDING_SETTINGS)) == "not tested"
    assert verdict_of("A16", runs(10, DECIDING_SETTINGS[1:])) == "not tested"
    claims = {c.id: c for c in experiment.claims(runs(10))}
    assert claims["A8"].value == pytest.approx(0.25)
    assert claims["A16"].value == pytest.approx(0.02)


def test_the_deciding_count_is_the_flip_test_of_centred_unit_rows():
    X = matrix()
    X[:, :20] += 4 * torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    unit = X / X.norm(dim=1, keepdim=True)
    test = ps.flip_rank_test(unit - unit.mean(0), center="steps", max_deflations=0, seed=5)
    found = counts(X, seed=5)
    assert found[DECIDING]["flip_count"] == test.rank == 1
    put_back = (40 / 39) ** 0.5  # subtracting the mean twice takes as much from noise
    assert found[DECIDING]["edge"] == pytest.approx(put_back * float(test.thresholds[0]), rel=0.01)


@pytest.mark.slow
def test_noise_seldom_has_components_in_any_variant():
    """At nominal .05 and 60 draws: at most 7 of each variant."""
    falls = dict.fromkeys(VARIANTS, 0)
    for seed in range(60):
        rows = matrix(30, 400, seed=seed) * torch.linspace(0.3, 3, 400)
        rows = rows / torch.arange(1, 31.0)[:, None].sqrt()
        for name, row in counts(rows, seed=100 + seed).items():
            falls[name] += row["flip_count"] > 0
    assert max(falls.values()) <= 7, falls


@pytest.mark.parametrize("decay", [False, True])
def test_planted_components_are_counted_in_every_variant(decay):
    scale = 1 / torch.arange(1, 41.0)[:, None].sqrt() if decay else torch.ones(40, 1)
    noise = matrix()
    generator = torch.Generator().manual_seed(2)
    signal = torch.randn(40, 3, generator=generator) @ torch.randn(3, 3000, generator=generator)
    found = counts((noise + 2 * signal) * scale, seed=0)
    for name, row in found.items():
        if decay and not VARIANTS[name][1]:  # the edge is that of the loudest step
            assert row["flip_count"] < 3
        else:
            assert row["flip_count"] == 3


def test_columns_of_zeros_change_nothing():
    X = matrix()
    padded = torch.cat([X, torch.zeros(40, 500)], dim=1)
    assert counts(padded, seed=0) == counts(X, seed=0)


def test_planted_updates_count_nine_and_every_null_says_so(results):
    row = results[1].numbers["nulls"]["training"]["raw"]
    assert (row["count"], row["norm_null"], row["flip_count"]) == (9, 9, 0)
    normalised = results[1].numbers["nulls"]["training"][DECIDING]
    assert (normalised["count"], normalised["flip_count"]) == (79, 0)


def test_a_run_is_the_same_again_and_leaves_nothing_behind(results, tmp_path):
    again = experiment.run(SMOKE["planted"], tmp_path / "run")
    assert again.numbers == results[1].numbers
    assert not (tmp_path / "run" / "trajectory").exists()


def test_updates_of_sgd_say_what_gradients_say_and_weights_are_walks(results):
    series = results[0].numbers["series"]
    rows = series["rows"]
    assert rows["updates"]["raw"] == {
        key: pytest.approx(value, rel=1e-4) for key, value in rows["gradients"]["raw"].items()
    }
    assert rows["updates"]["flip_count"] == rows["gradients"]["flip_count"]
    assert series["overlaps"]["gradients and updates"] == pytest.approx(1, abs=1e-4)
    assert rows["weights"]["centred"]["count"] < rows["gradients"]["centred"]["count"]
    assert rows["weights"]["walk"]["centred"]["count"] < 15


def test_held_out_curves_fall_and_the_sample_explains_itself(results):
    rows = {row["curve"]: row for row in results[0].numbers["heldout"]}
    for name, row in rows.items():
        assert all(a >= b - 1e-9 for a, b in zip(row["median"], row["median"][1:], strict=False))
        assert len(row["median"]) == len(row["k"]), name
    assert rows["in the sample"]["median"][-1] < rows["random steps"]["median"][-1]
    assert rows["null: diagonal"]["dimensions"] < rows["null: isotropic"]["dimensions"]


def test_sampled_steps_come_one_from_each_stretch():
    steps = torch.tensor(sampled_steps(SMOKE["mnist"]))
    assert (steps // 2).tolist() == list(range(80))


def test_another_order_starts_at_the_same_weights_and_goes_elsewhere():
    config = replace(SMOKE["modular"], n_steps=6, n_sampled=6)
    rows = other_order(config)
    model = make_process(config).model
    assert rows.shape == (6, sum(p.numel() for p in model.parameters()))
    assert torch.equal(rows, other_order(config))
    assert not torch.equal(rows, other_order(replace(config, seed=1)))


@pytest.mark.parametrize("name", ["quadratic", "low_rank", "modular", "logistic"])
def test_every_process_learns(name):
    config = replace(SMOKE[name], n_steps=150, dataset="digits")
    process = make_process(config)
    optimizer = torch.optim.Adam(process.model.parameters(), lr=3e-3)
    losses = []
    for step, (x, y) in enumerate(process.batches(0)):
        if step == config.n_steps:
            break
        optimizer.zero_grad()
        loss = process.loss_fn(process.model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.99 * sum(losses[:20])


def test_overlap_is_one_for_a_subspace_and_little_by_chance():
    X = matrix(60)
    base = leading_directions(X)
    assert overlap(base, base) == pytest.approx(1, abs=1e-5)
    assert overlap(base, leading_directions(matrix(60, seed=1))) < 0.05


def test_every_setting_has_a_hash_of_its_own():
    assert len({config_hash(config) for config in experiment.PRESETS["paper"]}) == 8
    assert len({experiment.setting(config) for config in experiment.PRESETS["paper"]}) == 8


def test_figures_of_runs_and_of_what_is_stored(results):
    figures = experiment.figures(results)
    expected = {"components", "processes", "spectra", "heldout", "windows", "sampling", "series"}
    expected |= {"overlaps", "mass", "profiles", "path of logits", "path of losses"}
    assert set(figures) == expected
    later = replace(results[0].config, seed=1)
    both = [results[0], experiment.Results(later, results[0].numbers)]
    stored = experiment.for_storage(both)
    assert ["drawn" in row["numbers"] for row in stored] == [True, False]
    again = [
        experiment.Results(r.config, row["numbers"]) for r, row in zip(both, stored, strict=True)
    ]
    assert set(experiment.figures(again)) == expected
    assert experiment.claims(results)[0].verdict == "not tested"
    assert experiment.summary(results[0])["count above 10%"] > 0
