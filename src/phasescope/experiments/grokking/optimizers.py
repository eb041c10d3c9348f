"""Rules of the claims about optimizers and sizes, C16 to C21, fixed before any seed of them ran."""

from __future__ import annotations

from typing import Any

from phasescope.experiments.evidence import (
    MIN_SEEDS,
    OverSeeds,
    undecided,
    with_enough_seeds,
)
from phasescope.experiments.grokking.config import Config, Results, setting
from phasescope.experiments.grokking.evidence import (
    NONE,
    NOT_RUN,
    Evidence,
    Part,
    above,
    below,
    claim,
    number,
    parts_claim,
    without_seed,
)
from phasescope.experiments.grokking.operations import ACCURATE
from phasescope.report import Claim, Verdict
from phasescope.report.claims import SEEDS_TO_TEST

RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # of plain gradient descent
EPSILONS = (1e-12, 1e-8, 1e-4)
BETAS = (0.98, 0.999)
SIZE_FIELDS = ("p", "d_model", "d_mlp", "n_layers", "n_heads")
MOSTLY = 0.8  # share of a setting's seeds that must show the result
DECAY = 1.0001


def optimizer_claims(evidence: Evidence) -> list[Claim]:
    """C16 to C21."""
    rules = (_spikes_by_rate, _drift, _epsilon, _descent, _falling, _sizes)
    return [rule(evidence) for rule in rules]


def _spikes_by_rate(e: Evidence) -> Claim:
    statement = "smaller learning rates give more, larger ones fewer spikes"
    rule = (
        "spikes of the training loss, up and down, at learning rate 5e-4 less those at 5e-3, "
        "paired seeds, ReLU on addition: reproduced if the interval lies above 0, refuted if below"
    )
    found = e.paired(e.runs(learning_rate=5e-4), e.runs(learning_rate=5e-3), _n_spikes)
    rates = (5e-4, 8e-4, 1e-3, 5e-3)
    counts = {rate: e.over(e.runs(learning_rate=rate), _n_spikes) or NONE for rate in rates}
    told = ", ".join(f"{rate:g}: {count}" for rate, count in counts.items())
    return _signed("C16", statement, rule, found, "spikes per run", f"per rate {told}")


def _drift(e: Evidence) -> Claim:
    statement = "after each spike the training loss rises steadily"
    rule = (
        "median slope of log10 training loss behind upward spikes less that of quiet stretches of "
        "the same run: reproduced if the interval lies above 0, refuted if below"
    )

    def difference(result: Results) -> float | None:
        return _less(result, ("spikes", "train_loss_up"), "drift", "drift_control")

    runs = e.runs()
    unit, null = "decades per 1,000 steps", "against quiet stretches"
    missing = f"None of {len(runs)} seeds has an upward spike and a stretch behind it."
    found = e.over(runs, difference)
    return _signed("C17", statement, rule, found, unit, null, missing if runs else NOT_RUN)


