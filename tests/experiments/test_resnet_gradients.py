import dataclasses
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from figures.captions import check_house_rules
from phasescope.datasets import cifar
from phasescope.experiments import resnet_gradients as experiment
from phasescope.experiments.resnet_gradients import evidence
from phasescope.experiments.resnet_gradients.config import (
    CONSTANT,
    COSINE,
    CUBIC,
    DEFAULT,
    LINEAR,
    NO_DECAY,
    PAPER,
    SETTLED,
    SHORT,
    STITCHED,
    Config,
    Results,
)
from phasescope.experiments.resnet_gradients.layers import resnet_layers
from phasescope.experiments.resnet_gradients.stages import share_saved
from phasescope.experiments.resnet_gradients.training import network
from phasescope.models import ResNet

TINY = replace(experiment.SMOKE, n_blocks=(1, 1), n_epochs=10, image_size=8)


def noise_images(split: str) -> cifar.ColourImages:
    generator = torch.Generator().manual_seed(int(split == "test"))
    pixels = torch.randint(0, 256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return cifar.ColourImages(pixels, torch.arange(40) % 10, 10, "40 images of noise")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("resnet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images)
        result = experiment.run(TINY, folder)
    return result, folder


def test_layers_have_the_kinds_and_depths_of_a_resnet18():
    layers = resnet_layers(name for name, _ in ResNet(width=2, n_classes=10).named_parameters())
    kinds = [layer.kind for layer in layers]
    assert {k: kinds.count(k) for k in set(kinds)} == {
        "conv": 17,
        "bn": 17,
        "downsample conv": 3,
        "downsample bn": 3,
        "fc": 1,
    }
    by_name = {layer.name: layer for layer in layers}
    assert [by_name[n].depth for n in ("conv1", "layer1.0.conv1", "layer4.1.conv2", "fc")] == [
        0,
        1,
        16,
        17,
    ]
    assert by_name["layer2.0.downsample.0"].depth == by_name["layer2.0.conv2"].depth
    assert by_name["bn1"].parameters == ("bn1.weight", "bn1.bias")


def test_exactly_the_layers_said_to_be_scale_invariant_are():
    model = network(replace(TINY, n_blocks=(2, 2), width=4)).double().train()
    torch.nn.init.uniform_(model.bn1.bias)
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in parameters.items():
            if ".bn" in name and name.endswith("bias"):
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    before = model(x)
    loss = before.square().mean()
    gradients = dict(zip(parameters, torch.autograd.grad(loss, parameters.values()), strict=True))
    for layer in resnet_layers(parameters):
        with torch.no_grad():
            for name in layer.parameters:
                parameters[name].mul_(1.5)
            change = (model(x) - before).abs().max() / before.abs().max()
            for name in layer.parameters:
                parameters[name].div_(1.5)
        g, w = (
            torch.cat([t[name].detach().flatten() for name in layer.parameters])
            for t in (gradients, parameters)
        )
        along = float(g @ w / (g.norm() * w.norm()))
        # batch norm's epsilon breaks the invariance a little
        assert (change < 1e-3) == layer.invariant, (layer, change)
        assert not layer.invariant or abs(along) < 1e-3, (layer, along)


def test_a_run_measures_every_layer_and_its_norms_are_those_of_its_parts(run):
    result, folder = run
    numbers = result.numbers
    n = len(numbers["layers"])
    assert n == 13
    for name in ("drop", "rise", "noise", "movement", "double_descent"):
        assert np.isfinite(numbers["gradients"][name]).all()
    assert np.array(numbers["gradients"]["blocks"]).shape == (n, 20)
    assert set(numbers["smoothing"]) == {"0", "0.08", "0.92"}
    shares = evidence.noise_share(result)
    assert shares.shape == (n,)
    assert (shares > 0).all()
    assert len(numbers["curves"]["train_loss"]) == TINY.n_epochs
    assert len(numbers["curves"]["test_accuracy"]) == TINY.n_epochs + 1
    assert 0 <= numbers["final_accuracy"] <= 1
    again = experiment.load(result.config, folder, numbers)
    assert result.detail is not None
    assert again.detail is not None
    assert torch.equal(again.detail.gradients, result.detail.gradients)
    assert again.detail.gradients.shape == (n, TINY.n_steps)
    assert experiment.disk_bytes(TINY) > 4 * 40 * 100
    free = np.array(numbers["invariant"])
    assert np.abs(np.array(numbers["half batches"]["cosine"])[free]).max() < 0.02


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images
    )
    longer = replace(TINY, n_epochs=12, cosine=True, freezing="cubic")

    class Stop(Exception): ...

    def until(share: float, what: str) -> None:
        if share > 0.9 and what == "training":
            raise Stop

    with pytest.raises(Stop):
        experiment.run(longer, tmp_path / "a", progress=until)
    resumed = experiment.run(longer, tmp_path / "a")
    whole = experiment.run(longer, tmp_path / "b")
    assert resumed.numbers["stages"].pop("cpu_seconds") is None
    assert whole.numbers["stages"].pop("cpu_seconds") > 0
    assert resumed.numbers == whole.numbers


def test_freezing_saves_what_its_stages_cost(run, tmp_path, monkeypatch):
    result, _ = run
    stages = result.numbers["stages"]
    assert stages["names"] == ["conv1 bn1", "layer1.0", "layer2.0", "fc"]
    # width 2, 8 x 8 pixels: 3·3·3·2 and 2·(3·3·2·2) over 64 places; then 4 x 4 pixels, 4 channels
    assert stages["multiply_adds"] == [54 * 64, 72 * 64, (72 + 144 + 8) * 16, 40]
    assert stages["saved"] == 0
    assert share_saved([1, 1, 2], [50, None, None], 100) == pytest.approx(2 * 0.5 / 12)
    monkeypatch.setattr(
        "phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images
    )
    config = replace(TINY, cosine=True, freezing="linear", freeze_first=0.5)
    frozen = experiment.run(config, tmp_path)
    numbers = frozen.numbers["stages"]
    assert numbers["frozen_at"] == [20, 27, 34, None]
    assert numbers["saved"] == pytest.approx(
        2 * (54 * 64 * 20 + 72 * 64 * 13 + 224 * 16 * 6) / (3 * 40 * sum(stages["multiply_adds"]))
    )
    assert "gradients" not in frozen.numbers
    with pytest.raises(ValueError, match="cosine must be set"):
        replace(TINY, freezing="linear")


def test_joined_networks_are_measured_beside_their_controls(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images
    )
    config = replace(TINY, n_blocks=(1, 1, 1), stitched=True)
    found = experiment.run(config, tmp_path)
    numbers = found.numbers["stitched"]
    assert numbers["stages"] == [1, 2]
    for name in ("other", "same", "untrained"):
        assert len(numbers[name]) == 2
        assert all(0 <= v <= 1 for v in numbers[name])
    assert "3 blocks, stitched" in experiment.setting(config)


def test_short_runs_give_no_verdict_but_figures(run):
    result, _ = run
    claims = experiment.claims([result])
    assert [c.id for c in claims] == list(experiment.CLAIM_IDS)
    assert {c.verdict for c in claims} == {"not tested"}
    drawn = experiment.figures([result, replace_seed(result, 1)])
    assert [name.split(":")[0] for name in drawn] == [
        "norms, raw",
        "norms, smoothing 0.08",
        "norms, smoothing 0.92",
        "rise by kind",
    ]
    for figure in drawn.values():
        check_house_rules(figure)
    assert set(experiment.summary(result)) == {"final training loss (nats)", "test accuracy"}
    assert "decay 0.004" in experiment.setting(TINY)


def replace_seed(result: Results, seed: int) -> Results:
    return dataclasses.replace(result, config=replace(result.config, seed=seed))


def planted(config: Config, seed: int, **effects: float) -> Results:
    """A run whose layers have shapes that were made up, with a little noise over seeds."""
    generator = np.random.default_rng([seed, config.weight_decay > 0])
    layers = resnet_layers(name for name, _ in ResNet(width=2, n_classes=10).named_parameters())
    n = len(layers)
    depth = np.array([layer.depth for layer in layers], dtype=float)
    kinds = np.array([layer.kind for layer in layers])

    def noisy(values: np.ndarray | float, sd: float = 0.02) -> list[float]:
        return (np.broadcast_to(values, n) + sd * generator.standard_normal(n)).tolist()

    decayed = config.weight_decay > 0
    rising = np.isin(kinds, ["bn", "downsample conv", "downsample bn"])
    rise = np.where(rising, effects.get("rise", 1.0), 0.1)
    free = 1.0 if decayed else effects.get("free", 0.0)
    drop = noisy(effects.get("drop", 2.0))
    marked = effects.get("descent", 0.8) * (0.7 + 0.6 * depth / 17)
    half = noisy(20 + effects.get("order", 2.0) * depth, 3.0)
    shape = {
        "start": noisy(0.0),
        "drop": drop,
        "rise": noisy(rise * free),
        "second_fall": noisy(marked),
        "double_descent": noisy(marked, 0.05),
        "reversal": noisy(np.where(kinds == "fc", effects.get("reversal", 0.02), 0.4), 0.005),
        "noise": noisy(0.3 + effects.get("noisier", 0.02) * depth, 0.01),
        "movement": noisy(0.1 + effects.get("slower", 0.01) * depth, 0.005),
        "half_drop": half,
        "blocks": [[0.0, -2.0, -1.5, -1.0, -1.2, -1.4]] * n,
    }
    angular = shape | {"rise": noisy(rise * effects.get("angular", 0.0))}
    numbers = {
        "stages": {"saved": 0.0, "cpu_seconds": 10.0, "stop": 300, "frozen_at": []},
        "final_accuracy": 0.45,
        "curves": {"train_loss": [0.5], "test_accuracy": [0.1] * 6 + [0.4] * 7},
        "layers": [layer.name for layer in layers],
        "kinds": kinds.tolist(),
        "depths": [layer.depth for layer in layers],
        "invariant": [layer.invariant for layer in layers],
        "gradients": shape,
        "angular": angular,
        "smoothing": {
            s: {"scatter": [0.3 * f] * n, "half_drop": half}
            for s, f in (("0", 1.0), ("0.08", 0.92), ("0.92", 0.3))
        },
        "half batches": {"noise": [[9.0, 1.0, 3.0]] * n, "squared_norm": [[9.0, 5.0, 5.0]] * n},
    }
    return Results(replace(config, seed=seed), numbers)


def verdicts(n: int = 12, **effects: float) -> dict[str, str]:
    runs = [planted(c, s, **effects) for s in range(n) for c in (DEFAULT, NO_DECAY)]
    return {c.id: c.verdict for c in experiment.claims(runs)}


REST = {"B7": "answered"} | dict.fromkeys(("B13", "B16", "B17", "B18"), "not tested")


def test_planted_effects_are_reproduced_and_absent_ones_refuted():
    assert verdicts() == {f"B{i}": "reproduced" for i in range(1, 7)} | REST
    absent = verdicts(
        order=-2.0, slower=-0.005, rise=0.05, descent=0.1, noisier=0.0, reversal=0.6, drop=0.3
    )
    assert absent == {f"B{i}": "refuted" for i in range(1, 7)} | REST


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ({"angular": 0.8}, "refuted"),  # ‖g‖‖w‖ rises too
        ({"free": 0.8}, "refuted"),  # so does ‖g‖ without weight decay
        ({"drop": 0.2}, "refuted"),
        ({"angular": 0.5}, "inconclusive"),
    ],
)
def test_b3_needs_a_drop_a_rise_and_its_explanation(effects: dict[str, float], verdict: str):
    assert verdicts(**effects)["B3"] == verdict


