import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from phasescope.datasets import ShuffledBatches, load_digits_images
from phasescope.experiments import spectrum_controls as experiment
from phasescope.experiments.runner import config_hash, finish, known_runs, run_all, seeds_of
from phasescope.experiments.spectrum_controls.axes import BASE, PRESETS, SMOKE, levels
from phasescope.experiments.spectrum_controls.claims import intrinsic_dimensions
from phasescope.experiments.spectrum_controls.config import CLASS_ORDER
from phasescope.experiments.spectrum_controls.data import spoilt_data
from phasescope.experiments.spectrum_controls.rules import judge, spearman, unchanged
from phasescope.experiments.spectrum_controls.run import flip_count, statistics
from phasescope.experiments.spectrum_controls.series import all_series
from phasescope.experiments.spectrum_controls.table import axes_table
from phasescope.experiments.spectrum_controls.training import (
    RandomSubspaces,
    build,
    flat,
    frozen,
    recorded_steps,
    train,
)
from phasescope.models import MLP, seeded
from phasescope.parameters import ParameterTable
from phasescope.report import load_results

TINY = replace(SMOKE, hidden=5, n_steps=24, n_recorded=8, n_examples=50, batch_size=20)


def quiet(share):
    pass


def double(data):
    """The data of every network in float64."""
    return [replace(d, x=d.x.double(), test_x=d.test_x.double()) for d in data]


@pytest.fixture(scope="module")
def digits():
    return load_digits_images("train"), load_digits_images("test")


def data_of(config, digits):
    return [spoilt_data(config, *digits, seed) for seed in seeds_of(config)]


# The training


