"""Spectra of grokking runs: planted trajectories and circuits, one small run, decision rules."""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import phasescope as ps
from phasescope.analysis.grokking import fourier_basis
from phasescope.datasets import modular_task
from phasescope.experiments import grokking
from phasescope.experiments.grokking.logits import (
    held_by_components,
    known_directions,
    logit_path,
    places_of,
    turns_at,
)
from phasescope.experiments.grokking.rankings import causal_effects, spectral_mass
from phasescope.experiments.grokking.spectra import (
    component_sparsity,
    gradient_counts,
    gradient_profiles,
    matrix_ranks,
    moving_times,
    random_sparsity,
    weight_counts,
)
from phasescope.experiments.grokking.spectra_claims import spectra_claims
from phasescope.experiments.grokking.spectra_figures import spectra_figures
from phasescope.experiments.grokking.training import train
from phasescope.models import PairTransformer, analytic_pair_transformer

TASK = modular_task("add", 11)
BASIS = fourier_basis((11,))


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_walks_count_as_walks_and_drifts_do_not():
    steps = list(range(0, 600, 5))
    walk = noise(120, 3000).cumsum(0)
    drift = walk * 0.01 + torch.arange(120.0).double()[:, None] * noise(1, 3000, seed=1)
    counts = {}
    for name, points in (("walk", walk), ("drift", drift)):
        path = ps.gram(points)
        path = ps.Gram(path.K, torch.tensor(steps), path.row_sums, path.n_columns, {}, path.eps)
        counts[name] = weight_counts(path, steps)
    for center, closed in (("raw", 5), ("centred", 10)):
        found = counts["walk"][center]
        assert found["closed_form"] == closed
        assert abs(found["count"] - closed) <= 1
        assert found["walk_low"] <= found["count"] <= found["walk_high"]
        assert counts["drift"][center]["count"] == 1
    assert counts["drift"]["centred"]["first_p"] <= 0.02
    assert counts["walk"]["centred"]["first_p"] > 0.05


def test_gradients_of_planted_directions_are_counted():
    directions = torch.linalg.qr(noise(2000, 4))[0].T
    strength = noise(80, 4, seed=1) * torch.tensor([8.0, 6.0, 5.0, 4.0])
    found = gradient_counts(strength @ directions + 0.003 * noise(80, 2000, seed=2), seed=0)
    assert found["count"] == 4
    assert found["flip_count"] == 4
    assert found["norm_count"] > 40


def test_directions_are_told_by_their_frequencies():
    model = PairTransformer(11, d_model=6, n_heads=2, d_mlp=4)
    table = ps.ParameterTable.from_module(model)
    zero = {name: torch.zeros(shape) for name, shape in zip(table.names, table.shapes, strict=True)}
    pure, flat = dict(zero), dict(zero)
    pure["embed.W_E"] = torch.cat(
        [torch.outer(BASIS.rows[5].float(), torch.ones(6)), zero["embed.W_E"][11:]]
    )
    flat["embed.W_E"] = torch.cat(
        [BASIS.rows.float()[1:].sum(0)[:, None].repeat(1, 6), zero["embed.W_E"][11:]]
    )
    for row in (pure, flat):
        row["unembed.W_U"] = torch.outer(
            torch.ones(6), torch.cat([BASIS.rows[6], torch.zeros(1)]).float()
        )
    vectors = torch.stack([table.flatten(row) for row in (pure, flat)])
    found = component_sparsity(table, vectors, TASK.natural, [3])
    assert found["gini_W_E"] == pytest.approx([0.8, 0.0], abs=1e-6)
    assert found["gini_W_U"] == pytest.approx([0.8, 0.8], abs=1e-6)
    assert found["power_W_E"][0][2] == pytest.approx(1.0)
    # The second has 60 units in all frequencies of W_E alike, and 6 in frequency 3 of W_U.
    assert found["key_share"] == pytest.approx([1.0, (12 + 6) / (60 + 6)], abs=1e-6)
    random = random_sparsity(TASK.natural, 64, [3])
    assert random["gini"] < random["gini_high"] < 0.2
    assert random["key_share"] == pytest.approx(0.2, abs=0.01)