def _epsilon(e: Evidence) -> Claim:
    statement = "do spikes start when the gradient reaches the scale of ε, or by float32 rounding?"
    rule = (
        "answered by the share of parameters with √v̂ below ε in the 10 steps before upward spikes "
        "of the training loss less that in quiet steps after memorisation, ReLU on addition; "
        "beside it upward spikes per run with ε at 1e-12, 1e-8, 1e-4, with β₂ at .98, .999, and "
        "with the loss in float32. If ε made the spikes, they would vanish with it small"
    )

    def difference(result: Results) -> float | None:
        return _less(result, ("scales", "share_below_epsilon"), "before_spikes", "quiet")

    def ratio(result: Results) -> float | None:
        root = number(result, "scales", "root_second_moment", "before_spikes")
        return None if root is None else root / result.config.eps

    found = e.over(e.runs(), difference)
    counts = {f"ε {eps:g}": e.over(e.runs(eps=eps), _n_upward) for eps in EPSILONS}
    counts |= {f"β₂ {beta:g}": e.over(e.runs(beta2=beta), _n_upward) for beta in BETAS}
    counts |= {"float32": e.over(e.runs(loss_dtype="float32"), _n_upward)}
    told = ", ".join(f"{name}: {count or 'not run'}" for name, count in counts.items())
    null = f"upward spikes per run, {told}"
    if found is None:
        sentence = "No spike was recorded with its scales."
        return claim("C18", statement, rule, None, "share", null, "not tested", sentence)
    smallest = e.paired(e.runs(eps=1e-12), e.runs(), _n_upward)
    single = e.paired(e.runs(loss_dtype="float32"), e.runs(), _n_upward)
    sentence = (
        f"Before spikes {found} more of the parameters are below ε than in quiet steps; the median "
        f"√v̂ is {e.over(e.runs(), ratio)} ε. Upward spikes with ε 1e-12 less those with 1e-8: "
        f"{smallest or 'not run'}; with the loss in float32 less float64: {single or 'not run'}."
    )
    n = min(x.n_seeds for x in (found, smallest, single) if x is not None)
    verdict: Verdict = with_enough_seeds("answered", n)
    if smallest is None or single is None:
        verdict = undecided(n)
    return claim("C18", statement, rule, found, "share", null, verdict, sentence, n)


def _descent(e: Evidence) -> Claim:
    statement = (
        "plain gradient descent (1e-2 to 1e-5) does not converge; a learning rate divided by "
        "1.0001 at every rise gives a downward path; rejecting rises removes spikes"
    )
    rule = (
        "ReLU on addition. Share of seeds that gradient descent lets memorise, below .5 at each of "
        "four rates, without weight decay, in as many steps as AdamW has; share of "
        "falling steps with the decay less without, AdamW, paired seeds, above 0; upward spikes of "
        "the training loss with rejection less without, AdamW, paired seeds, below 0, and less "
        "than 1 per run. Reproduced if all intervals lie there, refuted if one lies on the other "
        "side"
    )
    parts: list[Part] = []
    for rate in RATES:
        runs = e.runs(optimizer="sgd", learning_rate=rate, weight_decay=0.0)
        parts.append(below(f"descent {rate:g}", e.over(runs, _memorises), 0.5))
    slowed, rejected = e.runs(decay_on_rise=DECAY), e.runs(reject_rises=True)
    falling = e.paired(slowed, e.runs(), lambda r: number(r, "falling_share"))
    parts += [
        above("falling steps", falling),
        below("spikes", e.paired(rejected, e.runs(), _n_upward)),
        below("spikes left", e.over(rejected, _n_upward), 1.0),
    ]
    null = (
        f"AdamW lets {e.over(e.runs(), _memorises) or NONE} memorise, "
        f"{e.over(e.runs(), _n_upward) or NONE} spikes"
    )
    return parts_claim("C19", statement, rule, parts, unit="share of seeds", null=null)


def _falling(e: Evidence) -> Claim:
    statement = "is there an optimizer set-up whose training loss only goes down?"
    rule = (
        "share of steps on which the training loss falls; the setting with the largest mean among "
        "those that memorise in at least half of their seeds and have ten, if any has"
    )
    groups: dict[Any, list[Results]] = {}
    for result in e.all:
        groups.setdefault(without_seed(result.config), []).append(result)
    over: list[tuple[OverSeeds, Config]] = []
    for runs in groups.values():
        learned, share = e.over(runs, _memorises), e.over(runs, _falling_share)
        if learned is not None and learned.mean >= 0.5 and share is not None:
            over.append((share, runs[0].config))
    enough = [pair for pair in over if pair[0].n_seeds >= MIN_SEEDS]
    over = enough or over
    if not over:
        return claim("C20", statement, rule, None, "share", "walk: .5", "not tested", NOT_RUN)
    found, config = max(over, key=lambda pair: pair[0].mean)
    sentence = (
        f"At most {found} of the steps, with {config.optimizer} at {config.learning_rate:g} "
        f"({setting(config)}), among {len(over)} settings that memorise."
    )
    verdict = with_enough_seeds("answered", found.n_seeds)
    return claim("C20", statement, rule, found, "share", "walk: .5", verdict, sentence)