def alone(config, data, seed, offset=0, steps=None):
    """Gradients of one network by an ordinary loop, at every step."""
    model = seeded(lambda: MLP((64, config.hidden, 10)), seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(config.init_gain)
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2)
        )
    else:
        rate = config.learning_rate * (1 - config.momentum)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=config.momentum)
    loader = ShuffledBatches(
        data.x, data.y, config.batch_size, seed=2 * seed + offset, n_epochs=100
    )
    rows = []
    for _, (x, y) in zip(range(steps or config.n_steps), loader, strict=False):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        if not offset:
            optimizer.step()
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changed",
    [
        {"momentum": 0.9, "learning_rate": 0.5},
        {"optimizer": "adam", "learning_rate": 0.01, "beta2": 0.9, "init_gain": 0.3},
    ],
)
def test_networks_train_as_if_each_were_alone(changed, digits, float64_default):
    config = replace(TINY, n_seeds=3, seed=2, **changed)
    data = double(data_of(config, digits))
    trained = train(config, build(config, 64), data, quiet)
    assert list(seeds_of(config)) == [6, 7, 8]
    for i, seed in enumerate(seeds_of(config)):
        wanted = alone(config, data[i], seed)[trained.steps]
        assert torch.allclose(trained.gradients[i], wanted, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(trained.gradients[0], trained.gradients[1], rtol=0.1)


def test_frozen_gradients_are_those_of_other_batches_at_the_initial_weights(
    digits, float64_default
):
    config = replace(TINY, n_seeds=2)
    data = double(data_of(config, digits))
    found = frozen(config, build(config, 64), data)
    for i, seed in enumerate(seeds_of(config)):
        wanted = alone(config, data[i], seed, offset=1, steps=config.n_recorded)
        assert torch.allclose(found[i], wanted, rtol=1e-9, atol=1e-12)


def test_one_step_of_every_stratum_is_recorded():
    for config in (TINY, BASE):
        steps = recorded_steps(config).numpy()
        edges = np.linspace(0, config.n_steps, config.n_recorded + 1).round()
        assert np.array_equal(np.digitize(steps, edges), np.arange(1, config.n_recorded + 1))
    assert not torch.equal(recorded_steps(BASE), recorded_steps(replace(BASE, seed=1)))


def test_a_random_subspace_is_a_sparse_matrix_with_nearly_orthonormal_columns(float64_default):
    config = replace(TINY, subspace=7, n_seeds=2)
    start = torch.randn(2, 900, generator=torch.Generator().manual_seed(0))
    subspace = RandomSubspaces(config, start)
    P = torch.zeros(2, 900, 7)
    for column, one in enumerate(torch.eye(7)):
        P[:, :, column] = subspace.vectors(one.repeat(2, 1)) - start
    assert bool(((P != 0).sum(1) == 30).all())  # the root of 900
    inner = P.mT @ P
    assert torch.allclose(inner.diagonal(dim1=1, dim2=2), torch.ones(2, 7))
    apart = inner - torch.eye(7)
    assert float(apart.abs().max()) < 5 / 900**0.5
    assert not torch.equal(P[0], P[1])
    grads = torch.randn(2, 900, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(subspace.pull(grads), (P.mT @ grads[..., None])[..., 0])
    z = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(subspace.vectors(z), start + (P @ z[..., None])[..., 0])


def test_training_in_a_subspace_stays_in_it_and_makes_steps_as_long(digits, float64_default):
    config = replace(TINY, subspace=6, optimizer="adam", learning_rate=0.01, n_steps=1)
    config = replace(config, n_recorded=1)
    data = double(data_of(config, digits))
    networks = build(config, 64)
    start = flat(networks.params)
    trained = train(config, networks, data, quiet)
    moved = flat(networks.params) - start
    # The first step of Adam moves every coordinate by the rate, times sqrt(D / d) here.
    subspace = RandomSubspaces(config, start)
    reach = 0.01 * (start.shape[1] / 6) ** 0.5
    pulled = subspace.pull(trained.gradients[:, 0])
    z = -reach * pulled / (pulled.abs() + 1e-8)
    assert torch.allclose(moved, subspace.vectors(z) - start, rtol=1e-9)
    assert torch.allclose(moved.norm(dim=1), torch.tensor(0.01 * start.shape[1] ** 0.5), rtol=0.2)


def test_training_in_a_subspace_is_that_of_a_network_confined_to_it(digits, float64_default):
    config = replace(TINY, subspace=6, optimizer="adam", learning_rate=0.01)
    data = double(data_of(config, digits))
    networks = build(config, 64)
    start = flat(networks.params)
    trained = train(config, networks, data, quiet)
    subspace = RandomSubspaces(config, start)
    for i, seed in enumerate(seeds_of(config)):
        model = seeded(lambda: MLP((64, config.hidden, 10)), seed)
        table = ParameterTable.from_module(model)
        columns = [subspace.vectors(one.repeat(2, 1))[i] - start[i] for one in torch.eye(6)]
        z = torch.zeros(6, requires_grad=True)
        optimizer = torch.optim.Adam([z], lr=0.01 * (start.shape[1] / 6) ** 0.5)
        loader = ShuffledBatches(data[i].x, data[i].y, 20, seed=2 * seed, n_epochs=9)
        for _, (x, y) in zip(range(config.n_steps), loader, strict=False):
            optimizer.zero_grad()
            weights = dict(table.unflatten(start[i] + z @ torch.stack(columns)))
            functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y).backward()
            optimizer.step()
        wanted = start[i] + z.detach() @ torch.stack(columns)
        assert torch.allclose(flat(networks.params)[i], wanted, rtol=1e-8)
    assert trained.gradients.shape[2] == start.shape[1]  # of all parameters


def test_a_training_that_leaves_the_finite_numbers_says_so(tmp_path):
    config = replace(TINY, learning_rate=1e30)
    members = experiment.run(config, tmp_path).numbers["members"]
    assert all(row["diverged"] for row in members)
    assert all("trained" not in row for row in members)


# The data


def test_levels_spoil_the_same_examples_of_a_seed(digits):
    plain = spoilt_data(TINY, *digits, 3)
    mixed = spoilt_data(replace(TINY, noise=0.5), *digits, 3)
    moved = spoilt_data(replace(TINY, shuffled=1.0, shuffle_scope="fresh"), *digits, 3)
    small = spoilt_data(replace(TINY, side=2), *digits, 3)
    assert torch.equal(plain.y, mixed.y)
    assert torch.equal(plain.x.sort(1).values, moved.x.sort(1).values)
    assert torch.allclose(plain.x.mean(1), mixed.x.mean(1), atol=1e-5)
    assert torch.allclose(plain.x.mean(1), small.x.mean(1), atol=1e-5)
    assert small.x.shape == (50, 4)
    assert not torch.equal(plain.x, spoilt_data(TINY, *digits, 4).x)


def test_a_permutation_that_all_images_share_is_that_of_the_test_images_too(digits):
    config = replace(TINY, shuffled=1.0, shuffle_scope="fixed")
    plain, moved = spoilt_data(TINY, *digits, 0), spoilt_data(config, *digits, 0)
    matches = (plain.x[:, :, None] == moved.x[:, None, :]).all(0)
    order = matches.float().argmax(0)  # any of those that are equal in all images
    assert torch.equal(plain.test_x.shape and moved.x, plain.x[:, order])
    differing = plain.test_x[:, order] != moved.test_x
    assert float(differing.float().mean()) < 0.02  # pixels that are equal in training only


def test_classes_and_labels(digits):
    few = spoilt_data(replace(TINY, n_classes=2), *digits, 0)
    assert set(few.y.tolist()) == set(few.test_y.tolist()) == {1, 7}
    noisy = spoilt_data(replace(TINY, n_classes=2, label_noise=1.0), *digits, 0)
    assert set(noisy.y.tolist()) == {1, 7}
    assert not torch.equal(noisy.y, few.y)
    assert torch.equal(noisy.x, few.x)
    assert torch.equal(noisy.test_y, few.test_y)
    assert sorted(CLASS_ORDER) == list(range(10))


# The statistics


def test_planted_components_are_counted_and_noise_is_not():
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 3000, generator=draw)
    planted = torch.randn(40, 3, generator=draw) @ torch.randn(3, 3000, generator=draw)
    assert flip_count(noise, 19, 0) == 0
    assert flip_count(noise + planted, 19, 0) == 3
    # Neither a mean nor the norms of the steps are components.
    loud = (noise + planted + 5) * torch.logspace(-2, 2, 40)[:, None]
    assert flip_count(noise + 5, 19, 0) == 0
    assert flip_count(loud, 19, 0) == flip_count(loud / loud.norm(dim=1, keepdim=True), 19, 0)


