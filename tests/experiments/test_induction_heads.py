from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope import report
from phasescope.datasets import TokenBatch
from phasescope.experiments import induction_heads as experiment
from phasescope.experiments.induction_heads import training
from phasescope.experiments.induction_heads.config import DEFAULT, TEXT, VARIED, Config, Results
from phasescope.experiments.induction_heads.measure import fall, order_free_loss
from phasescope.experiments.runner import config_hash, known_runs

# Of the default configuration before it had the field `data`.
OLD_HASH = "2dc37383"
TINY = replace(experiment.SMOKE, n_steps=60, measure_every=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("induction")
    return [experiment.run(replace(TINY, n_layers=n), folder / str(n)) for n in (1, 2)]


def test_a_run_measures_every_checkpoint_and_every_head(results: list[Results]):
    for result in results:
        numbers, config = result.numbers, result.config
        n = config.n_layers * config.n_heads
        assert numbers["steps"] == list(range(0, 61, 2))
        assert np.array(numbers["heads"]["stripe"]).shape == (n, 31)
        assert np.isfinite(np.array(numbers["moved"]["per_parameter"])).all()
        assert np.array(numbers["moved"]["qk_relative"]).shape == (n, 30)
        assert len(numbers["final"]["effects"]["zero"]) == n
        assert len(numbers["curves"]["copy_loss"]) == 31
    assert set(results[1].numbers["compositions"]["k"]) == {
        f"l1h{i}<l0h{j}" for i in range(2) for j in range(2)
    }


def test_runs_too_short_give_no_verdict_but_figures(results: list[Results]):
    claims = experiment.claims(results)
    assert [claim.id for claim in claims] == list(experiment.CLAIM_IDS)
    assert {claim.verdict for claim in claims} == {"not tested"}
    drawn = experiment.figures(results)
    assert set(drawn) == {"1 layer, seed 0: heads", "2 layers, seed 0: heads", "paths of losses"}
    stored = experiment.for_storage(results)
    again = experiment.load(results[0].config, Path(), stored[0]["numbers"])
    assert experiment.summary(again)["copy loss (nats)"] > 0


def planted(seed: int, config: Config, **effects: float) -> Results:
    """A network whose copy loss falls around step 800, with effects planted in its heads.

    Head l1h0 becomes an induction head, l0h1 looks at the token before.
    """
    generator = np.random.default_rng(seed)
    steps = np.arange(0, config.n_steps + 1, config.measure_every)
    n = config.n_layers * config.n_heads
    tau = np.log1p(steps)
    fall = 1 / (1 + np.exp(-(tau - np.log1p(800)) / 0.05)) * (config.n_layers > 1)
    within = ((steps[1:] > 700) & (steps[:-1] < 920)).astype(float)
    usual = np.exp(0.05 * generator.standard_normal((n, len(steps) - 1)))
    moved = usual * (1 + effects.get("turn", 0.0) * within)
    last = config.n_heads * (config.n_layers - 1)
    moved[last] *= effects.get("induction", 1.0)
    free = 0.1 * usual * (1 + 3 * within)
    early = (steps[1:] > effects.get("from", 700)) & (steps[:-1] < 900)
    free[last] = 0.1 * usual[last] * np.where(early, 4, 1)
    free[last, steps[1:] > 1_000] *= effects.get("reader", 1.0)
    stripe = np.full((n, len(steps)), 0.02)
    stripe[last] += 0.45 * fall
    before = np.full((n, len(steps)), 0.05)
    before[1] += 0.4 * fall
    shifted = np.interp(tau + effects.get("composed early", 0.0), tau, fall)
    names = [f"l{i}h{j}" for i in range(config.n_layers) for j in range(config.n_heads)]
    pairs = {f"{a}<{b}": (0.1 + 0.3 * shifted).tolist() for a in names for b in names if a > b}
    loss = 4.0 - 0.2 * tau / 8 - 3 * fall + 0.005 * generator.standard_normal(len(steps))
    return Results(
        replace(config, seed=seed),
        {
            "steps": steps.tolist(),
            "head_names": names,
            "curves": {"copy_loss": loss.tolist(), "chain_loss": loss.tolist(), "icl": []},
            "window": [717.0, 800.0, 893.0] if config.n_layers > 1 else None,
            "heads": {
                "stripe": stripe.tolist(),
                "previous_token": before.tolist(),
                "copying": stripe.tolist(),
            },
            "moved": {
                "per_parameter": (moved * effects.get("scale", 1.0)).tolist(),
                "qk_relative": np.sqrt(free / 2).tolist(),
                "ov_relative": np.sqrt(free / 2).tolist(),
                "singular": [1.0, 1.0, 2.0],
            },
            "compositions": dict.fromkeys("qkv", pairs) if config.n_layers > 1 else {},
            "order_free_loss": 2.0,
            "path": {"turns": [800], "coordinates": [[0.0], [0.0]]},
            "final": {"rank_correlation": {"zero": 0.5, "mean": 0.5, "resample": 0.5}},
        },
    )


def verdicts(n_seeds: int = 10, one: dict[str, float] | None = None, **two: float):
    results = [planted(s, replace(DEFAULT, n_layers=2), **two) for s in range(n_seeds)]
    results += [planted(s, replace(DEFAULT, n_layers=1), **(one or {})) for s in range(n_seeds)]
    return {claim.id: claim for claim in experiment.claims(results)}


def test_the_window_is_that_of_the_fall_and_one_layer_has_none():
    for n_layers in (1, 2):
        numbers = planted(0, replace(DEFAULT, n_layers=n_layers)).numbers
        found = fall(numbers["steps"], numbers["curves"]["copy_loss"])
        if n_layers == 1:
            assert found is None
        else:
            assert found == pytest.approx(numbers["window"], rel=0.05)


def test_planted_effects_are_reproduced_and_their_absence_refuted():
    found = verdicts(
        one={"turn": 3.0, "scale": 40.0}, turn=3.0, induction=4.0, reader=4.0, **{"from": 500.0}
    )
    for id in ("B8", "B9", "B12", "B13"):
        assert found[id].verdict == "reproduced", id
    assert found["B10"].verdict == "answered"
    assert found["B10"].value == pytest.approx((800 - 525) / 800, abs=0.08)
    absent = verdicts(one={}, turn=-0.5, induction=0.5, reader=0.25, **{"composed early": -0.3})
    for id in ("B8", "B9", "B12", "B13"):
        assert absent[id].verdict == "refuted", id


def test_a_turn_of_two_layers_alone_refutes_the_claim_about_one_layer():
    assert verdicts(one={}, turn=3.0)["B9"].verdict == "refuted"


def test_nine_seeds_decide_nothing_and_variations_must_all_be_run():
    found = verdicts(9, one={"turn": 3.0}, turn=3.0)
    assert found["B9"].verdict == "inconclusive"
    assert found["B11"].verdict == "not tested"
    runs = [planted(s, DEFAULT, turn=3.0) for s in range(10)]
    runs += [planted(s, c, turn=1.0) for c in VARIED.values() for s in range(10)]
    claims = {claim.id: claim for claim in experiment.claims(runs)}
    assert claims["B11"].verdict == "answered"
    assert claims["B11"].value == pytest.approx(1.0, abs=0.25)


def on_text(n_seeds: int, **two: float):
    results = [planted(s, replace(TEXT, n_layers=2), **two) for s in range(n_seeds)]
    results += [planted(s, replace(TEXT, n_layers=1)) for s in range(n_seeds)]
    return experiment.claims(results)


def test_real_text_has_verdicts_of_its_own_by_the_same_rules():
    claims = on_text(10, turn=3.0, induction=4.0, reader=4.0)
    mixture, text = claims[: len(experiment.CLAIM_IDS)], claims[len(experiment.CLAIM_IDS) :]
    assert {claim.verdict for claim in mixture} == {"not tested"}
    assert [claim.id for claim in text] == ["B8", "B9", "B10", "B12", "B13", "B14"]
    assert all(claim.statement.endswith("(real text)") for claim in text)
    found = {claim.id: claim for claim in text}
    assert found["B13"].verdict == "reproduced"
    assert "in 10 of 10 networks" in found["B13"].sentence
    assert found["B9"].verdict == "refuted"  # one layer does not turn
    # One layer ends near 3.8 nats; the segment without its order is 2.
    assert found["B14"].value == pytest.approx(1.8, abs=0.05)


def test_text_on_which_nothing_forms_says_so():
    runs = [planted(s, replace(TEXT, n_layers=2)) for s in range(10)]
    for run in runs:
        run.numbers["window"] = None
    claims = experiment.claims(runs)[len(experiment.CLAIM_IDS) :]
    assert {claim.verdict for claim in claims} == {"not tested"}
    assert "fell suddenly in 0 of 10 networks of two layers, so there" in claims[0].sentence


def test_order_free_loss_is_the_entropy_of_the_segment():
    tokens = torch.tensor([[0, 1, 0, 2, 0, 1, 0, 2], [5, 5, 5, 5, 5, 5, 5, 5]])
    repeats = torch.arange(8).expand(2, 8) >= torch.tensor([[4], [2]])
    entropy = 0.5 * np.log(2) + 0.5 * np.log(4)
    assert order_free_loss(TokenBatch(tokens, repeats)) == pytest.approx(4 * entropy / 10)


def test_a_network_is_trained_on_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "_text", lambda: "to be, or not to be: that is. " * 40)
    with pytest.raises(ValueError, match="has 14 different characters, but d_vocab is 16"):
        experiment.run(replace(TINY, data="text"), tmp_path / "refused")
    config = replace(TINY, data="text", d_vocab=14, n_layers=2, measure_every=10)
    numbers = experiment.run(config, tmp_path / "run").numbers
    assert numbers["curves"]["copy_loss"][-1] < numbers["curves"]["copy_loss"][0]
    assert 0 < numbers["order_free_loss"] < np.log(14)


def test_runs_made_before_the_text_are_found_again(tmp_path: Path):
    assert config_hash(DEFAULT) == OLD_HASH
    assert config_hash(replace(DEFAULT, data="text")) != OLD_HASH
    old = {k: v for k, v in vars(DEFAULT).items() if k != "data"}
    report.save_results(
        tmp_path / "a.json",
        report.ExperimentResults(
            "induction_heads",
            "default",
            old,
            "",
            {},
            (0,),
            (),
            {"runs": [{"config": old, "numbers": {"a": 1}}]},
        ),
    )
    assert known_runs(experiment, tmp_path / "a.json") == {OLD_HASH: {"a": 1}}
