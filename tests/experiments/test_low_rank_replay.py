import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from figures.captions import check_house_rules
from phasescope.components import Subspace
from phasescope.experiments import low_rank_replay
from phasescope.experiments.low_rank_replay.config import (
    COMPLEMENT,
    FULL,
    RANDOM,
    TOP,
    Config,
    best_random_fall,
    fall,
    ks_of,
    random_dimension,
    row_of,
    smallest_k,
)
from phasescope.experiments.low_rank_replay.ensemble import Ensemble, Member, evaluate, split
from phasescope.experiments.low_rank_replay.run import members
from phasescope.interventions import chain, flat_weights, keep, random_subspace, remove
from phasescope.models import MLP, seeded
from phasescope.training import accuracy, train, transformed_updates

SIZES = (12, 7, 3)
P = 12 * 7 + 7 + 7 * 3 + 3


def batches(seed: int, n: int = 15):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        x = torch.randn(8, 12, generator=generator)
        yield x, x[:, :3].argmax(1)


def network() -> MLP:
    return seeded(lambda: MLP(SIZES), 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_member_is_trained_as_a_model_of_its_own(optimizer):
    rate = 0.1 if optimizer == "sgd" else 0.01
    bases = {
        TOP: random_subspace(P, 40, seed=1).basis,
        RANDOM: random_subspace(P, 30, seed=2).basis,
    }
    models = [
        Member(FULL, 0, "original"),
        Member(TOP, 30, "original", TOP),
        Member(COMPLEMENT, 5, "original", TOP, keep=False),
        Member(FULL, 0, "fresh"),
        Member(TOP, 5, "fresh", TOP),
        Member(COMPLEMENT, 40, "fresh", TOP, keep=False),
        Member(RANDOM, 25, "fresh", RANDOM, rate=2.0),
    ]
    start = flat_weights(network())
    ensemble = Ensemble(start, SIZES, models, bases, optimizer=optimizer, learning_rate=rate)
    for original, fresh in zip(batches(3), batches(4), strict=True):
        ensemble.update({"original": original, "fresh": fresh})
    flat = torch.cat([layer.flatten(1) for layer in ensemble.layers], dim=1)
    for i, member in enumerate(models):
        model = network()
        rule = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
        slow = rule(model.parameters(), lr=rate * member.rate)
        transform = chain()
        if member.source:
            part = Subspace("part", bases[member.source][: member.k])
            transform = (keep if member.keep else remove)(part)
        with transformed_updates(model, slow, transform):
            train(model, slow, batches(3 if member.order == "original" else 4))
        moved = float((flat_weights(model) - start).norm())
        gap = float((flat[i] - flat_weights(model)).norm())
        assert moved > 0.01
        # Adam divides by the root of small numbers, which amplifies rounding.
        assert gap < (2e-6 if optimizer == "sgd" else 2e-4) * moved, member


def test_evaluating_many_is_evaluating_each():
    x, y = next(batches(0, 1))
    models = [seeded(lambda: MLP(SIZES), seed) for seed in range(20)]
    layers = split(torch.stack([flat_weights(m) for m in models]), SIZES)
    losses, right = evaluate(layers, x, y)
    for model, loss, share in zip(models, losses.tolist(), right.tolist(), strict=True):
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(model(x), y).item()
        assert loss == pytest.approx(expected, rel=1e-5)
        assert share == pytest.approx(accuracy(model, x, y), abs=1e-6)
    layers[0][3, 0, 0] = torch.nan
    losses, right = evaluate(layers, x, y)
    assert float(right[3]) == 0
    assert not bool(losses[3].isfinite())
    assert bool(losses[4].isfinite())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    directory = tmp_path_factory.mktemp("low_rank_replay")
    return low_rank_replay.run(low_rank_replay.SMOKE, directory)


def test_the_numbers_of_a_run_are_complete_and_consistent(results):
    numbers, config = results.numbers, results.config
    assert len(numbers["online"]) == len(members(config, numbers["n_parameters"]))
    full = {order: row_of(results, FULL, 0, order=order) for order in ("original", "fresh")}
    recorded = row_of(results, FULL, 0, online=False)
    # The ensemble's full training in the original order is the recorded one.
    assert full["original"]["test_loss"] == pytest.approx(recorded["test_loss"], rel=1e-4)
    assert full["original"]["test_loss"] != full["fresh"]["test_loss"]
    assert full["fresh"]["test_accuracy"] > 0.6
    assert fall(results, full["fresh"]) == 1.0
    k = max(ks_of(config))
    inside, outside = (row_of(results, v, k, online=False)["captured"] for v in (TOP, COMPLEMENT))
    assert inside + outside == pytest.approx(1)
    assert all(len(row["curve"]) == len(numbers["steps"]) for row in numbers["online"])
    assert all(row["curve"][0] == numbers["online"][0]["curve"][0] for row in numbers["online"])
    assert numbers["steps"][-1] == config.n_steps
    assert set(numbers["overlap"]) == set(low_rank_replay.config.SOURCES[1:])


def test_random_directions_are_worse_than_the_leading_ones_and_they_are_nested(results):
    k = max(ks_of(results.config))
    assert fall(results, row_of(results, TOP, k)) > best_random_fall(results, k)
    assert smallest_k(results) in ks_of(results.config)
    assert (random_dimension(results) or 1000) > (smallest_k(results) or 1000)


def test_claims_of_a_smoke_run_give_no_verdict_and_name_their_controls(results):
    found = {claim.id: claim for claim in low_rank_replay.claims([results])}
    assert set(found) == set(low_rank_replay.CLAIM_IDS)
    assert {claim.verdict for claim in found.values()} == {"not tested"}
    for word in ("random", "complement", "other order", "other initialisation", "frozen"):
        assert word in found["A20"].null
    assert "d_int90" in found["A21"].null


def made_up(result, seed: int, optimizer: str, top: float, random: float):
    """A run on MNIST in which replay and random directions reach the given shares."""
    start, full = 2.3, 0.3
    config = replace(Config(dataset="mnist", seed=seed), optimizer=optimizer)
    config = replace(config, learning_rate=0.1 if optimizer == "sgd" else 1e-3)
    shares = {TOP: top, FULL: 1.0, RANDOM: random}

    def row(variant: str, k: int, order: str) -> dict:
        share = shares.get(variant, 0.5) + (0 if variant == FULL else 1e-4 * (seed - 4.5))
        numbers = {"test_loss": start - share * (start - full), "test_accuracy": 0.95 * share}
        return {"variant": variant, "k": k, "order": order} | numbers

    online = [row(m.variant, m.k, m.order) for m in members(config, 25_450)]
    offline = [row(v, k, "original") for v in (TOP, COMPLEMENT) for k in ks_of(config)]
    offline.append(row(FULL, 0, "original"))
    numbers = {"initial": {"test_loss": start}, "dataset": "mnist", "count": 90.0}
    numbers |= {"null_count": 95.0, "n_parameters": 25_450, "online": online, "offline": offline}
    return low_rank_replay.Results(config, numbers)


@pytest.mark.parametrize(
    ("tops", "random", "n_seeds", "verdict"),
    [
        ((0.99, 0.5), 0.5, 10, "reproduced"),
        ((0.9, 0.8), 0.5, 10, "refuted"),
        ((0.99, 0.99), 0.99, 10, "refuted"),
        ((0.99, 0.99), 0.5, 9, "inconclusive"),
        ((0.95, 0.8), 0.5, 10, "inconclusive"),
    ],
)
def test_the_rule_of_a20_gives_every_verdict(results, tops, random, n_seeds, verdict):
    runs = [
        made_up(results, seed, optimizer, top, random)
        for (optimizer, top), seed in itertools.product(
            zip(("sgd", "adam"), tops, strict=True), range(n_seeds)
        )
    ]
    claim = low_rank_replay.claims(runs)[0]
    assert claim.verdict == verdict
    if verdict == "refuted":
        half = [r for r in runs if r.config.optimizer == "sgd"]
        assert low_rank_replay.claims(half)[0].verdict == "inconclusive"


def test_a_diverged_model_counts_as_no_fall_and_is_stored_as_null(results):
    row = row_of(results, TOP, 1) | {"test_loss": None}
    assert fall(results, row) == 0.0


def test_stored_results_keep_curves_of_the_first_seed_only(results):
    stored = low_rank_replay.for_storage([results, results])
    assert "curve" in stored[0]["numbers"]["online"][0]
    assert "curve" not in stored[1]["numbers"]["online"][0]
    assert results.numbers["online"][0]["curve"]


def test_figures_show_every_variant_beside_its_controls(results):
    second = low_rank_replay.load(
        replace(results.config, seed=1), Path(), json.loads(json.dumps(results.numbers))
    )
    drawn = low_rank_replay.figures([results, second])
    assert set(drawn) == {"online", "offline", "spectrum", "steps"}
    for figure in drawn.values():
        check_house_rules(figure)
    names = {trace.name for trace in drawn["online"].data if trace.showlegend}
    assert len(names) == 6
    top = next(t for t in drawn["online"].data if t.name == TOP and t.mode == "lines+markers")
    expected = [row_of(results, TOP, k)["test_loss"] for k in ks_of(results.config)]
    assert list(top.y) == pytest.approx(expected)
