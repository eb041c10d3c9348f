"""The rules of decision of the grokking claims, on planted numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from figures.captions import check_house_rules
from phasescope.experiments import grokking
from phasescope.experiments.grokking.activations import activation_claims
from phasescope.experiments.grokking.config import SPECTRA_IDS
from phasescope.experiments.grokking.evidence import Evidence
from phasescope.experiments.grokking.operations import operation_claims
from phasescope.experiments.grokking.optimizers import optimizer_claims
from phasescope.experiments.grokking.overview import overview

N_SEEDS = 10
ACTIVATIONS = ("relu", "gelu", "gelu_new", "gelu_fast", "silu", "solu_ln")
FAMILY = ("leaky_relu", "softplus", "elu", "square", "gelu_clipped", "solu", "relu_ln")
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"activation": name} for name in (*ACTIVATIONS, *FAMILY)},
    **{name: {"operation": name} for name in ("subtract", "multiply")},
    **{
        f"{operation} {name}": {"operation": operation, "activation": name}
        for operation in ("subtract", "multiply")
        for name in ("gelu", "silu", "solu_ln")
    },
    "slow": {"learning_rate": 5e-4},
    "fast": {"learning_rate": 5e-3},
    "tiny eps": {"eps": 1e-12},
    "float32": {"loss_dtype": "float32"},
    "decay": {"decay_on_rise": 1.0001},
    "reject": {"reject_rises": True},
    **{
        f"sgd {rate:g}": {"optimizer": "sgd", "learning_rate": rate, "weight_decay": 0.0}
        for rate in (1e-2, 1e-3, 1e-4, 1e-5)
    },
    **{f"width {d}": {"d_model": d} for d in (16, 32, 128)},
}


def numbers(time: float, jitter: float, **changes: Any) -> dict[str, Any]:
    """One run's numbers with no effect in them; `changes` are by group."""

    def group(name: str, **values: Any) -> dict[str, Any]:
        return values | changes.get(name, {})

    spikes = {
        f"{loss}_loss_{way}": group(
            f"{loss}_{way}",
            n=4,
            by_phase={"memorisation": 2, "circuit formation": 1, "after": 1},
            drift=0.2 + jitter,
            drift_control=0.2,
            restricted_change=0.1 + jitter,
            restricted_quiet=0.1,
            restricted_lasting=0.05,
        )
        for loss in ("train", "test")
        for way in ("up", "down")
    }
    names = ("memorisation", "circuit formation", "clean-up", "after")
    bounds = [0, 200, 800, 1000]
    return {
        "times": group("times", memorised=int(time / 10), grokked=int(time)),
        "untrained": {"cube_fve": 1e-4, "mattering": 0.0},
        "final_measures": group("own", cube_fve=0.95, pure_neurons=0.8 + jitter, mattering=0.2),
        "other_basis": group("other", cube_fve=0.02, mattering=0.2),
        "anatomy": group(
            "anatomy",
            constant_share=0.3,
            constant_share_mid=0.3 + jitter,
            rank_W_E=8.0 * 2**jitter,
            head_gini=0.3 + jitter,
            key_height=0.5 + jitter,
            logit_components=[10.0 * 2**jitter],
            leading_term=0.9,
            leading_term_other=0.1,
        ),
        "clean_up": group("clean_up", power_gini_W_E_other=0.2),
        "developments": group(
            "developments",
            **dict.fromkeys(("pattern_fve", "pure_neurons", "rank_W_E", "power_gini_W_E"), jitter),
        ),
        "phases": [
            {"name": name, "start": start, "end": end}
            for name, start, end in zip(names, bounds, [*bounds[1:], None], strict=True)
        ],
        "spikes": spikes,
        "scales": {
            "share_below_epsilon": group("scales", before_spikes=0.1, quiet=0.1 + jitter),
            "root_second_moment": {"before_spikes": 1e-6, "quiet": 1e-6},
        },
        "falling_share": group("falling", share=0.9 + jitter)["share"],
        "key_growth": {
            "fits": [
                {
                    "aicc_difference": difference,
                    "null_difference": -5.0,
                    "rmse_share": 0.02 + jitter,
                    "logistic_rmse_share": 0.05,
                    "decay_share": 0.1,
                }
                for difference in (-3.0, 20.0 + jitter, 30.0, 40.0)
            ]
        },
    }


def planted(
    n_seeds: int = N_SEEDS, effects: dict[str, dict[str, Any]] | None = None, **times: float
) -> list[grokking.Results]:
    """Runs whose times differ by the factors given for each setting, and other numbers by group."""
    generator = np.random.default_rng(0)
    runs = []
    for seed in range(n_seeds):
        base = 2000 * 2 ** generator.normal(0, 0.5)  # seeds vary together: pairing removes it
        for name, fields in SETTINGS.items():
            config = replace(grokking.DEFAULT, seed=seed, **fields)
            time = base * times.get(name, 1.0) * 2 ** generator.normal(0, 0.05)
            jitter = float(generator.normal(0, 0.005))
            found = numbers(time, jitter, **(effects or {}).get(name, {}))
            runs.append(grokking.Results(config, found))
    return runs


