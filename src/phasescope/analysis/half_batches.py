"""Signal and noise of gradients, from two halves of every batch.

Letters: n components, T steps, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from phasescope.analysis.column_sums import ColumnSums
from phasescope.analysis.updates import check_sums
from phasescope.parameters import Component


@dataclass(frozen=True, eq=False)
class HalfBatchNoise:
    """How much of a gradient is noise of its batch, from the gradients of its two halves."""

    names: tuple[str, ...]
    """The components, in the order of the rows."""
    signal: Float64[Tensor, "n T"]
    """Unbiased estimate of the squared norm of the expected gradient; may be negative."""
    noise: Float64[Tensor, "n T"]
    """Unbiased estimate of E‖ḡ − Eḡ‖², of the gradient ḡ of the whole batch."""

    @property
    def noise_share(self) -> Float64[Tensor, "n T"]:
        """Noise over the squared norm of the whole batch's gradient: 1 − ‖E ḡ‖²/‖ḡ‖²."""
        return self.noise / (self.signal + self.noise)

    def signal_to_noise(self, window: int) -> Float64[Tensor, "n windows"]:
        """Ratio of mean signal to mean noise over successive windows of steps.

        Single steps divide by estimates that may be near zero: average first.

        Args:
            window: Steps per window; those that fill no window at the end are left out.

        Raises:
            ValueError: The window is not between 1 and the number of steps.
        """
        T = self.signal.shape[1]
        if not 1 <= window <= T:
            raise ValueError(f"window must be between 1 and the {T} steps, but it is {window}.")
        means = [x.unfold(1, window, window).mean(-1) for x in (self.signal, self.noise)]
        return means[0] / means[1]


def half_batch_noise(
    first: Float[Tensor, "T P"],
    second: Float[Tensor, "T P"],
    *,
    components: Mapping[str, Component] | None = None,
) -> HalfBatchNoise:
    r"""Signal and noise of every component's gradient, from two halves of each batch.

    With gradients a and b of independent halves (means over their examples), $\bar g = (a + b)/2$:
    signal $a \cdot b$ and noise $\|a - b\|^2 / 4$, whose sum is exactly $\|\bar g\|^2$.

    Args:
        first: Gradient of one half of every batch.
        second: Gradient of the other half, at the same weights.
        components: Parts of the columns; all of them as ``full`` by default.

    Returns:
        The estimates for every step.

    Raises:
        ValueError: The shapes differ, or values are not finite.

    Example:
        >>> found = half_batch_noise(torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, -1.0]]))
        >>> found.signal.item(), found.noise.item(), found.noise_share.item()
        (3.0, 1.0, 0.25)

    References:
        McCandlish et al. (2018), arXiv:1812.06162, appendix A.1 (unbiased estimates from two batch
        sizes).
    """
    _check_halves(first, second)
    n_columns = first.shape[1]
    chosen = components or {"full": Component("full", ((0, n_columns),))}
    sums = ColumnSums(chosen, n_columns)
    a, b = first.detach().double(), second.detach().double()
    signal, noise = sums(a * b, 0).cpu(), sums((a - b).square() / 4, 0).cpu()
    check_sums(signal + noise, torch.arange(len(a)), tuple(chosen))
    return HalfBatchNoise(tuple(chosen), signal, noise)


def _check_halves(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            "both half batches need a gradient at every step, of the same parameters, but shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)} arrived."
        )