def _sizes(e: Evidence) -> Claim:
    statement = "results are consistent over initialisations and survive much smaller models"
    rule = (
        "a seed shows the result if it grokks and the clock's waves explain more than "
        f"{ACCURATE} of its logits' variance. Share of seeds that do, ReLU on addition, in every "
        "size (width, depth, modulus) of which 5 seeds were run: reproduced if each share is at "
        f"least {MOSTLY}, refuted if one interval lies below it"
    )
    settings: dict[tuple[Any, ...], dict[str, list[Results]]] = {}
    for result in e.plain():
        size = tuple(getattr(result.config, name) for name in SIZE_FIELDS)
        settings.setdefault(size, {}).setdefault(setting(result.config), []).append(result)
    # Of every size one setting: a seed counts once, and other decays and splits are another matter.
    groups = {size: max(of_size.values(), key=len) for size, of_size in settings.items()}
    shares = {size: e.over(runs, _shows) for size, runs in groups.items()}
    known = {
        size: share
        for size, share in shares.items()
        if share is not None and share.n_seeds >= SEEDS_TO_TEST
    }
    if len(known) < 4:
        sentence = f"{len(known)} sizes were run; the rule asks for the usual one and 3 others."
        return claim("C21", statement, rule, None, "share", "none", "not tested", sentence)
    usual = max(known, key=lambda size: len(groups[size]))
    n = min(share.n_seeds for share in known.values())
    verdict: Verdict = "inconclusive"
    if all(share.mean >= MOSTLY for share in known.values()):
        verdict = "reproduced"
    elif any(share.high < MOSTLY for share in known.values()):
        verdict = "refuted"
    told = "; ".join(
        ", ".join(f"{k} {v}" for k, v in zip(SIZE_FIELDS, size, strict=True)) + f": {share}"
        for size, share in known.items()
    )
    untrained = e.over(groups[usual], lambda r: number(r, "untrained", "cube_fve"))
    null = f"untrained networks: {untrained} of the logits' variance"
    worst = min(known.values(), key=lambda share: share.mean)
    return claim(
        "C21",
        statement,
        rule,
        worst,
        "share of seeds",
        null,
        with_enough_seeds(verdict, n),
        told,
        n,
    )


def _signed(
    id: str,
    statement: str,
    rule: str,
    found: OverSeeds | None,
    unit: str,
    null: str,
    missing: str = NOT_RUN,
) -> Claim:
    if found is None:
        return claim(id, statement, rule, None, unit, null, "not tested", missing)
    verdict: Verdict = undecided(found.n_seeds)
    if found.interval is not None and (found.low > 0 or found.high < 0):
        verdict = with_enough_seeds("reproduced" if found.low > 0 else "refuted", found.n_seeds)
    return claim(id, statement, rule, found, unit, null, verdict, f"The difference is {found}.")


def _less(result: Results, path: tuple[str, ...], first: str, second: str) -> float | None:
    """The difference of two numbers of a run; None where one is missing."""
    a, b = number(result, *path, first), number(result, *path, second)
    return None if a is None or b is None else a - b


def _n_upward(result: Results) -> float | None:
    return number(result, "spikes", "train_loss_up", "n")


def _n_spikes(result: Results) -> float | None:
    counts = [number(result, "spikes", f"train_loss_{way}", "n") for way in ("up", "down")]
    return None if None in counts else sum(c for c in counts if c is not None)


def _falling_share(result: Results) -> float | None:
    return number(result, "falling_share")


def _memorises(result: Results) -> float | None:
    return float(result.numbers["times"]["memorised"] is not None)


def _shows(result: Results) -> float | None:
    fve = number(result, "final_measures", "cube_fve")
    if fve is None:
        return None
    return float(result.numbers["times"]["grokked"] is not None and fve > ACCURATE)