def verdicts(runs: list[grokking.Results], rules: Any = None) -> dict[str, str]:
    found = grokking.claims(runs) if rules is None else rules(Evidence(runs))
    return {claim.id: claim.verdict for claim in found}


NEVER: dict[str, Any] = {"times": {"memorised": None, "grokked": None}}
AS_CLAIMED: dict[str, dict[str, Any]] = {
    "relu": {
        "developments": dict.fromkeys(
            ("pattern_fve", "pure_neurons", "rank_W_E", "power_gini_W_E"), 0.3
        ),
        "train_up": {"drift": 0.4},
        "scales": {"before_spikes": 0.6},
    },
    "gelu": {"own": {"pure_neurons": 0.95, "cube_fve": 0.999}, "anatomy": {"rank_W_E": 4.0}},
    "solu_ln": {
        "own": {"pure_neurons": 0.3},
        "anatomy": {"constant_share_mid": 0.7},
        "train_up": {"by_phase": {"after": 5}},
        "test_up": {"by_phase": {"after": 5}, "restricted_change": 0.9},
    },
    "subtract": {
        "anatomy": {"head_gini": 0.6, "rank_W_E": 4.0, "key_height": 0.8},
        "own": {"pure_neurons": 0.95},
    },
    "multiply": {
        "other": {"mattering": 1.0},
        "anatomy": {"constant_share": 0.8, "logit_components": [4.0], "leading_term_other": 0.7},
    },
    "multiply solu_ln": {"own": {"pure_neurons": 0.1}},
    **{
        f"{operation} {name}": {"test_up": {"by_phase": {"memorisation": 5}}}
        for operation in ("subtract", "multiply")
        for name in ("gelu", "silu")
    },
    "slow": {"train_up": {"n": 40}},
    "decay": {"falling": {"share": 0.99}},
    "reject": {"train_up": {"n": 0, "by_phase": {}}},
    **{f"sgd {rate:g}": NEVER for rate in (1e-2, 1e-3, 1e-4, 1e-5)},
}
# The clean-up of subtraction is not faster in any of the planted runs.
REPRODUCED = {f"C{i}" for i in range(1, 22)} - {"C2", "C4", "C11", "C15", "C18", "C20"}


def test_planted_effects_get_their_verdicts():
    runs = planted(effects=AS_CLAIMED, gelu=0.3, silu=0.8, solu_ln=4.0, subtract=1.5, multiply=1.4)
    found = verdicts(runs)
    assert {id for id, verdict in found.items() if verdict == "reproduced"} == REPRODUCED
    assert {found[id] for id in SPECTRA_IDS} == {"not tested"}
    assert found["C2"] == "refuted"  # the clock, in the multiplicative basis
    assert found["C4"] == "refuted"  # later, but with a clean-up as long as addition's
    assert found["C11"] == "refuted"  # memorisation shrinks with the rest
    assert found["C15"] == found["C18"] == found["C20"] == "answered"


def test_without_effects_what_says_there_are_some_is_refuted():
    found = verdicts(planted())
    for id in ("C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C13", "C14", "C19"):
        assert found[id] == "refuted", id
    assert found["C1"] == found["C21"] == "reproduced"
    assert found["C16"] != "reproduced"


def test_slow_silu_lengthens_memorisation_and_hastens_nothing():
    found = verdicts(planted(gelu=0.5, silu=1.5), activation_claims)
    assert found["C8"] == "refuted"
    assert found["C11"] == "reproduced"


def test_silu_as_fast_as_gelu_is_not_slightly():
    assert verdicts(planted(gelu=0.3, silu=0.3), activation_claims)["C8"] == "refuted"
    assert verdicts(planted(gelu=0.3, silu=0.6), activation_claims)["C8"] == "reproduced"


def test_one_part_on_the_other_side_refutes_the_whole():
    changed = AS_CLAIMED | {"subtract": {"anatomy": {"head_gini": 0.1}}}
    assert verdicts(planted(effects=changed), operation_claims)["C5"] == "refuted"
    spiky = AS_CLAIMED | {"reject": {"train_up": {"n": 2, "by_phase": {}}}}
    assert verdicts(planted(effects=spiky), optimizer_claims)["C19"] == "refuted"
    some = AS_CLAIMED | {"sgd 0.01": {}}
    assert verdicts(planted(effects=some), optimizer_claims)["C19"] == "refuted"


def test_small_models_that_do_not_grok_refute_that_results_survive():
    assert verdicts(planted(effects={"width 16": NEVER}), optimizer_claims)["C21"] == "refuted"
    few = [r for r in planted() if r.config.d_model in (grokking.DEFAULT.d_model, 16)]
    claim = next(c for c in grokking.claims(few) if c.id == "C21")
    assert claim.verdict == "not tested"
    assert "2 sizes were run" in claim.sentence