def test_the_share_of_noise_is_that_of_the_second_half():
    assert evidence.noise_share(planted(DEFAULT, 0)) == pytest.approx([0.4] * 41)


def with_stages(config: Config, seed: int, accuracy: float, saved: float) -> Results:
    result = planted(config, seed)
    result.numbers["final_accuracy"] = accuracy + 0.01 * (seed % 3)
    result.numbers["stages"] |= {"saved": saved, "cpu_seconds": 10 * (1 - saved)}
    return result


def test_freezing_is_answered_against_the_same_training_without():
    accuracies = {COSINE: 0.45, CONSTANT: 0.4, SHORT: 0.44, LINEAR: 0.43, CUBIC: 0.44}
    runs = [
        with_stages(c, s, a, 0.2 * (c in (LINEAR, CUBIC)))
        for c, a in accuracies.items()
        for s in range(10)
    ]
    runs += [with_stages(SETTLED, s, 0.42, 0.3) for s in range(10)]
    found = {c.id: c for c in experiment.claims(runs)}["B17"]
    assert found.verdict == "answered"
    assert found.value == pytest.approx(-0.03)
    assert "FreezeOut linear: accuracy -0.02" in found.sentence
    assert "frozen when settled: accuracy -0.03" in found.sentence
    assert "computation saved 0.3" in found.sentence
    assert "processor time saved 0.3" in found.sentence
    # settled at step 300 of 768: in the fifth of twelve epochs
    assert "settled in 10 of 10 seeds, which saves 0.609" in found.sentence
    assert "changes the accuracy by -0.3" in found.sentence
    assert "17% shorter without freezing: -0.01" in found.null