def test_steps_that_do_not_differ_span_nothing():
    same = torch.randn(300, generator=torch.Generator().manual_seed(0)).repeat(20, 1)
    wanted = {"count": 1, "ratio": 1.0, "normalised_count": 0, "normalised_ratio": 0.0}
    assert statistics(same) == pytest.approx(wanted)
    assert flip_count(same, 19, 0) == 0
    nothing = torch.zeros(20, 300)
    assert set(statistics(nothing).values()) == {0}
    assert flip_count(nothing, 19, 0) == 0


def test_statistics_are_those_of_the_spectra_and_leave_zeros_out():
    rows = torch.randn(12, 200, generator=torch.Generator().manual_seed(0))
    rows[3] *= 50
    found = statistics(torch.cat([rows, torch.zeros(2, 200)]))
    S = torch.linalg.svdvals(rows.double())
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    T = torch.linalg.svdvals(unit - unit.mean(0))
    assert found["count"] == int((0.1 * S[0] < S).sum()) == 1
    assert found["ratio"] == pytest.approx(float((S**2).sum() ** 2 / (S**4).sum()), rel=1e-6)
    assert found["normalised_count"] == int((0.1 * T[0] < T).sum()) == 11
    assert found["normalised_ratio"] == pytest.approx(float((T**2).sum() ** 2 / (T**4).sum()))


def test_frozen_gradients_are_given_the_norms_of_the_training():
    draw = torch.Generator().manual_seed(0)
    rows, norms = torch.randn(12, 200, generator=draw), torch.rand(12, generator=draw).double() + 1
    scaled = rows.double() * (norms / rows.double().norm(dim=1))[:, None]
    found, wanted = statistics(rows, norms), statistics(scaled.float())
    assert found == pytest.approx(wanted, rel=1e-5)
    # A training with steps of zero has fewer: as many rows are compared.
    assert statistics(rows, norms[:9]) == pytest.approx(statistics(scaled[:9].float()), rel=1e-5)


# The rules


def falling(shares, start=-20.0, spread=0.4, n_seeds=10):
    """Excess of every level and seed around shares of that at the start."""
    noise = np.random.default_rng(0).normal(size=(len(shares), n_seeds)) * spread
    return start * np.array(shares)[:, None] + noise


