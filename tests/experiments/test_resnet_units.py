import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.test_resnet_gradients import TINY, noise_images, planted
from figures.captions import check_house_rules
from phasescope import ParameterTable
from phasescope.experiments import resnet_gradients as experiment
from phasescope.experiments.resnet_gradients import units as module
from phasescope.experiments.resnet_gradients.config import DEFAULT, UNITS, Results
from phasescope.experiments.resnet_gradients.training import network
from phasescope.experiments.resnet_gradients.unit_parts import units_of
from phasescope.experiments.resnet_gradients.units import (
    AFTER,
    BEFORE,
    N_CONTROLS,
    SCORES,
    Moves,
    events,
)
from phasescope.experiments.runner import config_hash

SCORED = replace(TINY, image_size=16, scored=10)


def test_units_are_filters_and_the_weights_that_read_them():
    model = network(replace(TINY, n_blocks=(1, 1)))
    units = units_of(model)
    assert units.sites == ("bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2")
    assert units.sizes == (2, 2, 2, 4, 4)
    assert units.layer.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
    table = ParameterTable.from_module(model)
    vector = table.flatten({n: p.detach() for n, p in model.named_parameters()})
    for name, reader, unit in (
        ("conv1", "layer1.0.conv1", 1),
        ("layer1.0.conv2", "layer2.0.conv1", 0),
        ("layer2.0.conv2", "fc", 3),
    ):
        own = vector[units.filters[f"{name}:{unit}"].columns]
        assert torch.equal(own, model.get_parameter(f"{name}.weight")[unit].flatten())
        read = vector[units.readers[f"{name}:{unit} read"].columns]
        assert torch.equal(read, model.get_parameter(f"{reader}.weight")[:, unit].flatten())


def test_a_run_scores_its_units_and_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "phasescope.experiments.resnet_gradients.training.load_cifar10", noise_images
    )
    monkeypatch.setattr(module, "N_NULL", 3)
    result = experiment.run(SCORED, tmp_path)
    units = result.numbers["units"]
    assert units["sizes"] == [2, 2, 2, 4, 4]
    assert units["steps"] == list(range(0, 41, 4))
    for name in SCORES:
        table = units["scores"][name]
        for curves in (table["mean"], table["scoring"]):
            assert np.array(curves).shape == (5, 11)
            assert ((np.array(curves) >= 0) & (np.array(curves) <= 1)).all()
        assert len(table["threshold"]) == len(table["random"]) == 5
        assert all(a >= b for a, b in zip(table["threshold"], table["random"], strict=True))
        assert 0 <= table["beyond_shuffled"] <= 1
    assert result.detail is not None
    assert result.detail.scores is not None
    assert result.detail.scores.shape == (4, 14, 11)
    mean = result.detail.scores[0, :2].mean(0)
    assert mean.tolist() == pytest.approx(units["scores"]["edge"]["mean"][0], abs=1e-6)
    again = experiment.load(SCORED, tmp_path, result.numbers)
    assert again.detail is not None
    assert again.detail.scores is not None
    assert torch.equal(again.detail.scores, result.detail.scores)
    drawn = experiment.figures([result])
    assert {"units that score", "scores of units"} <= set(drawn)
    for figure in drawn.values():
        check_house_rules(figure)
    assert experiment.disk_bytes(SCORED) > experiment.disk_bytes(replace(SCORED, scored=0))


def test_what_was_run_before_units_were_scored_keeps_its_hash():
    assert config_hash(DEFAULT) == "22c954f3"
    assert config_hash(UNITS) != config_hash(replace(UNITS, scored=0))
    assert UNITS in experiment.PRESETS["all"]
    with pytest.raises(ValueError, match="40 steps must divide into the intervals"):
        replace(TINY, scored=7)


def moves_of(values: np.ndarray, readers: np.ndarray | None = None) -> Moves:
    readers = values if readers is None else readers
    return Moves(values**2, readers**2, values**2, readers**2)


