"""Runs of the grokking experiment: what is trained, recorded, resumed and read back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import phasescope as ps
from phasescope.cli import main
from phasescope.experiments import grokking
from phasescope.experiments.grokking.anatomy import constant_share, head_effects, largest_term
from phasescope.experiments.grokking.config import one_by_one
from phasescope.experiments.grokking.measures import developments
from phasescope.experiments.grokking.training import (
    measured_rows,
    network_at,
    network_of,
    task_of,
    train,
)
from phasescope.experiments.runner import config_hash
from phasescope.training import cross_entropy_float64

SMOKE = grokking.SMOKE


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, grokking.Results]:
    directory = tmp_path_factory.mktemp("grokking") / "run"
    return directory, grokking.run(SMOKE, directory)


def test_every_step_is_recorded_and_the_end_too(finished: tuple[Path, grokking.Results]):
    directory, result = finished
    run = ps.open_run(directory)
    assert run.config["operation"] == "add"
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert run[f"metrics/{name}"].steps.tolist() == list(range(SMOKE.n_steps + 1))
    for name in ("gradients", "updates", "decay", "weights"):
        assert len(run[f"norms/{name}"]) == SMOKE.n_steps
    assert result.detail is not None
    assert result.detail.weight_steps[-1] == SMOKE.n_steps
    curves = result.detail.curves
    assert float(curves.train_loss[-1]) == result.numbers["final"]["train_loss"]
    assert float(curves.train_loss[-1]) < float(curves.train_loss[0])
    assert set(grokking.summary(result)) == {"test accuracy", "test loss"}
    stored = grokking.for_storage([result])[0]
    assert grokking.Config(**stored["config"]) == SMOKE


@pytest.mark.filterwarnings("ignore:the gradient of:phasescope.errors.RecordingWarning")
def test_a_training_that_diverges_is_told_and_drawn_until_then(tmp_path: Path):
    config = replace(SMOKE, p=13, d_model=16, n_heads=2, d_mlp=16, n_steps=60, learning_rate=1e6)
    result = grokking.run(config, tmp_path / "run")
    step = result.numbers["diverged"]
    assert 1 < step < 60
    assert grokking.summary(result)["diverged at step"] == step
    assert result.detail is not None
    assert 0 < len(result.detail.frames) < 60
    assert all(frame.step <= step for frame in result.detail.frames)
    assert len(grokking.figures([result])) == 4
    assert {claim.verdict for claim in grokking.claims([result])} == {"not tested"}


def test_networks_read_back_are_those_that_were_measured(
    finished: tuple[Path, grokking.Results],
):
    directory, _ = finished
    run = ps.open_run(directory)
    task, split = task_of(SMOKE)
    pairs, labels = task.examples(split.test)
    losses = run["metrics/test_loss"]
    for row, step in enumerate(run["weights"].steps.tolist()):
        model = network_at(SMOKE, run, row)
        with torch.no_grad():
            loss = cross_entropy_float64(model(pairs), labels).mean()
        assert float(loss) == pytest.approx(float(losses[step, 0]), rel=1e-6)
    first = network_of(SMOKE)
    assert torch.equal(network_at(SMOKE, run, 0).W_U, first.W_U)


def test_a_finished_run_is_loaded_without_training(finished: tuple[Path, grokking.Results]):
    directory, result = finished
    again = grokking.load(SMOKE, directory, result.numbers)
    assert again.detail is not None
    assert result.detail is not None
    assert torch.equal(again.detail.curves.test_loss, result.detail.curves.test_loss)
    assert torch.equal(again.detail.final.W_U, result.detail.final.W_U)
    elsewhere = grokking.load(SMOKE, directory / "gone", result.numbers)
    assert elsewhere.detail is None


def test_an_interrupted_run_goes_on_to_the_same_bits(
    finished: tuple[Path, grokking.Results], tmp_path: Path
):
    def stop(share: float) -> None:
        if share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMOKE, tmp_path / "run", progress=stop)
    resumed = train(SMOKE, tmp_path / "run")
    whole = ps.open_run(finished[0])
    for name in ("metrics/test_loss", "norms/updates", "weights"):
        assert (resumed[name][:] == whole[name][:]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "subtract", "activation": "solu_ln", "init": "transformerlens"},
        {"operation": "multiply", "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0},
        {"operation": "divide", "n_layers": 2, "init": "pizza", "attention_rate": 0.5},
        {"reject_rises": True, "decay_on_rise": 1.0001, "loss_dtype": "float32"},
        {"operation": "multiply", "p": 12, "units_only": True, "spectra_every": 2, "n_steps": 30},
    ],
)
def test_every_variant_trains(tmp_path: Path, changes: dict[str, Any]):
    config = replace(SMOKE, **({"n_steps": 8, "n_log_spaced": 3} | changes))
    result = grokking.run(config, tmp_path)
    assert result.detail is not None
    assert bool(result.detail.curves.test_loss.isfinite().all())
    recorded = ps.open_run(tmp_path)
    assert ("gradients" in recorded.series_names) == (config.spectra_every > 0)
    kept = recorded["weights"].steps[measured_rows(config, recorded)].tolist()
    assert result.numbers["measures"]["steps"] == kept
    if config.spectra_every:
        every = list(range(0, config.n_steps, config.spectra_every))
        assert recorded["gradients"].steps.tolist() == every
        assert set(every) <= set(recorded["weights"].steps.tolist())
        assert len(kept) < len(recorded["weights"])


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_compiled_run_is_the_same_setting_by_compiled_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_seeds: int
):
    config = replace(grokking.SMOKE, n_steps=3, n_seeds=n_seeds)
    assert grokking.setting(replace(config, compiled=True)) == grokking.setting(config)
    # Runs from before there was a choice are found under their old hash.
    assert config_hash(replace(config, compiled=False)) == config_hash(config)
    assert config_hash(replace(config, compiled=True)) != config_hash(config)
    made: list[object] = []

    def compiled(function: Any) -> Any:
        made.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    grokking.run(config, tmp_path / "eager")
    assert not made
    grokking.run(replace(config, compiled=True), tmp_path / "compiled")
    assert len(made) == 1


def test_seeds_of_split_and_weights_are_apart():
    base, other = replace(SMOKE, data_seed=3), replace(SMOKE, data_seed=3, seed=1)
    assert torch.equal(task_of(base)[1].train, task_of(other)[1].train)
    assert not torch.equal(network_of(base).W_E, network_of(other).W_E)
    moved = replace(SMOKE, data_seed=4)
    assert torch.equal(network_of(base).W_E, network_of(moved).W_E)
    assert not torch.equal(task_of(base)[1].train, task_of(moved)[1].train)


def test_the_presets_differ_from_the_source_where_their_comments_say():
    published = grokking.PRESETS["paper"]
    assert len(published) == 6
    assert {c.p for c in published} == {113}
    assert {(c.learning_rate, c.weight_decay, c.train_fraction) for c in published} == {
        (1e-3, 1.0, 0.3)
    }
    assert sum(p.numel() for p in network_of(published[0]).parameters()) == 226_816
    assert grokking.setting(replace(grokking.DEFAULT, seed=3)) == "add mod 53, relu"
    assert "d_model 128" in grokking.setting(published[1])


def test_the_disk_that_a_run_needs_is_not_underestimated(
    finished: tuple[Path, grokking.Results],
):
    written = sum(path.stat().st_size for path in finished[0].rglob("*") if path.is_file())
    assert grokking.disk_bytes(SMOKE) > 0.3 * written


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--activation", "mish"], "activation must be one of relu, .*'mish' arrived"),
        (["--train-fraction", "1.0"], "strictly between 0 and 1 .*it is 1.0 of 121 pairs"),
        (["--train-fraction", "0"], "strictly between 0 and 1 .*it is 0.0 of 121 pairs"),
        (["--p", "2"], "the modulus must be at least 3, but it is 2"),
        (["--d-model", "15"], "d_model must be a multiple of n_heads"),
        (["--decay-on-rise", "0.5"], "decay_on_rise be at least 1"),
    ],
)
def test_bad_settings_are_said_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
):
    command = ["run", "grokking", "--preset", "smoke", "--directory", str(tmp_path / "runs")]
    assert main([*command, *flags]) == 1
    import re

    assert re.search(message, capsys.readouterr().err)


def test_the_command_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--preset", "smoke", "--n-steps", "10", "--directory", str(tmp_path)]
    assert main(["run", "grokking", *flags]) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_every_kept_step_is_measured_beside_the_untrained_network(
    finished: tuple[Path, grokking.Results],
):
    _, result = finished
    numbers = result.numbers
    series = numbers["measures"]
    assert result.detail is not None
    assert series["steps"] == result.detail.weight_steps.tolist()
    curves = result.detail.curves
    for step, loss in zip(series["steps"], series["test_loss"], strict=True):
        assert loss < float(curves.test_loss[step])  # "=" competes in training only
    task, split = task_of(SMOKE)
    pairs, labels = task.examples(split.test)
    with torch.no_grad():
        without = result.detail.final(pairs)[:, : SMOKE.p]
    last = float(cross_entropy_float64(without, labels).mean())
    assert series["test_loss"][-1] == pytest.approx(last, rel=1e-6)
    assert numbers["untrained"]["circularity"] == series["circularity"][0]
    assert numbers["final_measures"]["restricted_all"] == series["restricted_all"][-1]
    assert numbers["other_basis"]["basis"] == "multiplicative"
    assert numbers["times"]["grokked"] is None  # 60 steps are too few
    assert set(numbers["spikes"]) == {
        f"{name}_{direction}"
        for name in ("train_loss", "test_loss")
        for direction in ("up", "down")
    }
    assert 0 < numbers["falling_share"] <= 1
    figures = grokking.figures([result])
    kinds = [name.rpartition(": ")[2] for name in figures]
    assert kinds == ["curves", "measures", "optimizer", "network"]
    assert len(result.detail.frames) == 24


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> grokking.Results:
    config = replace(SMOKE, n_seeds=3)
    return grokking.run(config, tmp_path_factory.mktemp("batch") / "run")


def compared(ours: Any, others: Any, where: str = "") -> int:
    """Number of numbers that are equal up to rounding; the first that is not fails."""
    if isinstance(others, dict):
        assert set(others) <= set(ours), where
        return sum(compared(ours[k], v, f"{where}/{k}") for k, v in others.items())
    if isinstance(others, list):
        assert len(ours) == len(others), where
        return sum(compared(a, b, where) for a, b in zip(ours, others, strict=True))
    is_number = isinstance(others, float | int) and others is not None
    assert ours == (pytest.approx(others, rel=1e-3, abs=1e-7) if is_number else others), where
    return 1


def test_a_seed_of_a_batch_has_the_numbers_of_a_run_alone(
    finished: tuple[Path, grokking.Results], batch: grokking.Results
):
    _, alone = finished
    first = one_by_one(batch)[0]
    assert first.config == alone.config
    names = ("measures", "final_measures", "anatomy", "times", "phases", "spikes", "falling_share")
    assert compared(first.numbers, {name: alone.numbers[name] for name in names}) > 300
    others = [result.numbers["final"]["test_loss"] for result in one_by_one(batch)]
    assert len(set(others)) == 3


def test_scales_of_adam_are_those_of_its_moments(
    finished: tuple[Path, grokking.Results], batch: grokking.Results
):
    directory, alone = finished
    run = ps.open_run(directory)
    norms = run["norms/gradients"][:]
    gradient_norms = run["metrics/adam_gradient_norm"][: SMOKE.n_steps, 0]
    assert gradient_norms == pytest.approx((norms**2).sum(1) ** 0.5, rel=1e-5)
    steps = run["metrics/adam_step_norm"][:, 0]
    assert steps[0] == 0.0  # the warm-up begins at rate 0
    assert (steps[1 : SMOKE.n_steps] > 0).all()
    ours = one_by_one(batch)[0].numbers["scales"]
    theirs = alone.numbers["scales"]
    assert ours["series"]["root_second_moment"] == pytest.approx(
        theirs["series"]["root_second_moment"], rel=1e-3
    )
    assert theirs["gradient_norm"]["n_spikes"] == 0
    assert theirs["gradient_norm"]["before_spikes"] is None


def test_what_is_stored_of_a_batch_gives_the_same_claims(batch: grokking.Results):
    stored = grokking.for_storage([batch])[0]
    assert "measures" not in stored["numbers"]["seeds"][0]
    again = grokking.Results(grokking.Config(**stored["config"]), stored["numbers"])
    assert grokking.claims([again]) == grokking.claims([batch])
    assert set(grokking.summary(again)) == {
        "test accuracy",
        "test loss",
        "share that memorised",
        "share that grokked",
    }
    assert grokking.disk_bytes(batch.config) == 0
    assert grokking.figures([batch]) == {}


def test_every_optimizer_trains_as_a_batch(tmp_path: Path):
    for changes in (
        {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0},
        {"reject_rises": True, "decay_on_rise": 1.5, "learning_rate": 0.1},
    ):
        few = replace(SMOKE, n_steps=12, n_log_spaced=2, scales_every=0, **changes)
        folder = tmp_path / few.optimizer
        both = [grokking.run(replace(few, n_seeds=n), folder / f"{n}") for n in (2, 1)]
        first, alone = one_by_one(both[0])[0], both[1]
        assert first.numbers["scales"] is None
        assert compared(first.numbers["final"], alone.numbers["final"]) == 4


def test_heads_are_ablated_one_at_a_time():
    task, split = task_of(SMOKE)
    model = network_of(SMOKE)
    last = "blocks.0.attn.W_O"
    with torch.no_grad():
        dict(model.named_parameters())[last][1] = 0.0  # the second head writes nothing
    effects = head_effects(model, task, split)
    assert len(effects) == SMOKE.n_heads
    assert effects[1] == 0.0
    assert effects[0] != 0.0


def test_planted_activations_have_their_constant_and_their_term():
    task, _ = task_of(SMOKE)
    place = torch.arange(SMOKE.p, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 2 * place / SMOKE.p)
    product = wave[:, None] * wave
    assert largest_term(task.natural, product) == pytest.approx(1.0)
    sums = torch.cos(2 * torch.pi * 2 * (place[:, None] + place) / SMOKE.p)
    assert largest_term(task.natural, sums) == pytest.approx(0.5)  # cos cos less sin sin
    values = torch.stack([product, product + 1, torch.zeros_like(product)], -1)
    # Energy of cos·cos is 1/4: constant shares 0 and 1/(1 + 1/4), and one dead neuron.
    assert constant_share(values) == pytest.approx((0 + 0.8) / 2)


def test_developments_compare_the_change_with_the_steps():
    phases = [
        {"name": "memorisation", "start": 0, "end": 10},
        {"name": "circuit formation", "start": 10, "end": 30},
        {"name": "clean-up", "start": 30, "end": 40},
    ]
    names = ("pattern_fve", "pure_neurons", "rank_W_E", "power_gini_W_E")
    even = {name: [0.0, 1.0, 3.0, 4.0, 4.0] for name in names}
    found = developments(phases, [0, 10, 30, 40, 50], even)
    assert found is not None
    assert found["rank_W_E"] == pytest.approx(0.0)
    late = {name: [9.0, 8.0, 8.0, 2.0, 2.0] for name in names}
    found = developments(phases, [0, 10, 30, 40, 50], late)
    assert found is not None
    assert found["rank_W_E"] == pytest.approx(1 - 10 / 30)
    assert developments(phases[:2], [0, 10], even) is None


def test_the_presets_of_the_claims_have_ten_seeds_of_settings_that_differ():
    presets = grokking.PRESETS
    small = presets["small"]
    batches = presets["grid"] + presets["optimizers"] + presets["sizes"]
    assert set(small) > set(batches) | set(presets["spectra"])
    assert {config.n_seeds for config in batches} == {10}
    assert len({grokking.setting(config) for config in batches}) == len(batches)
    # Ten seeds one by one, three more of them without spectra, and ten further ones of the setting
    # whose key frequencies are fitted.
    assert [(c.seed, c.n_seeds) for c in presets["spectra"]] == [(i, 1) for i in range(10)]
    assert [(c.seed, c.n_seeds) for c in presets["carriers"]] == [(i, 1) for i in (10, 11, 12)]
    assert set(small) - set(batches) - set(presets["spectra"]) == {
        replace(presets["grid"][0], seed=1),
        *presets["carriers"],
    }
    beside = [c for c in presets["everything"] if c not in small]
    beside, longer = beside[:12], beside[12:]
    assert [(c.p, c.seed, c.n_steps) for c in beside] == [(113, i // 6, 25_000) for i in range(12)]
    assert [(c.operation, c.n_steps) for c in longer] == [("subtract", 40_000)] * 4
    assert [replace(c, n_steps=25_000) for c in longer] == [
        c for c in beside if c.operation == "subtract"
    ]
    assert {replace(c, seed=0, compiled=False) for c in beside} == set(presets["paper"])
    full = {(c.operation, c.activation) for c in presets["grid"]}
    activations = ("relu", "gelu", "gelu_new", "gelu_fast", "silu", "solu_ln")
    assert full >= {(o, a) for o in ("add", "subtract", "multiply") for a in activations}


def test_a_seed_that_diverges_is_measured_up_to_there_and_spares_the_others(tmp_path: Path):
    # Cubes of cubes: x² with this rate leaves the range of float32 within a few steps.
    wild = replace(SMOKE, activation="square", learning_rate=30.0, n_steps=40, warmup_steps=0)
    result = grokking.run(replace(wild, n_seeds=2), tmp_path / "batch")
    seeds = one_by_one(result)
    steps = [seed.numbers["diverged"] for seed in seeds]
    assert all(step is not None and 1 < step < 40 for step in steps)
    for seed, step in zip(seeds, steps, strict=True):
        assert seed.numbers["measures"]["steps"][-1] < step
        assert seed.numbers["final"]["train_loss"] > 0
    json.dumps(grokking.for_storage([result]), allow_nan=False)


@pytest.mark.slow
def test_the_default_network_groks_and_becomes_a_clock(tmp_path: Path):
    result = grokking.run(replace(grokking.DEFAULT, seed=100), tmp_path)
    numbers = result.numbers
    assert numbers["times"]["grokked"] < 1000
    assert numbers["final_measures"]["cube_fve"] > 0.9
    assert numbers["untrained"]["cube_fve"] < 0.05
    names = [phase["name"] for phase in numbers["phases"]]
    assert names[:3] == ["memorisation", "circuit formation", "clean-up"]