@pytest.mark.parametrize(
    ("shares", "failed"),
    [
        ([1, 0.75, 0.5, 0.25, 0], []),
        ([1, 0.9, 0.5, 0.2, 0.1], []),
        ([1, 0.75, 0.5, 0.45, 0.4], ["ends at it"]),
        ([1, 0.75, 0.5, 0.0, -0.5], ["ends at it"]),  # passes through its null
        ([1, 0.95, 0.9, 0.85, 0], ["smoothly"]),
        ([1, 0.2, 0.1, 0.05, 0], ["smoothly"]),
        ([1, 1.2, 1.4, 1.6, 1.8], ["approaches it", "ends at it"]),
    ],
)
@pytest.mark.parametrize("start", [-20.0, 30.0])
def test_what_an_axis_shows(shares, failed, start):
    judged = judge(falling(shares, start), n_axes=14)
    assert judged.failed == failed
    assert judged.holds == (not failed)
    assert judged.start == pytest.approx(start, abs=0.5)
    assert judged.left == pytest.approx(shares[-1], abs=0.05)


def test_an_axis_that_starts_at_its_null_is_open():
    judged = judge(falling([1, 0.7, 0.3, 0.1, 0], start=0.0), n_axes=14)
    assert judged.answers["starts off the null"] == "open"
    assert judged.answers["ends at it"] == judged.answers["smoothly"] == "open"
    assert not judged.holds
    nothing = judge(np.zeros((5, 10)), n_axes=14)
    assert set(nothing.answers.values()) == {"open"}


def test_fewer_than_ten_seeds_leave_every_criterion_open():
    judged = judge(falling([1, 0.75, 0.5, 0.25, 0], n_seeds=9), n_axes=14)
    assert set(judged.answers.values()) == {"open"}
    assert judged.n_seeds == 9


def test_noise_decides_nothing():
    judged = judge(falling([1, 0.75, 0.5, 0.4, 0.25], spread=12.0), n_axes=14)
    assert not judged.holds
    assert judged.failed == []


def test_contradictions_need_more_the_more_axes_a_statement_has():
    # The end is off its null by a little: two of the 95% interval's half widths, not four.
    excess = falling([1, 0.8, 0.6, 0.4, 0.2], start=20.0, spread=0.0)
    excess[-1] += np.array([-2.0, 2.0] * 5) + 1.8
    assert judge(excess, n_axes=1).failed == ["ends at it"]
    assert judge(excess, n_axes=14).answers["ends at it"] == "open"


def test_a_control_must_stay_where_it_was():
    assert unchanged(falling([1, 1, 1.1, 0.95, 1])) == "holds"
    assert unchanged(falling([1, 1, 1, 1, 0.5])) == "contradicted"
    assert unchanged(falling([1, 1, 1, 1, 0.8], spread=3.0)) == "open"
    assert unchanged(falling([1, 1, 1, 1, 1], n_seeds=9)) == "open"


def test_rank_correlation_equals_scipys():
    from scipy.stats import spearmanr

    values = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    assert spearman(values) == pytest.approx(spearmanr(np.arange(5), values).statistic)
    assert spearman(np.ones(4)) == 0.0


# The axes and the claims


def test_every_axis_has_five_levels_and_begins_undisturbed():
    names = [axis.name for axis in experiment.AXES]
    assert len(set(names)) == len(names) == 25
    for axis in experiment.AXES:
        assert len(set(axis.configs)) == len(axis.configs) == len(axis.labels) >= 5
        changed = [
            {k for k, v in asdict(c).items() if v != asdict(axis.configs[0])[k]}
            for c in axis.configs[1:]
        ]
        assert all(fields == changed[0] or len(fields) <= 3 for fields in changed)
        assert axis.configs[0].n_seeds == 10
        assert axis.configs[0].n_steps >= 1000
    per_claim = [sum(axis.claim == claim for axis in experiment.AXES) for claim in ("A22", "A23")]
    assert per_claim == [14, 8]
    assert PRESETS["paper"] == levels(experiment.AXES)
    assert len({config_hash(c) for c in PRESETS["paper"]}) == len(PRESETS["paper"]) == 113