def test_components_move_when_they_were_made_to():
    t = torch.arange(200.0).double()
    directions = torch.linalg.qr(noise(500, 2))[0].T
    scores = torch.stack([20 * torch.sigmoid((t - 50) / 3), 6 * torch.sigmoid((t - 140) / 3)], 1)
    spectrum = ps.spectrum(ps.gram(scores @ directions), center="steps")
    # Two sigmoids mix: each component moves at both, the larger mostly at the first.
    assert moving_times(spectrum, 1)[0] == pytest.approx(50, abs=3)
    flat = torch.cat([torch.zeros(100), torch.ones(100)]).double()[:, None] * directions[:1]
    assert moving_times(ps.spectrum(ps.gram(flat), center="steps"), 1) == [100.0]


def test_gradients_that_change_at_events_line_up_with_them():
    directions = torch.linalg.qr(noise(400, 3))[0].T
    at = torch.arange(200)
    phase = (at >= 30).long() + (at >= 90).long()  # unequal: equal ones would mix
    gradients = directions[phase] + 0.01 * noise(200, 400, seed=1)
    config = replace(grokking.DEFAULT, spectra_every=1, n_steps=200)
    found = gradient_profiles(gradients, 3, [30.0, 90.0], config)
    assert found["events"]["octaves"] < 0.2
    assert found["events"]["octaves"] < found["events"]["null"]
    assert found["events"]["p"] < 0.1
    assert sum(p <= 0.05 for p in found["center_p"]) >= 3
    assert gradient_profiles(gradients, 3, [40.0], config)["events"] is None


def test_logits_made_of_known_directions_are_found_in_them():
    pairs, labels = TASK.examples(torch.arange(0, 121, 2))
    places = places_of(TASK.natural, pairs, labels, 11)
    assert torch.equal(places, torch.cat([pairs, labels[:, None]], 1))
    trained = torch.arange(len(pairs)) < 30
    truth = known_directions(BASIS, places, trained, [2, 5])
    for rows in truth.values():
        assert rows.norm(dim=1).tolist() == pytest.approx([1.0] * len(rows))
    every = torch.cat([truth["keys"], truth["others"]])
    assert (truth["memory"] @ every.T).abs().max() < 1e-12
    t = torch.arange(60.0).double()
    memory = torch.sigmoid((t - 10) / 2)[:, None] * truth["memory"]
    circuit = torch.stack([torch.sigmoid((t - 30) / 3), torch.sigmoid((t - 40) / 2)], 1)
    logits = 3 * memory + circuit @ (5 * truth["keys"]) + 1e-3 * noise(60, memory.shape[1])
    found = held_by_components(logits, 3, truth)
    assert min(found["keys"]) > 0.99
    assert found["memory"] > 0.99
    assert found["others"] < 0.05
    assert held_by_components(noise(60, memory.shape[1]), 3, truth)["memory"] < 0.1


def test_a_path_that_turns_at_a_boundary_meets_it():
    t = torch.arange(100.0).double()
    back = torch.stack([50 - (t - 50).abs(), 0.3 * (t - 50).clamp(min=0)], 1)
    path = ps.gram(torch.cat([back, 0.1 * noise(100, 50).cumsum(0)], 1))
    found = turns_at(path, [50, 20, None])
    assert found["met"] == [True, False, False]
    assert 0 < found["chance"] < 0.3
    json.dumps(found, allow_nan=False)


def test_ranks_are_those_of_matrices_made_low_rank():
    sizes = {"d_model": 12, "n_heads": 2, "d_mlp": 20}
    before, after = (
        PairTransformer(11, generator=torch.Generator().manual_seed(0), **sizes) for _ in range(2)
    )
    with torch.no_grad():
        W_E = after.embed.get_parameter("W_E")
        W_E.copy_(torch.outer(W_E[:, 0], W_E[0]))
        after.blocks[0].get_parameter("attn.W_V")[0, :, 1:] = 0.0
    ranks = matrix_ranks(before, after)
    assert ranks["W_E"][1] == 1
    assert ranks["W_E"][0] > 5
    assert ranks["0 OV 0"][1] == 1
    assert ranks["0 OV 1"][0] == ranks["0 OV 1"][1]
    assert set(ranks) >= {"W_U", "0 W_Q", "0 W_K", "0 W_V", "0 W_O", "0 W_in", "0 W_out", "0 W_L"}