def test_stitching_is_answered_with_its_controls():
    runs = []
    for seed in range(10):
        result = planted(STITCHED, seed)
        result.numbers["stitched"] = {
            "stages": [1, 2, 3],
            "alone": 0.5,
            "other": [0.48, 0.45 + 0.01 * (seed % 2), 0.44],
            "same": [0.5, 0.5, 0.5],
            "untrained": [0.4, 0.3, 0.25],
        }
        runs.append(result)
    found = {c.id: c for c in experiment.claims(runs)}["B18"]
    assert found.verdict == "answered"
    assert found.value == pytest.approx(-0.045)
    assert "0.155" in found.sentence
    assert "untrained front 0.4" in found.null


def one_file() -> list[Results]:
    """Two made-up runs of every setting of the preset `all`, but for units that score."""
    found = []
    for config in experiment.PRESETS["all"]:
        if config.scored:
            continue
        for seed in range(2):
            result = with_stages(config, seed, 0.4, 0.2 * (config.freezing != "none"))
            if config.freezing != "none":
                for name in ("gradients", "angular", "smoothing"):
                    del result.numbers[name]
            if config.stitched:
                fronts = {"other": [0.48], "same": [0.5], "untrained": [0.3]}
                result.numbers["stitched"] = {"stages": [1], "alone": 0.5}
                result.numbers["stitched"] |= {name: 3 * v for name, v in fronts.items()}
                result.numbers["stitched"]["stages"] = [1, 2, 3]
            found.append(result)
    return found