def fake(config, excess, *, dataset="mnist", accuracy=0.9, diverged=False, spread=0.4):
    """The numbers of a level, as if it had come out so."""
    draw = np.random.default_rng(int(config_hash(config), 16) % 1000)
    members = []
    for seed in seeds_of(config):
        null = {"flips": 40.0, "count": 20, "ratio": 5.0, "normalised_ratio": 50.0}
        row = {"seed": seed, "diverged": diverged, "test_accuracy": accuracy, "last_loss": 0.1}
        if not diverged:
            value = 40.0 + excess + spread * float(draw.normal())
            row |= {"trained": null | {"flips": value}, "frozen_start": null, "frozen_end": null}
        members.append(row)
    return experiment.Results(config, {"dataset": dataset, "members": members})


def grid(shares, *, start=-25.0, **options):
    """Every level of every axis; `shares` may be another for some of the axes."""
    runs = {}
    for axis in experiment.AXES:
        chosen = shares(axis) if callable(shares) else shares
        last = len(axis.configs) - 1
        for i, config in enumerate(axis.configs):
            part = 1 + (chosen - 1) * i / last
            runs.setdefault(config, fake(config, start * part, **options))
    return list(runs.values())


def to_null(axis):
    return 1.0 if axis.claim == "" else 0.0


def verdicts(runs):
    return {claim.id: claim.verdict for claim in experiment.claims(runs)}


def test_axes_that_all_fall_reproduce_and_one_that_does_not_refutes():
    # The axis with noise begins at half the fall of another one, and so gets its own end.
    def mostly(axis):
        return 0.6 if axis.name == "number of classes" else to_null(axis)

    runs = [r for r in grid(to_null) if not (r.config.noise == 0.5 and r.config.side < 28)]
    halves = [a for a in experiment.AXES if a.name.startswith("side of images with noise")]
    for i, config in enumerate(halves[0].configs[1:]):
        runs.append(fake(config, -15.0 * (1 - (i + 1) / 5)))
    assert verdicts(runs) == {"A22": "reproduced", "A23": "reproduced"}
    claims = {c.id: c for c in experiment.claims(runs)}
    assert claims["A22"].value == 14
    assert "3 unchanged" in claims["A22"].null
    runs = [r for r in runs if r.config.n_classes == 10]
    runs += [r for r in grid(mostly) if r.config.n_classes < 10]
    claims = {c.id: c for c in experiment.claims(runs)}
    assert claims["A22"].verdict == "refuted"
    assert claims["A22"].value == 13
    assert "'ends at it' is contradicted along number of classes (60% left)" in (
        claims["A22"].sentence
    )
    assert claims["A23"].verdict == "reproduced"


def test_incomplete_axes_other_data_and_few_seeds_give_no_verdict():
    axis = next(a for a in experiment.AXES if a.name.startswith("labels"))
    # Half of an axis that would refute: the excess grows with the level.
    some = [fake(config, -20.0 - 10 * i) for i, config in enumerate(axis.configs[:3])]
    assert verdicts(some) == {"A22": "not tested", "A23": "not tested"}
    assert "1 of 14" not in {c.id: c for c in experiment.claims(some)}["A22"].sentence
    whole = [fake(config, -20.0 - 10 * i) for i, config in enumerate(axis.configs)]
    assert verdicts(whole) == {"A22": "refuted", "A23": "not tested"}
    runs = grid(to_null)
    digits = [experiment.Results(r.config, r.numbers | {"dataset": "digits"}) for r in runs]
    assert set(verdicts(digits).values()) == {"not tested"}
    for run in runs:
        run.numbers["members"] = run.numbers["members"][:9]
    assert set(verdicts(runs).values()) <= {"inconclusive"}


def test_a_training_that_diverges_at_once_leaves_no_number_that_json_cannot_hold(tmp_path):
    config = replace(
        experiment.SMOKE, optimizer="adam", learning_rate=1e30, momentum=0.0, beta2=0.0
    )
    found = experiment.run(config, tmp_path)
    assert all(member["diverged"] for member in found.numbers["members"])
    json.dumps(found.numbers, allow_nan=False)


def test_levels_at_which_a_training_diverged_are_left_out_and_named():
    axis = next(a for a in experiment.AXES if a.name == "learning rate, rising")
    runs = [fake(c, -20.0 * (4 - i), diverged=i == 4) for i, c in enumerate(axis.configs)]
    series = all_series(runs)[0]
    assert series.axis.labels == axis.labels[:4]
    assert series.diverged == axis.labels[4:]
    assert series.missing == ()
    assert series.excess.shape == (4, 10)


