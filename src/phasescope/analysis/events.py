"""Do components begin and end when something happens: edges of time profiles, beside events.

Letters: T steps, k components, e events, m times, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.spectrum import Spectrum, check_resolved, check_time_vectors


def profile_edges(spectrum: Spectrum, k: int, *, share: float = 0.05) -> Float64[Tensor, "k 2"]:
    r"""When each component begins and ends: steps between which it has most of its energy.

    The energy of a component at a step is its squared time vector. It begins where `share` of the
    energy is reached and ends where `share` is left. With steps of unequal norm every component
    sits where the norms are large: use a spectrum of normalised steps for gradients.

    Args:
        spectrum: With time vectors, rows in the order of time.
        k: How many components.
        share: Share of the energy before the beginning, and behind the end.

    Returns:
        Beginning and end of each component, in steps.

    Raises:
        ValueError: The spectrum has no time vectors or fewer resolved components, or the share is
            not between 0 and 1/2.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> from phasescope.analysis.spectrum import spectrum
        >>> A = torch.zeros(30, 2)
        >>> A[:20, 0], A[20:, 1] = 1.0, 1.0  # a component until step 19, another one from 20 on
        >>> profile_edges(spectrum(gram(A)), 2).tolist()
        [[0.0, 18.0], [20.0, 29.0]]
    """
    check_time_vectors(spectrum)
    check_resolved(spectrum, k)
    if not 0 < share < 0.5:
        raise ValueError(f"share must lie between 0 and 1/2, but it is {share}.")
    energy = spectrum.time_vectors[:, :k].square()
    reached = energy.cumsum(0) / energy.sum(0)
    margin = 1e-12  # a share that is reached exactly is reached
    first = (reached >= share - margin).int().argmax(0)
    last = (reached >= 1 - share - margin).int().argmax(0)
    return torch.stack([spectrum.steps[first], spectrum.steps[last]], 1).double()


@dataclass(frozen=True)
class EventDistance:
    """How near some times are to events, beside events at random times."""

    octaves: float
    """Mean over the events of the distance to the nearest time: 1 is a factor of two in steps."""
    null: float
    """The same for events at random times, mean over the draws."""
    p: float
    """Probability that random events lie as near, at least 1 / (R + 1)."""
    nearest: tuple[float, ...]
    """The time nearest to each event."""


def event_distance(
    times: Float[Tensor, "*m"] | Sequence[float | int],
    events: Sequence[float | int],
    *,
    within: tuple[float | int, float | int],
    n_draws: int = 999,
    seed: int = 0,
) -> EventDistance:
    """Distance of events to the nearest of some times on a logarithmic axis of steps.

    Many times lie near anything. So as many events are drawn at random, uniformly on the
    logarithmic axis within the span of the run, and the distance is compared with theirs.

    Args:
        times: Such as the edges of time profiles. Times below the span count as its beginning.
        events: Steps at which something happened, such as memorisation and grokking.
        within: First and last step of the span, above 0.
        n_draws: Draws R.
        seed: Of the draws.

    Returns:
        The mean distance, its null and its p-value.

    Raises:
        ValueError: There are no times or no events, a time is not finite, or an event lies outside
            the span.

    Example:
        >>> found = event_distance([100.0, 2000.0], [110.0, 1900.0], within=(10, 4000))
        >>> found.octaves < 0.2, found.null > 0.5, found.p < 0.05
        (True, True, True)
    """
    low, high = within
    at = torch.as_tensor(times, dtype=torch.float64).flatten()
    if not len(at) or not events or not 0 < low < high:
        raise ValueError(
            "times, events and a span of positive steps are required, but there are "
            f"{len(at)} times, {len(events)} events and the span {within}."
        )
    if not bool(at.isfinite().all()):
        raise ValueError(
            f"all times must be finite, but {int((~at.isfinite()).sum())} of {len(at)} are not. "
            "Leave out those of what did not happen."
        )
    if outside := [event for event in events if not low <= event <= high]:
        raise ValueError(
            f"events must lie within the span {within}, but {outside} do not. Widen the span, or "
            "leave out events that did not happen."
        )
    logs = at.clamp(min=low).log2()
    own = torch.tensor(events, dtype=torch.float64).log2()
    ends = torch.tensor([low, high], dtype=torch.float64).log2()
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(n_draws, len(events), generator=generator, dtype=torch.float64)
    drawn = ends[0] + (ends[1] - ends[0]) * uniform

    def distance(events: Tensor) -> Tensor:
        return (events[..., None] - logs).abs().amin(-1).mean(-1)

    observed, null = distance(own), distance(drawn)
    p = (1 + int((null <= observed + 1e-12).sum())) / (n_draws + 1)
    nearest = at[(own[:, None] - logs).abs().argmin(1)]
    return EventDistance(float(observed), float(null.mean()), p, tuple(nearest.tolist()))