def test_a_planted_slowdown_is_measured_beside_the_units_that_moved_alike():
    n_units, n_checkpoints, start = 12, 14, 4
    layer = np.repeat([0, 1], 6)
    exceeded = np.zeros((4, n_units, n_checkpoints), dtype=bool)
    exceeded[1, 2, start - 1 :] = True  # scores from the checkpoint on at which it is confirmed
    exceeded[0, 3, start] = True  # once only
    exceeded[2, 4, :] = True  # from the start
    exceeded[3, 8, -2:] = True  # too late
    values = np.ones((n_units, n_checkpoints - 1))
    values[[0, 1, 5]] = [[1.1], [0.9], [8.0]]
    values[:, start:] /= 2  # all slow down by a factor of two,
    values[2, start:] /= 4  # the unit by four more,
    readers = values.copy()
    readers[2, start:] *= 4  # but not what reads it
    moves = moves_of(values, readers)
    found = events(exceeded, moves, layer, seed=0)
    assert found == []  # three other units of its layer have not scored: none is left for a placebo
    exceeded[2, 4, :] = False
    found = events(exceeded, moves, layer, seed=0)
    assert [(e["unit"], e["layer"], e["checkpoint"], e["scores"]) for e in found] == [
        (2, 0, start, ["colour"])
    ]
    event = found[0]
    assert event["change"]["filter_updates"] == pytest.approx(-3)
    assert event["change"]["reader_ways"] == pytest.approx(-1)
    for which in ("matched", "placebo", "placebo_matched"):
        assert list(event[which].values()) == pytest.approx([-1] * 4)
    # Units 0, 1 and 4 moved as much as it did; what unit 5 does later makes no difference.
    values[5, start:] *= 100
    same = events(exceeded, moves_of(values, readers), layer, seed=0)[0]
    assert same["matched"]["filter_updates"] == pytest.approx(-1)
    values[[0, 1, 4], start:] *= 2
    other = events(exceeded, moves_of(values, readers), layer, seed=0)[0]
    assert other["matched"]["filter_updates"] == pytest.approx(0)
    assert (BEFORE, N_CONTROLS) == (2, 3)
    assert start + AFTER < n_checkpoints


def scored(seed: int, *, slower: float, readers: float, matched: float = 0.0) -> Results:
    """A run with four events, whose filters and readers change by what is stated, in log2."""
    generator = np.random.default_rng(seed)
    result = planted(UNITS, seed)

    def change(filters: float, others: float) -> dict[str, float]:
        noise = 0.05 * generator.standard_normal(2)
        return {
            "filter_updates": filters + noise[0],
            "reader_updates": others + noise[1],
            "filter_ways": filters + noise[0],
            "reader_ways": others + noise[1],
        }

    event = [
        {
            "scores": ["edge"],
            "change": change(-slower, readers - slower),
            "matched": change(0, matched),
            "placebo": change(0, 0),
            "placebo_matched": change(0, 0),
        }
        for _ in range(4)
    ]
    table = {
        "mean": [[0.1, 0.2]] * 2,
        "scoring": [[0.0, 0.1], [0.0, 0.4]],
        "threshold": [0.5, 0.5],
        "random": [0.1, 0.1],
        "random_scoring": 0.01,
        "beyond_shuffled": 0.2,
    }
    result.numbers["units"] = {
        "layers": ["bn1", "layer1.0.bn1"],
        "sizes": [2, 4],
        "steps": [0, 32],
        "scores": dict.fromkeys(SCORES, table),
        "events": event,
    }
    return result


def claims_of(runs: list[Results]) -> dict[str, tuple[str, float | None, str]]:
    return {c.id: (c.verdict, c.value, c.sentence) for c in experiment.claims(runs)}


def test_planted_carriers_that_stop_and_readers_that_go_on():
    found = claims_of([scored(s, slower=1.0, readers=0.8) for s in range(12)])
    verdict, value, sentence = found["B16"]
    assert verdict == "answered"
    assert value == pytest.approx(-1, abs=0.05)
    assert "so they slow down" in sentence
    assert "edge 0.3 [0.3, 0.3]" in sentence
    assert found["B13"][0] == "reproduced"
    assert found["B13"][1] == pytest.approx(0.8, abs=0.05)


def test_readers_that_stop_too_or_go_on_everywhere_refute_b13():
    none = claims_of([scored(s, slower=0.0, readers=0.0) for s in range(12)])
    assert none["B13"][0] == "refuted"
    assert none["B16"][0] == "answered"
    assert "which may be nothing" in none["B16"][2]
    everywhere = [scored(s, slower=1.0, readers=0.8, matched=0.8) for s in range(12)]
    assert claims_of(everywhere)["B13"][0] == "refuted"
    assert claims_of(everywhere[:7])["B13"][0] == "inconclusive"
    faster = claims_of([scored(s, slower=-1.0, readers=0.0) for s in range(12)])
    assert "so they speed up" in faster["B16"][2]


def test_seeds_with_few_units_that_score_do_not_count():
    runs = [scored(s, slower=1.0, readers=0.8) for s in range(12)]
    for run in runs[:4]:
        run.numbers["units"]["events"] = run.numbers["units"]["events"][:2]
    claims = {c.id: c for c in experiment.claims(runs)}
    assert claims["B16"].n_seeds == claims["B13"].n_seeds == 8
    assert claims["B13"].verdict == "inconclusive"
    assert math.isfinite(claims["B13"].value or math.nan)
    assert "(3.33" in claims["B16"].sentence
