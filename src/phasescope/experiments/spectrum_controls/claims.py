"""Decision rules and verdicts of A22 and A23; the rules were committed before the seeds ran."""

from __future__ import annotations

from collections.abc import Sequence

from phasescope.experiments.evidence import OverSeeds, undecided
from phasescope.experiments.spectrum_controls.axes import AXES
from phasescope.experiments.spectrum_controls.config import SOURCE, Results
from phasescope.experiments.spectrum_controls.rules import (
    CRITERIA,
    MIN_SEEDS,
    Judgement,
    judge,
    unchanged,
)
from phasescope.experiments.spectrum_controls.series import Series, all_series
from phasescope.interventions import IntrinsicDimension, intrinsic_dimension
from phasescope.report import Claim, Verdict

_RULE = (
    "Statistic: number of components above sign-flipped copies (FlipPA, edge rule without "
    "deflation, steps normalised and centred) of 200 steps, minus that of 200 gradients at the "
    "frozen initial weights of the same data; its distance from 0 counts, whatever the sign. An "
    "axis falls smoothly to its null if, over seeds, (1) the undisturbed distance is above 0, (2) "
    "its rank correlation with the level is below 0, (3) of the last level within ±.2 of it is "
    "left, (4) no neighbouring levels differ by more than half of the whole fall; each by its 95% "
    "interval. Reproduced if all axes do; refuted if one axis contradicts (2), (3) or (4) at level "
    ".05 / number of axes."
)
_STATEMENTS = {
    "A22": "the statistic falls smoothly to the null along each interpolation: noise mix (three "
    "noise models), pixel/row/column shuffles (within, across), classes, down-scaling with and "
    "without noise, number of examples, label noise",
    "A23": "the same for suboptimal initialisation and optimizer settings (learning rate, "
    "momentum, β₂) and for reduced model dimension",
}


def claims(results: Sequence[Results]) -> list[Claim]:
    """The two claims; only complete axes on MNIST count towards a verdict.

    Args:
        results: Levels of one or more axes.
    """
    on_mnist = [r for r in results if r.numbers["dataset"] == "mnist"]
    series = all_series(on_mnist) if on_mnist else []
    return [_claim(claim, series) for claim in _STATEMENTS]


def judgements(series: Sequence[Series], claim: str) -> dict[str, Judgement]:
    """The judgement of every axis that a claim names and that was run."""
    n_axes = sum(axis.claim == claim for axis in AXES)
    return {s.axis.name: judge(s.excess, n_axes) for s in series if s.axis.claim == claim}


def _claim(claim: str, series: Sequence[Series]) -> Claim:
    named = [axis.name for axis in AXES if axis.claim == claim]
    judged = judgements(series, claim)
    complete = {s.axis.name for s in series if not s.missing}
    holding = [name for name, j in judged.items() if j.holds and name in complete]
    refuting = [name for name, j in judged.items() if j.failed and name in complete]
    seeds = [j.n_seeds for j in judged.values()]
    fewest = min(seeds) if set(judged) >= set(named) else 0
    value = float(len(holding)) if judged else None
    n_seeds, verdict = _verdict(holding, refuting, judged, named, fewest)
    return Claim(
        id=claim,
        statement=_STATEMENTS[claim],
        source=SOURCE,
        rule=_RULE,
        value=value,
        interval=None,
        unit=f"of {len(named)} axes fall smoothly to the null",
        null=_null(series, claim),
        n_seeds=n_seeds,
        verdict=verdict,
        sentence=_sentence(judged, holding, refuting, named, series),
    )


def _verdict(
    holding: Sequence[str],
    refuting: Sequence[str],
    judged: dict[str, Judgement],
    named: Sequence[str],
    fewest: int,
) -> tuple[int, Verdict]:
    """One complete axis suffices to refute; reproducing needs all."""
    if refuting:
        return min(judged[name].n_seeds for name in refuting), "refuted"
    if len(holding) == len(named) and fewest >= MIN_SEEDS:
        return fewest, "reproduced"
    return fewest, undecided(fewest)


def _null(series: Sequence[Series], claim: str) -> str:
    """The null of the undisturbed training, and the controls that must change nothing."""
    first = next((s for s in series if s.axis.claim == claim), None)
    if first is None:
        return "gradients at the frozen initial weights: not measured"
    text = (
        f"frozen initial weights: {OverSeeds(first.null[0].tolist())} components, training: "
        f"{OverSeeds(first.values[0].tolist())}"
    )
    controls = [s for s in series if not s.axis.claim and claim == "A22"]
    answers = [unchanged(s.excess) for s in controls]
    if controls:
        words = {"holds": "unchanged", "contradicted": "changed", "open": "open"}
        counted = ", ".join(
            f"{answers.count(answer)} {words[answer]}" for answer in dict.fromkeys(answers)
        )
        text += f"; controls (one permutation for all images): {counted}"
    return text


def _sentence(
    judged: dict[str, Judgement],
    holding: Sequence[str],
    refuting: Sequence[str],
    named: Sequence[str],
    series: Sequence[Series],
) -> str:
    if not judged:
        return "No axis was run on MNIST."
    parts = [f"{len(holding)} of {len(named)} axes fall smoothly to the null"]
    if holding:
        parts[0] += f" ({'; '.join(holding)})"
    for criterion in CRITERIA:
        names = [f"{n} ({_why(judged[n], criterion)})" for n in refuting
                 if criterion in judged[n].failed]  # fmt: skip
        if names:
            parts.append(f"'{criterion}' is contradicted along {'; '.join(names)}")
    undecided_axes = [n for n, j in judged.items() if not j.holds and not j.failed]
    if undecided_axes:
        parts.append(f"open: {'; '.join(undecided_axes)}")
    parts += [_dimension(s) for s in series if s.axis.name in judged and _is_subspaces(s)]
    return ". ".join(parts) + "."


def _why(judgement: Judgement, criterion: str) -> str:
    """The number that decided a criterion."""
    return {
        "starts off the null": f"excess {judgement.start:.1f}",
        "approaches it": f"correlation {judgement.trend:.2f}",
        "ends at it": f"{100 * judgement.left:.0f}% left",
        "smoothly": f"{100 * judgement.largest_jump:.0f}% in one step",
    }[criterion]


def _is_subspaces(series: Series) -> bool:
    """Whether the levels are all dimensions, and subspaces of fewer and fewer."""
    first, *others = [config.subspace for config in series.axis.configs]
    return first == 0 and all(others)


def intrinsic_dimensions(series: Series) -> list[IntrinsicDimension]:
    """d_int90 of every seed: the smallest of the subspaces with 90% of the full accuracy."""
    sizes = [config.subspace for config in series.axis.configs[1:]]
    found = []
    for column in series.accuracy.T:
        reached = dict(zip(sizes, column[1:].tolist(), strict=True))
        found.append(intrinsic_dimension(reached.__getitem__, float(column[0]), sorted(sizes)))
    return found


def _dimension(series: Series) -> str:
    """What the random subspaces of the undisturbed task say about its intrinsic dimension."""
    found = intrinsic_dimensions(series)
    reached = [float(d.dimension) for d in found if d.dimension is not None]
    largest = max(config.subspace for config in series.axis.configs)
    if len(reached) < len(found):
        return f"d_int90 exceeds {largest} in {len(found) - len(reached)} of {len(found)} seeds"
    return (
        f"d_int90 is {OverSeeds(reached)} (smallest subspace tried; the next smaller ones fail at "
        f"{OverSeeds([float(d.below) for d in found])})"
    )
