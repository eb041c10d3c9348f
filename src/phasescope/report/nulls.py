"""What the nulls say about a recorded run, when it costs little or was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from phasescope.analysis.columns import StepMatrix
from phasescope.analysis.flips import FlipRankTest, flip_rank_test
from phasescope.analysis.gram import Gram
from phasescope.analysis.located import LocatedComponents, located_components
from phasescope.analysis.paths import path_p_values, path_walk_null
from phasescope.analysis.spectrum import Spectrum, spectrum
from phasescope.analysis.walks import WalkNull
from phasescope.analysis.whitening import whitened_gram

CHEAP = 60.0
"""Seconds that the nulls may take without being asked for."""
# Two flip tests of 19 copies and the data, in two rounds each, a copy at 1.3 Gram matrices; the
# readings for equalising and whitening.
_GRAMS = 2 * 2 * 20 * 1.3 + 6
THRESHOLDS = (0.05, 0.1, 0.15)
_FEWEST_STEPS = 4
_MANY = 0.1  # of the steps: formulas for the overlaps assume few components
_OPTIONS: dict[str, Any] = {"center": "steps", "normalize": True}


@dataclass(frozen=True, eq=False)
class NullCounts:
    """Components of centred, normalised steps that nulls leave standing."""

    flips: FlipRankTest
    """Flip test of the trajectory as it is."""
    equalized: FlipRankTest
    """Flip test of equalised parameters."""
    located: LocatedComponents
    """Of the whitened trajectory, whose noise is what the components of `equalized` leave."""
    seconds: float
    """Time that they took."""

    def to_dict(self) -> dict[str, Any]:
        """What a table and a JSON file show."""
        return {
            "flip_rank": self.flips.rank,
            "flip_first_rank": self.flips.first_rank,
            "flip_rank_converged": self.flips.converged,
            "equalized_flip_rank": self.equalized.rank,
            "equalized_flip_first_rank": self.equalized.first_rank,
            "equalized_flip_rank_converged": self.equalized.converged,
            "n_steps": len(self.flips.steps),
            "detected": self.located.n_detected,
            "located": self.located.n_located,
            "level": self.flips.level,
            "seconds": self.seconds,
        }


def null_seconds(gram_seconds: float) -> float:
    """About how long `null_counts` takes, from how long the Gram matrix took.

    Args:
        gram_seconds: Seconds of `gram` on the same matrix.

    Returns:
        Seconds; fewer if nothing is found, more if several rounds find more.

    Example:
        >>> round(null_seconds(1.0))
        110
    """
    return _GRAMS * gram_seconds


def null_counts(
    A: StepMatrix, g: Gram, *, progress: Callable[[float, str], None] | None = None
) -> NullCounts:
    """Flip ranks, and components detected and located, of centred and normalised steps.

    Args:
        A: Steps × parameters.
        g: Its Gram matrix.
        progress: Called with a fraction of the whole, roughly, and what is done.

    Returns:
        The counts, with the tests that they come from.

    Raises:
        ValueError: There are too few steps, or one cannot be normalised.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> A = torch.randn(20, 400, generator=torch.Generator().manual_seed(0))
        >>> null_counts(A, gram(A)).to_dict()["flip_rank"]
        0
    """
    start = time.perf_counter()

    def tell(first: float, share: float, what: str) -> None:
        if progress is not None:
            progress(first + share, what)

    def rounds(first: float, what: str) -> Callable[[int, float], None]:
        return lambda round_, done: tell(first, 0.45 * min(1.0, (round_ + done) / 2), what)

    flips = flip_rank_test(A, **_OPTIONS, progress=rounds(0.0, "flip test"))
    equal = flip_rank_test(
        A, **_OPTIONS, equalize=True, progress=rounds(0.45, "flip test, parameters equalised")
    )
    whole = spectrum(g, **_OPTIONS)
    k = min(equal.rank, len(whole.steps) - 3, int((whole.resolution < whole.S).sum()))
    white = whitened_gram(A, whole, k, progress=lambda done: tell(0.9, 0.1 * done, "whitening"))
    located = located_components(spectrum(white, center="steps", time_vectors=False), 1.0)
    return NullCounts(flips, equal, located, time.perf_counter() - start)


def path_beside_walks(g: Gram) -> tuple[Spectrum, WalkNull, dict[str, Any]]:
    """The principal components of a path beside random walks of its own increments.

    Args:
        g: Of points × columns (weights, logits or losses), computed in float64: increments are
            differences of large numbers.

    Returns:
        Spectrum and null, centred over steps; and the shares of the first components with the 95 %
        range of the walks and p-values.

    Raises:
        ValueError: There are too few points, or they do not move.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> A = torch.randn(20, 400, generator=torch.Generator().manual_seed(0)).cumsum(0)
        >>> path_beside_walks(gram(A, dtype=torch.float64))[2]["p"][0] > 0.05
        True
    """
    null = path_walk_null(g)
    found = spectrum(g, center="steps")
    k = min(3, len(found.S))
    shares = found.S**2 / (found.S**2).sum()
    ends = null.shares[:, :k].quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
    return found, null, {
        "n_draws": len(null.draws),
        "shares": shares[:k].tolist(),
        "walk_low": ends[0].tolist(),
        "walk_high": ends[1].tolist(),
        "p": path_p_values(found, null)[:k].tolist(),
    }  # fmt: skip


def null_lines(numbers: dict[str, Any]) -> list[str]:
    """What `analyse` prints of the dictionaries above, a line for each null.

    Args:
        numbers: Of `NullCounts`, of `path_beside_walks`, or a "skipped" with its reason.

    Returns:
        Lines of text.

    Example:
        >>> null_lines({"skipped": "too few steps"})
        ['other nulls: too few steps']
    """
    if "skipped" in numbers:
        return [f"other nulls: {numbers['skipped']}"]
    if "shares" in numbers:
        least = 2 / (numbers["n_draws"] + 1)
        rows = zip(*(numbers[key] for key in ("shares", "walk_low", "walk_high", "p")), strict=True)
        shown = (
            f"{100 * share:.1f}% (walks {100 * low:.1f} to {100 * high:.1f}%, "
            f"p = {p:.2g}{', the least that the draws can give' if p <= least else ''})"
            for share, low, high, p in rows
        )
        return [f"variance of the first components, centred: {', '.join(shown)}"]
    many = numbers["equalized_flip_rank"] > _MANY * numbers["n_steps"]
    return [
        f"components above random signs (centred, steps normalised, level {numbers['level']:g}): "
        f"{_flip_counts(numbers, 'flip_')}; with every parameter scaled alike: "
        f"{_flip_counts(numbers, 'equalized_flip_')}",
        f"of the whitened trajectory: {numbers['detected']} detected (their time profile means "
        f"something), {numbers['located']} located (half of their parameter vector is signal"
        + (
            "; so many of few steps mix with their neighbours: read them as one subspace)"
            if many
            else ")"
        ),
        "minibatch noise is correlated and counts as structure here: compare_with_frozen tells "
        f"what training added ({numbers['seconds']:.0f} s)",
    ]


def _flip_counts(numbers: dict[str, Any], name: str) -> str:
    """The count of a flip test before deflation and after it."""
    first, rank = numbers[f"{name}first_rank"], numbers[f"{name}rank"]
    if not numbers[f"{name}rank_converged"]:
        return f"{first}, and {rank} or more once these are projected out (it does not end)"
    return str(rank) if first == rank else f"{first}, and {rank} once these are projected out"


def too_dear(seconds: float, n_steps: int, how: str) -> str | None:
    """Why the nulls are not computed without being asked for; None if they are.

    Args:
        seconds: What they would take.
        n_steps: Number of steps.
        how: How to ask for them.

    Returns:
        A reason.

    Example:
        >>> too_dear(600.0, 400, "--nulls yes")
        'about 10 minutes; --nulls yes computes them'
    """
    if n_steps < _FEWEST_STEPS:
        return f"they need at least {_FEWEST_STEPS} steps, but there are {n_steps}"
    if seconds > CHEAP:
        return f"about {seconds / 60:.0f} minutes; {how} computes them"
    return None