def test_batches_of_seeds_are_put_together():
    first = [fake(c, -20.0) for c in PRESETS["default"]]
    second = [fake(replace(c, seed=1), -20.0) for c in PRESETS["default"]]
    series = all_series([*first, *second])
    assert [s.axis.name for s in series] == ["labels drawn anew, share"]
    assert series[0].values.shape == (6, 20)


def test_the_intrinsic_dimension_is_the_smallest_subspace_with_nine_tenths_of_the_accuracy():
    axis = next(a for a in experiment.AXES if "subspace" in a.name)
    reached = dict(zip(axis.labels, (1.0, 0.95, 0.92, 0.85, 0.6, 0.4, 0.3, 0.2), strict=True))
    runs = [
        fake(c, -20.0 + i, accuracy=reached[label])
        for i, (label, c) in enumerate(zip(axis.labels, axis.configs, strict=True))
    ]
    series = all_series(runs)[0]
    found = intrinsic_dimensions(series)
    assert {(d.dimension, d.below) for d in found} == {(700, 500)}
    claim = {c.id: c for c in experiment.claims(runs)}["A23"]
    assert "d_int90 is 700 [700, 700]" in claim.sentence


def test_smoke_from_run_to_report(tmp_path):
    configs = [replace(SMOKE, n_steps=20, n_recorded=10), replace(TINY, label_noise=1.0)]
    configs[1] = replace(configs[0], label_noise=1.0)
    told = []
    results = list(run_all(experiment, configs, tmp_path, progress=lambda *a: told.append(a)))
    row = results[0].numbers["members"][1]
    assert row["seed"] == 1
    assert 0 <= row["trained"]["flips"] <= 10
    assert 0 < row["frozen_end"]["normalised_ratio"] <= 10
    assert told[-1][0] == 1
    claims, report = finish(
        experiment,
        "spectrum_controls",
        "smoke",
        results,
        results_file=tmp_path / "results.json",
        report_file=tmp_path / "report.html",
    )
    assert [c.verdict for c in claims] == ["not tested", "not tested"]
    assert "label_noise 1.0" in report.read_text(encoding="utf-8")
    assert load_results(tmp_path / "results.json").seeds == (0, 1)  # two networks, one batch
    known = known_runs(experiment, tmp_path / "results.json")
    again = list(run_all(experiment, configs, tmp_path / "elsewhere", known=known))
    first, second = results[1].numbers["members"][0], again[1].numbers["members"][0]
    assert first["trained"]["flips"] == second["trained"]["flips"]
    assert experiment.summary(results[0])["test accuracy"] == pytest.approx(
        np.mean([m["test_accuracy"] for m in results[0].numbers["members"]])
    )


def test_figures_show_every_axis_that_was_run():
    runs = grid(to_null)
    drawn = experiment.figures(runs)
    assert list(drawn) == ["flips", "count", "normalised_ratio"]
    assert len(drawn["flips"].data) == 4 * 25
    assert drawn["flips"].layout.annotations[0].text == "Gaussian noise, share"


def test_the_table_says_of_every_axis_what_the_rule_says():
    lines = axes_table(grid(to_null))
    assert len(lines) == 2 + 25
    label_noise = next(line for line in lines if line.startswith("| labels drawn anew"))
    assert "0 to 1 | 15." in label_noise
    assert label_noise.endswith("| 0.900 to 0.900 | yes |")
    assert sum("control: unchanged" in line for line in lines) == 3
    worse = axes_table([r for r in grid(1.5) if r.config.optimizer == "adam"])
    assert worse[-1].endswith("| none | 0.900 to 0.900 | no: not 'approaches it' |")


def test_a_run_is_found_again_by_numbers_that_six_digits_do_not_hold(tmp_path):
    configs = [replace(c, learning_rate=10**-0.5) for c in PRESETS["default"]]
    finish(
        experiment,
        "spectrum_controls",
        "default",
        [fake(config, -20.0) for config in configs],
        results_file=tmp_path / "results.json",
        report_file=tmp_path / "report.html",
    )
    known = known_runs(experiment, tmp_path / "results.json")
    assert set(known) == {config_hash(config) for config in configs}
