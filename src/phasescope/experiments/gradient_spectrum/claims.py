"""Decision rules and verdicts of A1-A5 and A7; the rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

import phasescope as ps
from phasescope.experiments.evidence import MIN_SEEDS, OverSeeds, undecided
from phasescope.experiments.gradient_spectrum.config import (
    DEFAULT,
    PRESETS,
    SOURCE,
    Results,
    count_in_samples,
    group_by_setting,
    sample_size,
    setting,
)
from phasescope.report import Claim, Verdict

PUBLISHED = (92.5 - 11.6, 92.5 + 11.6)
PUBLISHED_15 = (30.0, 50.0)  # "about 40", taken as within a quarter
PUBLISHED_05 = (150.0, 250.0)  # "about 200"
NO_GAP = 1.25  # largest ratio of neighbours between 5% and 15% of the largest
LOW_RESIDUAL = 0.32  # residual norm / step norm: a tenth of the squared norm is missed
LITTLE_CHANGE = 0.05  # of the same, from 300 to 400 sampled steps

Statistic = Callable[[Results], float]


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; only runs on MNIST count towards a verdict.

    Args:
        results: Runs of one or more settings and seeds.
    """
    settings = group_by_setting(results)
    return [rule(settings) for rule in (_a1, _a2, _a3, _a4, _a5, _a7)]


Settings = dict[str, list[Results]]


def _n_mnist(runs: Sequence[Results]) -> int:
    """Seeds of a setting that count towards a verdict: those on MNIST."""
    return sum(r.numbers["dataset"] == "mnist" for r in runs)


def _decide(settings: Settings, holding: Sequence[str]) -> tuple[int, Verdict]:
    """Seeds and verdict of a statement that one setting reproduces and all together refute.

    A setting that holds reproduces it if it has the seeds; none holding refutes it only if every
    setting has them.
    """
    counting = {name: _n_mnist(runs) for name, runs in settings.items()}
    deciding = max((counting[name] for name in holding), default=0)
    if deciding >= MIN_SEEDS:
        return deciding, "reproduced"
    fewest = min(counting.values())
    complete = set(settings) >= {setting(config) for config in PRESETS["paper"]}
    if fewest >= MIN_SEEDS and complete:
        return fewest, "refuted"
    return min(len(runs) for runs in settings.values()), undecided(fewest)


def _answer(settings: Settings) -> tuple[int, Verdict]:
    """Seeds and verdict of a question, by the setting that is shown."""
    runs = settings[_shown(settings)]
    counting = _n_mnist(runs)
    return len(runs), "answered" if counting >= MIN_SEEDS else undecided(counting)


def _share(holding: Sequence[str], settings: Settings) -> str:
    """How many settings meet something, and with how many seeds if not all have the same."""
    seeds = [len(runs) for runs in settings.values()]
    if not any(_n_mnist(runs) for runs in settings.values()):
        return (
            "Not MNIST, so no verdict whatever the seeds; for what it is worth, here "
            f"{len(holding)} of {len(settings)} settings meet"
        )
    unequal = f" (with {min(seeds)} to {max(seeds)} seeds)" if len(set(seeds)) > 1 else ""
    return f"{len(holding)} of {len(settings)} settings{unequal} meet"


def _shown(settings: Settings) -> str:
    """The setting whose numbers questions report: the default's, if it was run."""
    default = setting(DEFAULT)
    return default if default in settings else next(iter(settings))


def _each(settings: Settings, statistic: Statistic) -> dict[str, OverSeeds]:
    return {name: OverSeeds.of(runs, statistic) for name, runs in settings.items()}


def _span(measured: dict[str, OverSeeds]) -> str:
    """Smallest and largest mean over the settings; the measurement itself if there is one."""
    means = [m.mean for m in measured.values()]
    if len(means) == 1:
        return str(next(iter(measured.values())))
    return f"{min(means):.3g} to {max(means):.3g}"


def _across(measured: dict[str, OverSeeds]) -> str:
    """The same in brackets, where there are several settings."""
    return f" (over the settings {_span(measured)})" if len(measured) > 1 else ""