def test_mass_and_effects_of_a_planted_circuit():
    model = analytic_pair_transformer(TASK.natural, 11, [2, 5], amplitudes=[6.0, 3.0])
    config = replace(grokking.SMOKE, n_heads=2, d_mlp=18, d_model=23)
    effects = causal_effects(config, model)
    for kind in ("zero", "mean"):
        values = effects["frequencies"][kind]
        assert values.argmax() == 1
        assert values.sort(descending=True).indices[1] == 4
        assert values[[0, 2, 3]].abs().max() < 1e-9
    # The left operand was replaced: head 0 carries it, through the MLP alone.
    assert effects["heads"]["patching"].tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert effects["heads"]["through the MLP"].tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert effects["heads"]["around the MLP"].abs().max() < 1e-9
    assert effects["neurons"]["patching"].sum().item() == pytest.approx(1.0)  # linear: they add up
    assert len(effects["neurons"]["resample"]) == 18
    table = ps.ParameterTable.from_module(model)
    zero = {name: torch.zeros(shape) for name, shape in zip(table.names, table.shapes, strict=True)}
    head = dict(zero) | {
        "blocks.0.attn.W_O": torch.zeros(table.shapes[table.names.index("blocks.0.attn.W_O")])
    }
    head["blocks.0.attn.W_O"][1] = 1.0
    wave = dict(zero)
    wave["embed.W_E"] = torch.cat(
        [torch.outer(BASIS.rows[4].float(), torch.ones(23)), torch.zeros(1, 23)]
    )
    vectors = torch.stack([table.flatten(row) for row in (head, wave)])
    mass = spectral_mass(model, TASK.natural, vectors, torch.tensor([2.0, 1.0]).double())
    assert mass["heads"].tolist() == pytest.approx([0.0, 0.8])
    assert mass["frequencies"].tolist() == pytest.approx([0.0, 0.2, 0.0, 0.0, 0.0], abs=1e-7)
    assert mass["neurons"].abs().max() == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> grokking.Results:
    config = replace(grokking.SMOKE, spectra_every=2, n_heads=4, d_mlp=8)
    return grokking.run(config, tmp_path_factory.mktemp("spectra") / "run")


def test_a_run_with_spectra_has_all_of_them(small: grokking.Results):
    numbers = small.numbers["spectra"]
    json.dumps(numbers, allow_nan=False)
    assert numbers["n_steps"] == 31
    assert set(numbers["subtraction"]) >= {"raw, end", "centred, end"}
    end = numbers["subtraction"]["raw, end"]
    assert end["values"][0][1] == pytest.approx(small.numbers["final"]["test_loss"], rel=1e-4)
    assert end["values"][0] == end["controls"][0] == end["controls_within"][0]
    assert len(numbers["rankings"]["heads"]["mass"]["weights"]) == 4
    assert numbers["rankings"]["neurons"]["correlations"]["weights, mean"]["p"] <= 1
    found = {claim.id: claim for claim in spectra_claims([small])}
    assert {claim.verdict for claim in found.values()} == {"not tested"}
    assert found["A9"].value == numbers["gradients"]["count"]


@pytest.mark.slow
def test_runs_of_two_layers_are_not_ranked_and_say_so(tmp_path: Path):
    config = replace(grokking.SMOKE, spectra_every=2, n_layers=2, n_steps=40)
    result = grokking.run(config, tmp_path / "run")
    assert result.numbers["spectra"]["rankings"] is None
    found = {claim.id: claim.sentence for claim in spectra_claims([result])}
    assert found["A17"] == "Not run."


def planted(n_seeds: int, **changes: Any) -> list[grokking.Results]:
    """Runs with numbers that reproduce every statement, but for what is changed."""
    generator = np.random.default_rng(0)
    settings: dict[str, Any] = {
        "gradients": 10, "weights": 5, "gini": 0.1, "loss": -1.0, "met": [True, True],
        "ranks": [20, 5],
    } | changes  # fmt: skip
    runs = []
    for seed in range(n_seeds):
        jitter = float(generator.normal(0, 0.02))
        ablated = {
            "alphas": [0.0, 1.0],
            "values": [[0, 1.0, 1, 0.5], [0, 10 ** (settings["loss"] + jitter), 1, 0.9]],
            "controls": [[0, 1.0, 1, 0.5]] * 2,
            "controls_within": [[0, 1.0, 1, 0.5]] * 2,
        }
        sparsity = {"gini_W_E": [settings["gini"] + jitter, 0.7, 0.7], "key_share": [0.8, 0.9]}
        walk = {"count": settings["weights"], "walk_count": 6, "closed_form": 5, "first_p": 0.02}
        correlation = {"rho": 0.6 + jitter, "low": 0.5, "high": 0.7, "p": 0.001}
        ranked = {
            "effects": {"mean": []},
            "correlations": {
                f"{name}, mean": correlation for name in ("weights", "gradients", "final norm")
            },
        }
        events = {"octaves": 0.1 + jitter, "null": 0.5, "p": 0.04}
        directions = {"keys": [0.9, 0.95], "others": 0.01, "memory": 0.8}
        spectra = {
            "gradients": {"count": settings["gradients"], "norm_count": 30, "flip_count": 9},
            "weights": {"raw": walk, "centred": walk},
            "components": {"raw": sparsity, "centred": sparsity},
            "random_directions": {"gini": 0.07, "gini_high": 0.1, "key_share": 0.1},
            "weight_events": events,
            "subtraction": {"raw, plateau": ablated, "raw, end": ablated},
            "logits": {"met": settings["met"], "chance": 0.1, "directions": directions},
            "matrices": {"W_E": settings["ranks"], "W_U": settings["ranks"]},
            "rankings": dict.fromkeys(("heads", "neurons", "frequencies"), ranked),
            "profiles": {"events": events, "center_p": [0.01, 0.5]},
        }
        config = replace(grokking.DEFAULT, seed=seed, spectra_every=15)
        runs.append(grokking.Results(config, {"spectra": spectra}))
    return runs


