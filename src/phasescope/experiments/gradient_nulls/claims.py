"""Decision rules and verdicts of A6, A8 and A16; the rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phasescope.experiments.evidence import MIN_SEEDS, OverSeeds, undecided
from phasescope.experiments.gradient_nulls.config import (
    DECIDING,
    DECIDING_SETTINGS,
    OTHERS,
    PLACES,
    SOURCE,
    Results,
    group_by_setting,
    setting,
)
from phasescope.report import Claim, Verdict

SMALL = 0.5  # of the null's count: the most that "a small fraction" can mean
_PLANTED = setting(OTHERS[-1])
_CENTRED = "gradients and weights"

Settings = dict[str, list[Results]]
Statistic = Callable[[Results], float]


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; only runs on MNIST count towards a verdict.

    Args:
        results: Runs of one or more settings and seeds.
    """
    settings = group_by_setting(results)
    return [_a6(settings), _a8(settings), _a16(settings)]


def flip_ratio(result: Results, place: str | None = None) -> float:
    """Components of the training above random signs, over those of frozen weights.

    Args:
        result: A run.
        place: Where the weights were frozen; None for the place with the fewest components.
    """
    nulls = result.numbers["nulls"]
    places = PLACES if place is None else (place,)
    fewest = min(nulls[name][DECIDING]["flip_count"] for name in places)
    return nulls["training"][DECIDING]["flip_count"] / max(1, fewest)


def matched_ratio(result: Results, variant: str = "raw") -> float:
    """Count above 10% over the least of frozen gradients that have the same norms."""
    nulls = result.numbers["nulls"]
    fewest = min(nulls[place][variant]["matched_count"] for place in PLACES)
    return nulls["training"][variant]["count"] / max(1.0, fewest)


def norm_ratio(result: Results, variant: str = "raw") -> float:
    """Count above 10% over that of the norms alone."""
    row = result.numbers["nulls"]["training"][variant]
    return row["count"] / max(1, row["norm_null"])


def deciding_settings(settings: Settings) -> Settings:
    """The settings that decide A6 and A16; where none was run, the first that was."""
    wanted = [setting(config) for config in DECIDING_SETTINGS]
    found = {name: settings[name] for name in wanted if name in settings}
    return found or dict([next(iter(settings.items()))])


def _fewest_seeds(settings: Settings, wanted: Sequence[str]) -> int:
    """Seeds that every wanted setting has."""
    return min(len(settings.get(name, ())) for name in wanted)


def _a6(settings: Settings) -> Claim:
    shown = deciding_settings(settings)
    ratios = {name: OverSeeds.of(runs, flip_ratio) for name, runs in shown.items()}
    holding = [name for name, ratio in ratios.items() if ratio.high <= SMALL]
    failing = [name for name, ratio in ratios.items() if ratio.low > SMALL]
    wanted = [setting(config) for config in DECIDING_SETTINGS]
    n_seeds = _fewest_seeds(settings, wanted)
    enough = [name for name in holding if name in wanted and len(shown[name]) >= MIN_SEEDS]
    verdict: Verdict = undecided(n_seeds)
    if enough:
        verdict, n_seeds = "reproduced", min(len(shown[name]) for name in enough)
    elif n_seeds >= MIN_SEEDS and len(failing) == len(wanted):
        verdict = "refuted"
    best = min(ratios, key=lambda name: ratios[name].mean)
    runs = shown[best]
    places = ", ".join(
        f"{place} {OverSeeds.of(runs, lambda r, p=place: _flips(r, p))}" for place in PLACES
    )
    return Claim(
        id="A6",
        statement="the count is a small fraction of what 'nothing going on' gives",
        source=SOURCE,
        rule="FlipPA count (edge rule, 19 copies, no deflation, mean subtracted before flipping) "
        "of 400 gradients of the training, scaled to norm one and centred over steps, over the "
        "smallest of the three counts of 400 gradients at weights frozen at initialisation, middle "
        "and end; reproduced if the 95% interval of the mean over seeds ends below 1/2 in at least "
        "one of the three settings, refuted if it begins above 1/2 in each, else inconclusive. "
        "Counts above 10%, norms alone, other centrings are shown and do not decide.",
        value=ratios[best].mean,
        interval=ratios[best].interval,
        unit=f"count of the training / count at frozen weights ({best})",
        null=f"components at frozen weights: {places}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"{OverSeeds.of(runs, lambda r: _flips(r, 'training'))} components of the "
        f"training stand above random signs. {len(holding)} of {len(ratios)} settings lie below "
        f"1/2, {len(failing)} above; the ratio is {_listed(ratios)}. The source's own count above "
        f"10% is {_listed(_each(shown, norm_ratio))} of that of the norms alone; centred, it is "
        f"{_listed(_each(shown, lambda r: matched_ratio(r, 'centred')))} of that of gradients at "
        "frozen weights with the same norms.",
    )


def _flips(result: Results, place: str) -> float:
    return float(result.numbers["nulls"][place][DECIDING]["flip_count"])