def _a1(settings: Settings) -> Claim:
    counts = _each(settings, count_in_samples)
    nulls = _each(settings, lambda r: count_in_samples(r, null=True))
    meeting = [name for name, m in counts.items() if m.meets(*PUBLISHED)]
    best = min(counts, key=lambda name: abs(counts[name].mean - 92.5))
    runs = settings[best]
    sampled = sample_size(runs[0])
    n_seeds, verdict = _decide(settings, meeting)
    return Claim(
        id="A1",
        statement="2 epochs of MNIST, 400 sampled steps: 92.5 ± 11.6 singular values exceed 10% "
        "of the largest",
        source=SOURCE,
        rule="Mean over 10 random samplings of 400 steps, per run; reproduced if the 95% "
        "interval of its mean over seeds meets [80.9, 104.1] in at least one setting of the "
        "grid, refuted if in none.",
        value=counts[best].mean,
        interval=counts[best].interval,
        unit=f"singular values ({best})",
        null=f"norm-only null of the same samples: {nulls[best]}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"{_share(meeting, settings)} the published interval; the mean count is "
        f"{_span(counts)}, that of the norms alone {_span(nulls)}. In the setting shown it is "
        f"{100 * counts[best].mean / sampled:.0f}% of "
        f"the {sampled} sampled steps and "
        f"{100 * counts[best].mean / runs[0].numbers['n_steps']:.1f}% of all steps, which the "
        "source divided by though they were not in its matrix.",
    )


def _a2(settings: Settings) -> Claim:
    at_15 = _each(settings, lambda r: count_in_samples(r, 0.15))
    at_05 = _each(settings, lambda r: count_in_samples(r, 0.05))
    null_15 = _each(settings, lambda r: count_in_samples(r, 0.15, null=True))
    null_05 = _each(settings, lambda r: count_in_samples(r, 0.05, null=True))
    gaps = _each(settings, _mean_gap)
    meeting = [
        name
        for name in settings
        if at_15[name].meets(*PUBLISHED_15)
        and at_05[name].meets(*PUBLISHED_05)
        and gaps[name].high < NO_GAP
    ]
    best = min(
        settings, key=lambda n: abs(at_15[n].mean - 40) / 40 + abs(at_05[n].mean - 200) / 200
    )
    n_seeds, verdict = _decide(settings, meeting)
    return Claim(
        id="A2",
        statement="about 40 singular values exceed 15% and 200 exceed 5%; no gap in the spectrum",
        source=SOURCE,
        rule="Reproduced if in at least one setting of the grid the 95% intervals of the mean "
        "counts of 400 random steps meet [30, 50] at 15% and [150, 250] at 5%, and the largest "
        "ratio of neighbours between 5% and 15% of the largest stays below 1.25 (upper end of "
        "its interval).",
        value=at_15[best].mean,
        interval=at_15[best].interval,
        unit=f"singular values above 15% ({best})",
        null=f"norm-only null: {null_15[best]} above 15%, {null_05[best]} above 5%",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"{_share(meeting, settings)} all three conditions; in the "
        f"setting shown {at_15[best]} exceed 15%, {at_05[best]} exceed 5%, and the largest ratio "
        f"of neighbours is {gaps[best]}{_across(gaps)}.",
    )


def _mean_gap(result: Results) -> float:
    """Mean over the samples of the largest ratio of neighbours; a lone value counts as 10."""
    draws = result.numbers["samples"][str(sample_size(result))]["random"]
    return float(np.mean([10.0 if d["largest_gap"] is None else d["largest_gap"] for d in draws]))


def _residual(result: Results, n_sampled: int, curve: str = "random steps held out") -> float:
    rows = {
        row["n_sampled"]: row["median"]
        for row in result.numbers["residuals"]
        if row["curve"] == curve
    }
    return rows[min(rows, key=lambda n: abs(n - n_sampled))]


def _a3(settings: Settings) -> Claim:
    at_300 = _each(settings, lambda r: _residual(r, 300))
    change = _each(settings, lambda r: _residual(r, 300) - _residual(r, 400))
    block = _each(settings, lambda r: _residual(r, 300, "last fifth held out"))
    holding = [
        name
        for name in settings
        if at_300[name].high <= LOW_RESIDUAL and change[name].high <= LITTLE_CHANGE
    ]
    best = min(settings, key=lambda name: at_300[name].mean)
    random = OverSeeds.of(settings[best], lambda r: (1 - 300 / r.numbers["n_parameters"]) ** 0.5)
    n_seeds, verdict = _decide(settings, holding)
    return Claim(
        id="A3",
        statement="300 sampled steps suffice: the residual of the other steps is low; 400 changes "
        "little",
        source=SOURCE,
        rule="Median over held-out steps of residual norm / step norm against the span of the "
        "sampled steps; reproduced if in at least one setting of the grid the 95% interval at "
        "300 steps lies below .32 (a tenth of the squared norm) and that of its fall from 300 "
        "to 400 below .05.",
        value=at_300[best].mean,
        interval=at_300[best].interval,
        unit=f"residual norm / step norm ({best})",
        null=f"random 300-dimensional subspace: {random.mean:.3f}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"{_share(holding, settings)} both conditions; the median "
        f"residual at 300 steps is {_span(at_300)}, its fall to 400 steps {_span(change)}; with "
        f"the last fifth of the training held out it is {_span(block)}.",
    )