def verdicts(runs: list[grokking.Results]) -> dict[str, str]:
    return {claim.id: claim.verdict for claim in spectra_claims(runs)}


def test_planted_numbers_get_their_verdicts():
    statements = ("A9", "A10", "A11", "A12", "A13", "A14")
    found = verdicts(planted(10))
    assert {id: found[id] for id in statements} == dict.fromkeys(statements, "reproduced")
    assert {found[id] for id in ("A15", "A17", "A19")} == {"answered"}
    other = verdicts(
        planted(10, gradients=40, weights=2, gini=0.6, loss=1.0, met=[False, False], ranks=[20, 19])
    )
    assert {id: other[id] for id in statements} == dict.fromkeys(statements, "refuted")


@pytest.mark.parametrize(("n_seeds", "most"), [(9, "inconclusive"), (4, "not tested")])
def test_too_few_seeds_give_no_verdict(n_seeds: int, most: str):
    assert set(verdicts(planted(n_seeds)).values()) == {most}


def test_the_setting_with_most_seeds_decides_and_no_runs_test_nothing():
    few = [replace(r, config=replace(r.config, p=113)) for r in planted(3, weights=1)]
    assert verdicts([*few, *planted(10)])["A10"] == "reproduced"
    none = spectra_claims([grokking.Results(grokking.DEFAULT, {})])
    assert {claim.verdict for claim in none} == {"not tested"}
    assert [claim.id for claim in none] == list(verdicts(planted(10)))
    assert all(
        claim.value is None or math.isfinite(claim.value) for claim in spectra_claims(planted(10))
    )


def test_too_few_steps_are_refused_before_the_training(tmp_path: Path):
    config = replace(grokking.SMOKE, spectra_every=10)
    with pytest.raises(ValueError, match="at least 13 kept steps, but spectra_every=10 keeps 7"):
        grokking.run(config, tmp_path / "run")
    with pytest.raises(ValueError, match="one seed, but n_seeds=3 trains a batch"):
        grokking.run(replace(config, spectra_every=2, n_seeds=3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_first_update_of_rate_zero_is_no_point_of_the_path(small: grokking.Results):
    # Steps 0 and 1 have the same weights.
    config = replace(small.config, spectra_every=1, n_steps=16, warmup_steps=10)
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run")
        found = logit_path(config, run, list(range(16)), [None], [1])
    assert found["steps"] == [0, *range(2, 16)]


def test_figures_are_drawn_from_the_numbers_alone(small: grokking.Results):
    drawn = spectra_figures([replace(small, detail=None)])
    assert {"spectra: raw", "spectra: logits", "spectra: mass and effect"} <= set(drawn)
    assert "spectra: without component 0, end" in drawn
    weights = drawn["spectra: centred"].data
    S = small.numbers["spectra"]["weights"]["centred"]["S"]
    assert list(weights[0].y) == pytest.approx(S)
    assert [trace.name for trace in weights] == ["weights", "walks of their increments"]
    assert len(drawn["spectra: components"].data) == 2
    panels = drawn["spectra: mass and effect"]
    n_dots = sum(len(trace.x) for trace in panels.data)
    effects = small.numbers["spectra"]["rankings"]
    assert n_dots == sum(
        e != 0 and m > 0
        for kind in effects.values()
        for e, m in zip(kind["effects"]["mean"], kind["mass"]["weights"], strict=True)
    )
    assert spectra_figures([]) == {}