def _each(settings: Settings, statistic: Statistic) -> dict[str, OverSeeds]:
    return {name: OverSeeds.of(runs, statistic) for name, runs in settings.items()}


def _listed(measured: dict[str, OverSeeds]) -> str:
    """Every setting's mean and interval; the name only where there are several."""
    if len(measured) == 1:
        return str(next(iter(measured.values())))
    return "; ".join(f"{name} {value}" for name, value in measured.items())


def _a8(settings: Settings) -> Claim:
    others = {setting(config) for config in OTHERS} - {_PLANTED}
    run = {name: runs for name, runs in settings.items() if name in others}
    norm, flips = _each(settings, norm_ratio), _each(settings, flip_ratio)
    frozen = _each(settings, lambda r: matched_ratio(r, "centred"))
    complete = [*others, _PLANTED, setting(DECIDING_SETTINGS[1])]
    n_seeds = _fewest_seeds(settings, complete)
    means = None
    if n_seeds:
        per_seed = zip(*([norm_ratio(r) for r in runs] for runs in run.values()), strict=False)
        means = OverSeeds([sum(row) / len(row) for row in per_seed])
    low = [name for name, ratio in norm.items() if ratio.high <= SMALL]

    def shown(measured: dict[str, OverSeeds]) -> dict[str, OverSeeds]:
        return {name: measured[name] for name in run} or measured

    made = [name for name, ratio in frozen.items() if ratio.high < 1]
    return Claim(
        id="A8",
        statement="other optimisation processes (quadratic, logistic regression, low-rank "
        "factorisation, modular addition): property of optimisation or of this one",
        source=SOURCE,
        rule="Count above 10% of 400 steps over that of the norms alone, mean over the four "
        "processes that are neither MNIST's network nor planted, per seed; mean and 95% interval "
        "over seeds. Few values are a property of optimisation if the ratio is small in all, and "
        "made by the training where the centred count lies below that of norm-matched gradients at "
        "frozen weights (the interval of the ratio to the least of the three places ends below 1).",
        value=None if means is None else means.mean,
        interval=None if means is None else means.interval,
        unit="count above 10% / that of the norms (mean of four processes)",
        null=f"MNIST's network: {norm.get(setting(DECIDING_SETTINGS[1]), 'not run')}; "
        f"planted e_n/n: {norm.get(_PLANTED, 'not run')}",
        n_seeds=n_seeds,
        verdict="answered" if n_seeds >= MIN_SEEDS else undecided(n_seeds),
        sentence=f"Count over that of the norms: {_listed(shown(norm))}; at most 1/2 in "
        f"{len(low)} of {len(norm)} settings. Centred, it is below that of norm-matched gradients "
        f"at frozen weights in {len(made)} of {len(frozen)}. Components above random signs over "
        f"those at frozen weights: {_listed(shown(flips))}.",
    )


def _a16(settings: Settings) -> Claim:
    shown = deciding_settings(settings)
    default = setting(DECIDING_SETTINGS[1])
    name = default if default in shown else next(iter(shown))
    wanted = [setting(config) for config in DECIDING_SETTINGS]
    n_seeds = _fewest_seeds(settings, wanted)
    overlap = {pair: _each(shown, _overlap_of(pair)) for pair in _PAIRS}
    counts = "; ".join(
        f"{series} {OverSeeds.of(shown[name], _count_of(series))}"
        for series in ("gradients", "updates", "increments", "weights")
    )
    walk = OverSeeds.of(
        shown[name], lambda r: r.numbers["series"]["rows"]["weights"]["walk"]["centred"]["count"]
    )
    return Claim(
        id="A16",
        statement="SVD on gradients against SVD on weights, updates, increments: do they say the "
        "same",
        source=SOURCE,
        rule="Share of the 10 leading parameter directions of the weights (400 steps, centred) "
        "that lies in the 10 leading directions of the gradients of the same steps, beside that of "
        "two halves of the gradients; mean and 95% interval over seeds.",
        value=overlap[_CENTRED][name].mean,
        interval=overlap[_CENTRED][name].interval,
        unit=f"overlap of 10 directions, gradients and weights ({name})",
        null=f"two halves of the gradients: {overlap[_PAIRS[-1]][name]}; random directions: "
        f"{OverSeeds.of(shown[name], _overlap_of('random directions'))}",
        n_seeds=n_seeds,
        verdict="answered" if n_seeds >= MIN_SEEDS else undecided(n_seeds),
        sentence=f"Counts above 10% of the same steps, centred ({name}): {counts}, where random "
        f"walks of the same updates have {walk}. Overlaps there: "
        + "; ".join(f"{pair} {values[name]}" for pair, values in overlap.items())
        + f". Gradients and weights elsewhere: {_listed(overlap[_CENTRED])}.",
    )


_PAIRS = (
    _CENTRED,
    "gradients and updates",
    "gradients and increments",
    "increments and weights",
    "two halves of the gradients",
)


def _overlap_of(pair: str) -> Statistic:
    return lambda result: result.numbers["series"]["overlaps"][pair]


def _count_of(series: str) -> Statistic:
    return lambda result: float(result.numbers["series"]["rows"][series]["centred"]["count"])