def _a4(settings: Settings) -> Claim:
    def difference(result: Results) -> float:
        return count_in_samples(result, sampling="even") - count_in_samples(result)

    differences = _each(settings, difference)
    shown = _shown(settings)
    random = OverSeeds.of(settings[shown], count_in_samples)
    n_seeds, verdict = _answer(settings)
    return Claim(
        id="A4",
        statement="random against evenly spaced sampling of the steps",
        source=SOURCE,
        rule="Count above 10% of 400 evenly spaced steps minus the mean count of 10 random "
        "samplings of 400, per run; mean and 95% interval over seeds.",
        value=differences[shown].mean,
        interval=differences[shown].interval,
        unit=f"singular values, even minus random ({shown})",
        null=f"random sampling itself: {random}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"Evenly spaced steps change the count by {differences[shown]}"
        f"{_across(differences)}.",
    )


def _a5(settings: Settings) -> Claim:
    def change(result: Results) -> float:
        return count_in_samples(result, sampling="random_centred") - count_in_samples(result)

    changes = _each(settings, change)
    nulls = _each(
        settings,
        lambda r: (
            count_in_samples(r, sampling="random_centred", null=True)
            - count_in_samples(r, null=True)
        ),
    )
    alignment = _each(settings, lambda r: r.numbers["mean_alignment"])
    shown = _shown(settings)
    n_seeds, verdict = _answer(settings)
    return Claim(
        id="A5",
        statement="what mean subtraction does; is the first component the mean",
        source=SOURCE,
        rule="Change of the count above 10% (400 random steps) by subtracting the mean step, "
        "and |cosine| between the first parameter-side singular vector of all steps and the "
        "mean gradient; means and 95% intervals over seeds.",
        value=changes[shown].mean,
        interval=changes[shown].interval,
        unit=f"singular values, centred minus raw ({shown})",
        null=f"the same for the norm-only null: {nulls[shown]}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"Centring changes the count by {changes[shown]}"
        f"{_across(changes)}; the first component has |cosine| {alignment[shown]} with the mean "
        f"gradient{_across(alignment)}.",
    )


def _without_early(result: Results, key: str) -> float:
    """Count of all steps but the first 200, over the count of all steps."""
    rows = {r["first_step"]: r[key][1] for r in result.numbers["dropped"]}
    return rows[max(t for t in rows if t <= 200)] / rows[0]


def _a7(settings: Settings) -> Claim:
    ratios = _each(settings, lambda r: _without_early(r, "counts"))
    nulls = _each(settings, lambda r: _without_early(r, "null_counts"))
    shown = _shown(settings)
    planted = planted_counts()
    n_seeds, verdict = _answer(settings)
    return Claim(
        id="A7",
        statement="is the low-dimensional space just the space of early updates (drop the first "
        "steps)",
        source=SOURCE,
        rule="Count above 10% of all steps but the first 200, divided by the count of all "
        "steps; mean and 95% interval over seeds. If early steps were the space, the rest would "
        "need few directions.",
        value=ratios[shown].mean,
        interval=ratios[shown].interval,
        unit=f"count without the first 200 steps / count ({shown})",
        null=f"the same for the norm-only null: {nulls[shown]}",
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=f"Without the first 200 steps the count changes by a factor {ratios[shown]}"
        f"{_across(ratios)}. The planted updates e_n/n, which are all 'early', "
        f"count {planted[0]} with all steps, {planted[10]} without the first 10 and "
        f"{planted[50]} without the first 50: dropping large early steps raises the count by "
        "itself.",
    )


def planted_counts(n_steps: int = 1000) -> dict[int, int]:
    """Counts above 10% of the planted updates ``e_n / n``, n = 1, 2, …, without the first t0.

    Orthogonal updates that differ in nothing but their decaying norm: the singular values are 1/n,
    of which 9 exceed a tenth of the first (the tenth equals it), and 10 (t0 + 1) - 1 - t0 exceed a
    tenth of the largest that is left without the first t0. The norm null gives the same. Keys: t0.
    """
    gram = ps.gram(torch.diag(1 / torch.arange(1, n_steps + 1, dtype=torch.float64)))
    return {
        first: ps.count_above(
            ps.spectrum(gram, steps=slice(first, None), time_vectors=False).S, 0.1
        )
        for first in (0, 10, 50)
    }
