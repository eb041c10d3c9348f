"""Trainings that are watched, detectors that are scored, and the rules of B19 and B20."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from figures.captions import check_house_rules
from phasescope.analysis.grokking import fourier_basis
from phasescope.datasets import KnownEvent, KnownRun
from phasescope.experiments import phase_detection as experiment
from phasescope.experiments.phase_detection import rates as rate
from phasescope.experiments.phase_detection.bias_phase import bias_phase_system
from phasescope.experiments.phase_detection.claims import best_pair, by_system
from phasescope.experiments.phase_detection.config import (
    GROKKING,
    N_SEEDS,
    SPIKES,
    SYSTEMS,
    WITH_EVENTS,
    WITHOUT,
    Config,
    Results,
)
from phasescope.experiments.phase_detection.modular import one_frequency, quadratic_system
from phasescope.experiments.phase_detection.regression import Kicked, regression_system
from phasescope.experiments.phase_detection.scoring import located, scored
from phasescope.experiments.phase_detection.slingshots import Turning, slingshots_system
from phasescope.experiments.phase_detection.system import (
    Progress,
    System,
    bursts,
    record,
    rise,
)
from phasescope.training import EnsembleAdam, EnsembleSGD, ensemble_gradients


def test_there_are_as_many_systems_and_negatives_as_promised():
    assert len(WITH_EVENTS) >= 8
    assert min(N_SEEDS.values()) >= 10
    assert sum(N_SEEDS[name] for name in WITHOUT) >= 100
    assert set(GROKKING) < set(WITH_EVENTS)


def test_signals_are_those_of_pytorch_at_the_recorded_steps():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 3, generator=generator)
    x = torch.randn(6, 4, generator=generator)
    system = System(
        "toy",
        {"W": start.clone()},
        ensemble_gradients(lambda params, step: (x @ params["W"]).square().mean((1, 2))),
        EnsembleAdam(0.01, weight_decay=0.5, decoupled=True),
        6,
        [0, 2, 5],
        lambda tensors: {"row 1": tensors["W"][:, 0].square().sum(1)},
        lambda params: {"test_loss": params["W"].sum((1, 2)), "rest": params["W"][:, 0, 0]},
        [Progress("rest", 1e9)],
        decay=0.01 * 0.5,
    )
    runs = record(system, [7, 8])
    assert [r.seed for r in runs] == [7, 8]
    for i, run in enumerate(runs):
        W = torch.nn.Parameter(start[i].clone())
        optimizer = torch.optim.AdamW([W], lr=0.01, weight_decay=0.5)
        moved = []
        for step in range(6):
            loss = (x @ W).square().mean()
            optimizer.zero_grad()
            loss.backward()
            old = W.detach().clone()
            optimizer.step()
            moved.append(W.detach() - (1 - 0.005) * old)
            if step not in (0, 2, 5):
                continue
            at = [0, 2, 5].index(step)
            assert W.grad is not None
            expected = {
                "train_loss": loss.detach(),
                "test_loss": old.sum(),
                "gradient_norm": W.grad.norm(),
                "weight_norm": old.norm(),
                "update_norm": moved[-1].norm(),
                "relative_update": moved[-1].norm() / old.norm(),
                "update_norm/row 1": moved[-1][0].norm(),
                "gradient_norm/row 1": W.grad[0].norm(),
                "stable_rank": (old.norm() / torch.linalg.matrix_norm(old, 2)) ** 2,
            }
            for name, value in expected.items():
                torch.testing.assert_close(run.signals[name][at], value, rtol=1e-4, atol=1e-6)
            if step:
                cosine = torch.cosine_similarity(moved[-1].flatten(), moved[-2].flatten(), dim=0)
                torch.testing.assert_close(
                    run.signals["update_cosine"][at], cosine, rtol=1e-3, atol=1e-4
                )
        assert run.events == ()


def test_a_rise_is_dated_by_its_shares_and_must_last():
    steps = torch.arange(0, 400, 2)
    values = (steps / 400).double()
    assert rise(steps, values, 2.0) is None
    found = rise(steps, values, 0.5)
    assert found == (44, 200, 356)
    touched = values.clone()
    touched[5] = 0.9  # a single evaluation is no arrival
    assert rise(steps, touched, 0.5) == found


def test_bursts_are_dated_by_their_sums_once_the_beginning_is_over():
    steps = torch.arange(0, 800, 4)
    values = torch.full((200,), 1e-6)
    values[:10] = 0.1  # the beginning
    values[60], values[70], values[72] = 0.3, 0.4, 0.3  # one burst with gaps
    values[100:110] = 0.01
    values[190:] = 0.01  # not over at the end
    assert bursts(steps, values, 1e-3) == [(240, 280, 288), (400, 416, 432)]
    assert bursts(steps, values[:50].repeat(4), 1.0) == []
    # Without a quiet stretch it has never begun.
    assert bursts(steps, torch.full((200,), 0.1), 1e-3) == []


def test_a_turn_of_the_representation_is_no_matter_of_its_length():
    turning = Turning()
    a, b = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[[0.0, 3.0]], [[2.0, 2.0]]])
    turning.hook("blocks.0.hook_resid_post", a)
    assert turning.turn().tolist() == [0.0, 0.0]
    turning.hook("blocks.0.hook_resid_post", b)
    turning.hook("blocks.0.hook_mlp_out", a)
    torch.testing.assert_close(turning.turn(), torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_transformer_is_watched_in_the_precision_it_trains_in(dtype):
    system = slingshots_system("toy", [0, 1], dtype=dtype, p=5, d_model=8, d_mlp=8, n_steps=9)
    assert {value.dtype for value in system.params.values()} == {dtype}
    runs = record(system, [0, 1])
    for run in runs:
        turn = run.progress["turn of the representation since the record before"]
        assert turn[0] == 0
        assert bool((turn[1:] > 0).all())
        assert run.steps.tolist() == [0, 4, 8]
        assert "blocks.0.mlp.W_in" in run.components


def test_only_biases_move_until_a_neuron_fires():
    system = bias_phase_system("toy", [0, 1], n_features=6, d=3, n_neurons=4, n_steps=40)
    (run, _) = record(system, [0, 1])
    silent = run.progress["share of neurons with a gradient"] == 0
    silent &= run.signals["gradient_norm"] == 0
    assert bool(silent[:10].all())
    for name in ("W_in", "W_out"):
        assert bool((run.signals[f"update_norm/{name}"][:10] == 0).all())
    # What is left of the biases' own decay: .3 times the learning rate of .01 of their length.
    bias = (run.signals["weight_norm"][0] ** 2).item()
    moved = run.signals["update_norm/b_in"][0].item()
    weights = sum(v[0].square().sum() for n, v in fresh_bias_phase().params.items() if n != "b_in")
    assert moved == pytest.approx(0.003 * (bias - weights.item()) ** 0.5, rel=1e-4)


def fresh_bias_phase():
    return bias_phase_system("toy", [0, 1], n_features=6, d=3, n_neurons=4, n_steps=40)


def test_the_spectral_measure_is_one_for_a_wave_and_counts_neurons_by_their_power():
    basis = fourier_basis((7,))
    wave = 3 * basis.rows[1] + 4 * basis.rows[2]  # a cosine and a sine of one frequency
    both = basis.rows[1] + basis.rows[3]  # two frequencies, equally strong
    one_seed = torch.stack([wave + 5, both])[None]  # a constant counts for nothing
    # Powers 25 and 2, concentrations 1 and 1/2: (25 + 1) / 27.
    torch.testing.assert_close(one_frequency(basis, one_seed).item(), 26 / 27)


def test_a_small_grokking_system_trains_on_its_own_pairs_only():
    system = quadratic_system("toy", [0, 1], p=5, width=8, n_steps=2)
    loss, grads = system.gradients(system.params, 0)
    assert loss.shape == (2,)
    measured = system.evaluate(system.params)
    assert set(measured) >= {"test_loss", "train_accuracy", "test_accuracy"}
    assert all(bool(g.isfinite().all()) for g in grads.values())


def test_a_power_law_is_one_and_the_batch_gradient_is_unbiased():
    exact = regression_system("toy", [0], d=50, n_steps=10)
    w = exact.params["w"] + 0.3
    noisy = regression_system("toy", [0], d=50, batch_size=20_000, n_steps=10)
    _, small = noisy.gradients({"w": w}, 0)
    _, true = exact.gradients({"w": w}, 0)
    error = float((small["w"] - true["w"]).norm() / true["w"].norm())
    assert error < 0.05


def test_a_kick_moves_one_tensor_of_one_seed_by_its_size():
    params = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    grads = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    optimizer = Kicked(EnsembleSGD(0.1), [[(0, "a")], []], 0.5)
    optimizer.update(params, grads)
    torch.testing.assert_close(params["a"][0], torch.full((3,), 0.5))
    torch.testing.assert_close(params["a"][1], torch.full((3,), 0.9))
    torch.testing.assert_close(params["b"], torch.full((2, 3), 0.9))
    optimizer.update(params, grads)
    torch.testing.assert_close(params["a"][0], torch.full((3,), 0.4))


def test_an_unknown_system_is_refused():
    with pytest.raises(ValueError, match=r"system must be one of grok_add, .* not 'nothing'"):
        Config("nothing")


def planted_run(seed: int = 0) -> KnownRun:
    """A power law with a drop at step 300, and four components of which the second moves."""
    g = np.random.default_rng(seed)
    steps = np.unique(np.round(np.geomspace(1, 3000, 300)).astype(int)) - 1
    tau = np.log1p(steps)
    drop = 1 / (1 + np.exp(-(tau - math.log(300)) / 0.08))
    loss = 3 * (1 + steps / 20.0) ** -0.15 - 1.2 * drop + 0.01 * g.normal(size=len(steps))
    active = 1 + 6 * np.exp(-((tau - math.log(300)) ** 2) / 0.08)
    noise = np.exp(0.05 * g.normal(size=(4, len(steps))))
    signals = {"train_loss": loss, "test_loss": np.exp(-3 * drop - 0.01 * g.random(len(steps)))}
    for i in range(4):
        curve = noise[i] * (active if i == 1 else 1.0) * (4.0 if i == 3 else 1.0)
        signals[f"update_norm/part {i}"] = signals[f"gradient_norm/part {i}"] = curve
    return KnownRun(
        "toy",
        seed,
        torch.from_numpy(steps),
        {name: torch.from_numpy(curve).float() for name, curve in signals.items()},
        {},
        (KnownEvent("drop", 210, 299, 430, ("part 1",)),),
    )


@pytest.fixture(scope="module")
def row():
    return scored(planted_run())


def test_a_planted_drop_is_found_dated_and_placed(row):
    (alarm,) = row["alarms"]["train_loss"]["find_transitions"]
    assert 180 < alarm[0] < 280 < alarm[1] < 320
    (place,) = row["located"]
    assert place["chance"] == 0.25
    for window in ("known window", "detected window"):
        assert place[f"update_norm, {window}"] == [1.0, 1.0]
        # The fourth part is always the largest: its norm alone says nothing.
        assert place[f"update_norm, {window}, level alone"][0] in (0.0, 1.0)
    found = rate.rates([row], [row | {"events": []}], "train_loss", "find_transitions")
    assert found.hits.tolist() == [1.0]
    assert found.false.tolist() == [1.0]
    assert found.score == 0.0
    assert 0 < found.lead[0] < 120
    assert 0.05 < found.chance[0] < 0.4


def test_a_run_without_a_known_place_has_none(row):
    run = planted_run()
    nowhere = replace(run, events=(KnownEvent("drop", 210, 299, 430),))
    assert located(nowhere, row["alarms"]) == [None]


def test_chance_is_the_share_of_places_that_hold_an_alarm():
    span = [0, 999]
    assert rate.chance_of(np.array([]), 10, 20, span) == 0.0
    everywhere = np.expm1(np.linspace(0, math.log(1000), 400))
    assert rate.chance_of(everywhere, 10, 20, span) == 1.0
    # One alarm in the middle: windows of a tenth of the logarithmic span hold it in a tenth.
    width = math.log(1000) / 10
    found = rate.chance_of(np.array([31.0]), 9, 10 * math.exp(width) - 1, span)
    assert found == pytest.approx(0.1, abs=0.01)


def test_hits_need_the_window_and_strays_are_counted():
    row = {
        "seed": 0,
        "span": [0, 2000],
        "events": [[100, 200, 400], [900, 1000, 1100]],
        "saturated": [True, False],
        "alarms": {"x": {"OnlineDetector": [[10, 20.0], [140, 150.0], [160, 170.0]]}},
    }
    found = rate.rates([row], [], "x", "OnlineDetector")
    assert found.hits.tolist() == [1.0, 0.0]
    assert found.lead.tolist() == [50.0]
    late = rate.rates([row], [], "x", "OnlineDetector", saturated=True)
    assert late.hits.tolist() == [1.0]
    assert rate.stray(row, "x", "OnlineDetector", spike=False) == 1
    assert not len(rate.rates([row], [], "y", "OnlineDetector").hits)


def planted_rows(good: str, *, located_by: float = 1.0) -> list[Results]:
    """Every system; the signal `good` tells the events, train_loss tells nothing."""
    results = []
    for system in SYSTEMS:
        rows = []
        for seed in range(N_SEEDS[system]):
            event = system not in WITHOUT
            tells = {"find_transitions": [[80.0, 150.0]] if event else []}
            silent: dict[str, list] = {"find_transitions": []}
            names = ("train_loss", "test_loss", "gradient_norm", "weight_norm", "update_norm")
            alarms = {
                name: (tells if name == good else silent)
                | {"change_points": [[5.0, 6.0]], "OnlineDetector": [], "find_spikes": []}
                for name in names
            }
            place = {
                "chance": 0.25,
                "update_norm, detected window": [located_by, located_by],
                "update_norm, known window": [1.0, 1.0],
            }
            rows.append(
                {
                    "seed": seed,
                    "span": [0, 1000],
                    "events": [[100, 150, 200]] if event else [],
                    "saturated": [system in GROKKING] if event else [],
                    "alarms": alarms,
                    "located": [place if system == "parity" else None] if event else [],
                }
            )
        results.append(Results(Config(system, n_seeds=N_SEEDS[system]), {"runs": rows}))
    return results


def test_the_rules_answer_with_the_signal_that_was_planted():
    results = planted_rows("weight_norm", located_by=0.9)
    assert best_pair(by_system(results), 0) == ("weight_norm", "find_transitions")
    signal, place = experiment.claims(results)
    assert (signal.id, place.id) == experiment.CLAIM_IDS
    assert signal.verdict == place.verdict == "answered"
    assert signal.value == 1.0
    assert signal.interval == (1.0, 1.0)
    assert signal.n_seeds == sum(N_SEEDS[system] // 2 for system in GROKKING)
    assert "find_transitions on weight_norm hits 1.00" in signal.sentence
    assert place.value == pytest.approx(0.9)
    assert place.n_seeds == 10
    for figure in experiment.figures(results).values():
        check_house_rules(figure)


def test_runs_that_were_searched_twice_count_once_and_decide_the_same():
    results = planted_rows("weight_norm", located_by=0.9)
    again = [Results(replace(r.config, every_signal=True), r.numbers) for r in results[:3]]
    rows = by_system([*again, *results])
    assert {s: len(own) for s, own in rows.items()} == N_SEEDS
    assert experiment.claims([*again, *results]) == experiment.claims(results)
    assert experiment.claims([*again, *results[3:]]) == experiment.claims(results)


def test_nothing_is_decided_without_all_systems_or_on_runs_that_are_not_packaged():
    results = planted_rows("weight_norm")
    few = [r for r in results if r.config.system not in SPIKES]
    assert experiment.claims(few)[1].verdict == "not tested"
    fresh = [Results(replace(r.config, packaged=False), r.numbers) for r in results]
    assert {c.verdict for c in experiment.claims(fresh)} == {"not tested"}


@pytest.mark.slow
def test_a_run_trains_what_is_not_packaged(tmp_path):
    result = experiment.run(experiment.SMOKE, tmp_path)
    assert [row["seed"] for row in result.numbers["runs"]] == [100, 101]
    assert all(len(row["events"]) == 1 for row in result.numbers["runs"])
    again = experiment.load(experiment.SMOKE, tmp_path, result.numbers)
    assert experiment.summary(again)["events"] == 2


def test_seeds_that_are_not_packaged_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has 0 of the 10 seeds of 'parity'"):
        experiment.run(Config("parity", seed=7), tmp_path)