def test_one_file_holds_the_runs_of_all_claims():
    runs = one_file()
    claims = {c.id: c for c in experiment.claims(runs)}
    assert list(claims) == list(experiment.CLAIM_IDS)
    assert {c.n_seeds for c in claims.values() if c.id not in ("B13", "B16")} == {2}
    drawn = experiment.figures(runs)
    unfrozen = [c for c in experiment.PRESETS["all"] if c.freezing == "none" and not c.scored]
    assert sum(name.startswith("rise by kind") for name in drawn) == len(unfrozen)
    assert {"freezing", "joined networks"} <= set(drawn)
    for figure in drawn.values():
        check_house_rules(figure)
    saved = next(t for t in drawn["freezing"].data if t.name.startswith("share"))
    assert sorted({round(float(x), 6) for x in saved.x}) == [0, round(1 / 6, 6), 0.2]
    assert set(experiment.figures(runs[:4])) == {
        f"rise by kind: {experiment.setting(c)}" for c in (DEFAULT, NO_DECAY)
    }


def test_few_seeds_and_missing_controls_decide_nothing():
    assert {v for k, v in verdicts(7).items() if len(k) == 2} == {"inconclusive"}
    assert set(verdicts(3).values()) == {"not tested"}
    alone = experiment.claims([planted(DEFAULT, s) for s in range(12)])
    assert {c.id: c.verdict for c in alone}["B3"] == "not tested"
    assert {c.id: c.verdict for c in alone}["B1"] == "reproduced"


def test_the_presets_last_the_time_scales_of_their_weight_decay():
    assert DEFAULT.time_scale == pytest.approx(250)
    assert PAPER.time_scale == pytest.approx(10_000)
    assert PAPER.n_steps == 312_800
    assert evidence.long_enough(DEFAULT)
    assert evidence.long_enough(PAPER)
    assert not evidence.long_enough(replace(DEFAULT, weight_decay=5e-4))
    assert not evidence.long_enough(NO_DECAY)  # it has none to wait for, and decides nothing alone
    assert math.isinf(NO_DECAY.time_scale)


def test_more_images_than_there_are_is_said(monkeypatch):
    monkeypatch.setattr(
        "phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images
    )
    with pytest.raises(ValueError, match="50,000 images are asked for, but there are 40 images"):
        experiment.run(PAPER, Path("nowhere"))