def test_other_settings_of_a_size_do_not_count_among_its_seeds():
    fails = numbers(900.0, 0.0, **NEVER)
    still = [grokking.Results(replace(grokking.DEFAULT, seed=s, weight_decay=0.0), fails)
             for s in range(9)]  # fmt: skip
    runs = planted(effects=AS_CLAIMED)
    given = (runs, [*runs, *still])
    expected, found = (next(c for c in grokking.claims(x) if c.id == "C21") for x in given)
    assert (found.verdict, found.n_seeds) == (expected.verdict, expected.n_seeds)
    assert found.sentence == expected.sentence


@pytest.mark.parametrize(("n_seeds", "most"), [(9, "inconclusive"), (4, "not tested")])
def test_too_few_seeds_give_no_verdict(n_seeds: int, most: str):
    found = verdicts(planted(n_seeds, effects=AS_CLAIMED, gelu=0.3, silu=0.8))
    elsewhere = (*SPECTRA_IDS, "B13")  # planted in test_grokking_spectra and _carriers
    assert {verdict for id, verdict in found.items() if id not in elsewhere} == {most}


def test_without_runs_nothing_is_tested():
    found = grokking.claims([])
    assert {claim.verdict for claim in found} == {"not tested"}
    assert [claim.id for claim in found] == list(grokking.CLAIM_IDS)
    assert all(claim.rule for claim in found)
    assert not any("None" in claim.null + claim.sentence for claim in found)


def test_runs_without_spikes_are_told_from_no_runs():
    calm = AS_CLAIMED | {"relu": {"train_up": {"n": 0, "by_phase": {}, "drift": None}}}
    for runs, told in (
        (planted(effects=calm), f"None of {N_SEEDS} seeds has an upward spike and a stretch"),
        ([], "Not run."),
    ):
        claim = next(c for c in grokking.claims(runs) if c.id == "C17")
        assert claim.verdict == "not tested"
        assert claim.sentence.startswith(told)


def test_the_noise_floor_stands_beside_every_comparison_of_times():
    beside = {claim.id: claim.null for claim in grokking.claims(planted())}
    for id in ("C4", "C8", "C9", "C10", "C11", "C15"):
        assert beside[id].startswith("GELU-new against GELU-fast: ")
        assert "GELU-fast: not run" not in beside[id]


def test_a_batch_counts_as_its_seeds():
    runs = [r for r in planted() if r.config.activation == "relu"]
    batches = []
    for config in {replace(r.config, seed=0) for r in runs}:
        seeds = [r.numbers for r in runs if replace(r.config, seed=0) == config]
        batch = replace(config, n_seeds=len(seeds))
        batches.append(grokking.Results(batch, {"seeds": seeds}))
    ours = {c.id: (c.verdict, c.value, c.n_seeds) for c in grokking.claims(batches)}
    assert ours == {c.id: (c.verdict, c.value, c.n_seeds) for c in grokking.claims(runs)}


def test_what_is_recorded_does_not_part_runs_of_one_setting():
    runs = [grokking.Results(replace(grokking.DEFAULT, seed=s), {}) for s in range(3)]
    other = grokking.Results(replace(grokking.DEFAULT, seed=3, weights_every=7, scales_every=0), {})
    again = grokking.Results(replace(grokking.DEFAULT, seed=1, n_log_spaced=3), {})
    larger = grokking.Results(replace(grokking.DEFAULT, seed=4, p=113), {})
    found = Evidence([*runs, other, again, larger]).runs()
    assert [r.config.seed for r in found] == [0, 1, 2, 3]  # seed 1 once


def test_the_growth_of_key_frequencies_is_answered_beside_its_null():
    found = {c.id: c for c in grokking.claims(planted())}
    law, circuit = found["C22"], found["E12"]
    assert law.verdict == circuit.verdict == "answered"
    assert law.value == 0.75
    assert "Of 40 key frequencies" in law.sentence
    assert law.null == "logistics with the same residuals: 0 [0, 0]"
    assert circuit.value == pytest.approx(0.02, abs=0.01)


def test_the_overview_draws_every_seed_of_every_setting():
    steps = [0, 10, 100, 1000]
    runs = planted(4)
    for result in runs:
        result.numbers["curve"] = {"steps": steps, "test_accuracy": [0.0, 0.1, 0.5, 1.0]}
    found = overview(runs)
    assert list(found) == [
        "Grokking by operation and activation",
        "Grokking by operation and activation, one operation",
        "Times to grok",
        "The clock in both bases",
        "Spikes by optimizer",
    ]
    crossed, apart, times, _, spikes = found.values()
    assert {trace.name for trace in crossed.data} == {"seed", "median over seeds", "grokked"}
    panels = {"relu", "gelu", "silu", "solu_ln"}  # the activations with more than one operation
    assert panels <= {a.text for a in crossed.layout.annotations}
    assert set(FAMILY) <= {a.text for a in apart.layout.annotations}
    check_house_rules(times)
    assert "reject_rises True" in str(spikes.to_json())
    assert overview(runs[:1]) == {}
