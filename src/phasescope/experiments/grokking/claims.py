"""Claims C1, C2, C4, C8 to C11, C16, C17 and C20, with their rules of decision.

The rules were fixed before any seed of them was run. A claim compares settings that differ in
nothing but what it names; seeds of the two are paired. Times are compared by the binary logarithm
of their ratio: 1 is twice as long. The noise floor is that of GELU-new against GELU-fast, which are
one function up to rounding. A run that has not memorised or grokked when it ends counts with its
last step: its time is at least that, which makes differences smaller, not larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from phasescope.experiments.evidence import OverSeeds, undecided, with_enough_seeds
from phasescope.experiments.grokking.config import SMOKE, Config, Results
from phasescope.experiments.grokking.spectra_claims import spectra_claims
from phasescope.report import Claim, Verdict

POST = "the post on operations and activations"
ACCURATE = 0.9  # share of the logits' variance along cos w(a + b − c) that counts as the clock
EQUAL = 0.2  # times within 15 % of one another count as equal
SEVERE = 1.0  # twice as long
Seed = tuple[Any, ...]


def claims(results: Sequence[Results]) -> list[Claim]:
    """Verdicts over runs; those of the smoke preset, which are too short to grok, count nowhere."""
    results = [r for r in results if r.config.n_steps > SMOKE.n_steps]
    return [
        _clock(results, "C1", "subtract", "subtraction implements the same Fourier clock"),
        _no_fourier(results),
        _later_operations(results),
        _times(results, "C8", ("gelu", "silu"), _faster, "GELU hastens grokking, SiLU slightly"),
        _times(
            results,
            "C9",
            ("gelu_fast", "gelu_new"),
            _slower,
            "GELU-fast and GELU-new grok slightly later than GELU",
            against="gelu",
        ),
        _times(
            results, "C10", ("solu_ln",), _severely_slower, "LayerNorm delays grokking severely"
        ),
        _memorisation(results),
        _spikes_by_rate(results),
        _drift(results),
        _falling(results),
        *spectra_claims(results),
    ]


def _claim(
    id: str,
    statement: str,
    rule: str,
    found: OverSeeds | None,
    unit: str,
    null: str,
    verdict: Verdict,
    sentence: str,
) -> Claim:
    return Claim(
        id=id,
        statement=statement,
        source=POST,
        rule=rule,
        value=None if found is None else found.mean,
        interval=None if found is None else found.interval,
        unit=unit,
        null=null,
        n_seeds=0 if found is None else found.n_seeds,
        verdict=verdict,
        sentence=sentence,
    )


def _clock(results: Sequence[Results], id: str, operation: str, statement: str) -> Claim:
    rule = (
        f"reproduced if the interval of the share of the logits' variance along cos w(a+b-c), in "
        f"the operation's own coordinates, lies above {ACCURATE}; refuted if below"
    )
    runs = _runs(results, operation=operation, activation="relu")
    if not runs:
        return _claim(id, statement, rule, None, "share", "untrained", "not tested", "Not run.")
    found = OverSeeds.of(runs, lambda r: r.numbers["final_measures"]["cube_fve"])
    control = OverSeeds.of(runs, lambda r: r.numbers["untrained"]["cube_fve"])
    verdict: Verdict = "inconclusive"
    if found.low > ACCURATE:
        verdict = "reproduced"
    elif found.high < ACCURATE:
        verdict = "refuted"
    sentence = f"The clock's waves explain {found} of the logits' variance."
    verdict = with_enough_seeds(verdict, found.n_seeds)
    return _claim(id, statement, rule, found, "share", f"untrained: {control}", verdict, sentence)


def _no_fourier(results: Sequence[Results]) -> Claim:
    statement = "multiplication uses no Fourier algorithm"
    rule = (
        "share of the logits' variance along cos w(a+b-c) in the multiplicative basis: refuted if "
        f"its interval lies above {ACCURATE}, reproduced if below .5; the additive basis, in which "
        "the source looked, is shown beside"
    )
    runs = _runs(results, operation="multiply", activation="relu")
    if not runs:
        return _claim("C2", statement, rule, None, "share", "additive", "not tested", "Not run.")
    found = OverSeeds.of(runs, lambda r: r.numbers["final_measures"]["cube_fve"])
    additive = OverSeeds.of(runs, lambda r: r.numbers["other_basis"]["cube_fve"])
    verdict: Verdict = "inconclusive"
    if found.low > ACCURATE:
        verdict = "refuted"
    elif found.high < 0.5:
        verdict = "reproduced"
    sentence = f"{found} in the multiplicative basis, {additive} in the additive one."
    verdict = with_enough_seeds(verdict, found.n_seeds)
    return _claim("C2", statement, rule, found, "share", f"additive: {additive}", verdict, sentence)


def _later_operations(results: Sequence[Results]) -> Claim:
    statement = "subtraction and multiplication grok later than addition"
    rule = (
        "log2 of the ratio of grokking times to addition's, paired seeds: reproduced if both "
        "intervals lie above 0, refuted if one lies below 0 or within .2 of it"
    )
    ratios = {
        operation: _log_ratios(
            _runs(results, operation=operation, activation="relu"),
            _runs(results, operation="add", activation="relu"),
            "grokked",
        )
        for operation in ("subtract", "multiply")
    }
    return _compared("C4", statement, rule, ratios, _slower, _floor(results))


def _times(
    results: Sequence[Results],
    id: str,
    activations: Sequence[str],
    judge: Callable[[OverSeeds], Verdict],
    statement: str,
    against: str = "relu",
) -> Claim:
    rule = (
        f"log2 of the ratio of grokking times to {against}'s on addition, paired seeds, for "
        f"{' and '.join(activations)}: {(judge.__doc__ or '').rstrip('.').lower()}"
    )
    base = _runs(results, operation="add", activation=against)
    ratios = {
        name: _log_ratios(_runs(results, operation="add", activation=name), base, "grokked")
        for name in activations
    }
    return _compared(id, statement, rule, ratios, judge, _floor(results))


def _memorisation(results: Sequence[Results]) -> Claim:
    statement = "SiLU lengthens memorisation, GELU does not"
    rule = (
        "log2 of the ratio of memorisation times to ReLU's on addition, paired seeds: reproduced "
        "if SiLU's interval lies above 0 and GELU's does not; refuted if SiLU's lies below 0 or "
        "within .2 of it, or if GELU's lies above .2"
    )
    base = _runs(results, operation="add", activation="relu")
    ratios = {
        name: _log_ratios(_runs(results, operation="add", activation=name), base, "memorised")
        for name in ("silu", "gelu")
    }
    silu, gelu = ratios["silu"], ratios["gelu"]
    if silu is None or gelu is None:
        return _claim("C11", statement, rule, None, "log2", "-", "not tested", "Not run.")
    verdict: Verdict = "inconclusive"
    if silu.low > 0 and gelu.low <= 0:
        verdict = "reproduced"
    elif _slower(silu) == "refuted" or gelu.low > EQUAL:
        verdict = "refuted"
    n = min(silu.n_seeds, gelu.n_seeds)
    sentence = f"SiLU {silu}, GELU {gelu}."
    null = _floor(results, "memorised")
    return _claim(
        "C11", statement, rule, silu, "log2", null, with_enough_seeds(verdict, n), sentence
    )


def _spikes_by_rate(results: Sequence[Results]) -> Claim:
    statement = "smaller learning rates give more, larger ones fewer spikes"
    rule = (
        "spikes of the training loss, up and down, at learning rate 5e-4 less those at 5e-3, "
        "paired seeds, ReLU on addition: reproduced if the interval lies above 0, refuted if below"
    )
    few = {_seed(r): r for r in _runs(results, operation="add", learning_rate=5e-3)}
    differences = [
        float(_n_spikes(r) - _n_spikes(few[_seed(r)]))
        for r in _runs(results, operation="add", learning_rate=5e-4)
        if _seed(r) in few
    ]
    return _signed("C16", statement, rule, differences, "spikes per run", "5e-3")


def _drift(results: Sequence[Results]) -> Claim:
    statement = "after each spike the training loss rises steadily"
    rule = (
        "median slope of log10 training loss behind upward spikes less that of quiet stretches of "
        "the same run: reproduced if the interval lies above 0, refuted if below"
    )
    pairs = [
        (spikes["drift"], spikes["drift_control"])
        for r in _runs(results, operation="add", activation="relu")
        for spikes in [r.numbers["spikes"]["train_loss_up"]]
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    unit = "decades per 1,000 steps"
    return _signed("C17", statement, rule, differences, unit, "quiet stretches")


def _falling(results: Sequence[Results]) -> Claim:
    statement = "is there an optimizer set-up whose training loss only goes down?"
    rule = "share of steps on which the training loss falls; the setting with the largest mean"
    groups: dict[Seed, list[Results]] = {}
    for result in results:
        groups.setdefault(_without_seed(result.config), []).append(result)
    over = [
        (OverSeeds.of(runs, lambda r: r.numbers["falling_share"]), runs[0].config)
        for runs in groups.values()
        if runs
    ]
    if not over:
        return _claim("C20", statement, rule, None, "share", "walk: .5", "not tested", "Not run.")
    found, config = max(over, key=lambda pair: pair[0].mean)
    sentence = (
        f"At most {found} of the steps, with {config.optimizer} at {config.learning_rate:g}, "
        f"among {len(over)} settings."
    )
    verdict = with_enough_seeds("answered", found.n_seeds)
    return _claim("C20", statement, rule, found, "share", "walk: .5", verdict, sentence)


def _faster(found: OverSeeds) -> Verdict:
    """Reproduced if every interval lies below 0, refuted if one lies above 0 or within .2 of it."""
    if found.high < 0:
        return "reproduced"
    return "refuted" if found.low > 0 or _near_zero(found) else "inconclusive"


def _slower(found: OverSeeds) -> Verdict:
    """Reproduced if every interval lies above 0, refuted if one lies below 0 or within .2 of it."""
    if found.low > 0:
        return "reproduced"
    return "refuted" if found.high < 0 or _near_zero(found) else "inconclusive"


def _severely_slower(found: OverSeeds) -> Verdict:
    """Reproduced if the interval lies above 1 (twice as long), refuted if it lies below 1."""
    if found.low > SEVERE:
        return "reproduced"
    return "refuted" if found.high < SEVERE else "inconclusive"


def _near_zero(found: OverSeeds) -> bool:
    return found.low > -EQUAL and found.high < EQUAL


def _compared(
    id: str,
    statement: str,
    rule: str,
    ratios: dict[str, OverSeeds | None],
    judge: Callable[[OverSeeds], Verdict],
    null: str,
) -> Claim:
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if len(known) < len(ratios):
        return _claim(id, statement, rule, None, "log2", null, "not tested", "Not run.")
    verdicts = [judge(ratio) for ratio in known.values()]
    verdict: Verdict = "inconclusive"
    if "refuted" in verdicts:
        verdict = "refuted"
    elif set(verdicts) == {"reproduced"}:
        verdict = "reproduced"
    n = min(ratio.n_seeds for ratio in known.values())
    sentence = "; ".join(f"{name} {ratio}" for name, ratio in known.items()) + "."
    first = next(iter(known.values()))
    return _claim(id, statement, rule, first, "log2", null, with_enough_seeds(verdict, n), sentence)


def _signed(
    id: str, statement: str, rule: str, differences: list[float], unit: str, control: str
) -> Claim:
    if not differences:
        return _claim(id, statement, rule, None, unit, control, "not tested", "Not run.")
    found = OverSeeds(differences)
    verdict: Verdict = undecided(found.n_seeds)
    if found.interval is not None and (found.low > 0 or found.high < 0):
        verdict = with_enough_seeds("reproduced" if found.low > 0 else "refuted", found.n_seeds)
    sentence = f"The difference is {found}."
    return _claim(id, statement, rule, found, unit, f"against {control}", verdict, sentence)


def _floor(results: Sequence[Results], event: str = "grokked") -> str:
    new, fast = (_runs(results, operation="add", activation=f"gelu_{x}") for x in ("new", "fast"))
    floor = _log_ratios(new, fast, event)
    return f"GELU-new against GELU-fast: {'not run' if floor is None else floor}"


def _runs(results: Sequence[Results], **wanted: Any) -> list[Results]:
    """Runs that have the wanted fields, and in all others the setting that most runs have."""
    fixed = {"activation": "relu", "optimizer": "adamw", "learning_rate": 1e-3, "eps": 1e-8}
    fixed |= {"beta2": 0.98, "loss_dtype": "float64", "reject_rises": False, "decay_on_rise": 1.0}
    kept = fixed | wanted
    chosen = [r for r in results if all(getattr(r.config, k) == v for k, v in kept.items())]
    sizes = {(r.config.p, r.config.d_model, r.config.n_layers) for r in chosen}
    if len(sizes) < 2:
        return chosen
    largest = max(sizes, key=lambda size: sum(_size(r.config) == size for r in chosen))
    return [r for r in chosen if _size(r.config) == largest]


def _size(config: Config) -> tuple[int, int, int]:
    return config.p, config.d_model, config.n_layers


def _log_ratios(ours: list[Results], others: list[Results], event: str) -> OverSeeds | None:
    paired = {_seed(r): r for r in others}
    ratios = [
        math.log2(_time(r, event) / _time(paired[_seed(r)], event))
        for r in ours
        if _seed(r) in paired
    ]
    return OverSeeds(ratios) if ratios else None


def _time(result: Results, event: str) -> float:
    step = result.numbers["times"][event]
    return max(1.0, float(result.config.n_steps if step is None else step))


def _n_spikes(result: Results) -> int:
    kinds = ("train_loss_up", "train_loss_down")
    return sum(len(result.numbers["spikes"][kind]["peak"]) for kind in kinds)


def _seed(result: Results) -> Seed:
    return result.config.seed, result.config.data_seed, *_size(result.config)


def _without_seed(config: Config) -> Seed:
    fields = asdict(config)
    return tuple(value for name, value in fields.items() if name not in ("seed", "data_seed"))
