"""The shape of norms over training: first drop, rise after it, second descent, noise.

Letters: n curves, T steps, b blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.smoothing import ema

N_START = 5  # values whose mean is the level at the start


@dataclass(frozen=True, eq=False)
class NormShapes:
    """What curves of log₂ norms do, from means over equal blocks of steps; units of log₂."""

    start: Float64[Tensor, " n"]
    """Mean of the first five values."""
    blocks: Float64[Tensor, "n b"]
    """Mean of each block."""
    bottom: Int64[Tensor, " n"]
    """The lowest block of the first half: where the first drop ends."""
    noise: Float64[Tensor, " n"]
    """Standard deviation of single values around the slow curve: that of successive differences
    after the first block, by their median, over √2."""
    half_drop: Float64[Tensor, " n"]
    """Index of the first value at which the smoothed curve is half the drop below the start; NaN
    where there is no drop."""

    @property
    def drop(self) -> Float64[Tensor, " n"]:
        """From the start to the bottom; negative where the norm rises from the start on."""
        return self.start - self._at_bottom

    @property
    def rise(self) -> Float64[Tensor, " n"]:
        """From the bottom to the highest block after it."""
        return self._after_bottom.amax(1) - self._at_bottom

    @property
    def second_fall(self) -> Float64[Tensor, " n"]:
        """From the highest block after the bottom to the lowest one after that."""
        after = self._after_bottom
        peak = after.argmax(1, keepdim=True)
        places = torch.arange(after.shape[1])
        return after.amax(1) - self.blocks.masked_fill(places < peak, torch.inf).amin(1)

    @property
    def double_descent(self) -> Float64[Tensor, " n"]:
        """The smaller of rise and second fall: 0 for a curve that turns once or never."""
        return torch.minimum(self.rise, self.second_fall)

    @property
    def reversal(self) -> Float64[Tensor, " n"]:
        """Largest rise between any two blocks, later over earlier, as a share of the whole fall.

        0 for a curve that falls monotonically; infinite for one that never falls.
        """
        lowest = self.blocks.cummin(1).values
        whole = torch.maximum(self.start, self.blocks[:, 0]) - self.blocks.amin(1)
        return (self.blocks - lowest).amax(1) / whole.clamp(min=0)

    def movement(self, block_size: int) -> Float64[Tensor, " n"]:
        """Root mean square change between successive blocks from the bottom on, less its noise.

        White noise moves the mean of a block by its standard deviation over √block_size; what that
        adds to the square is subtracted.

        Args:
            block_size: Values per block.
        """
        changes = self.blocks.diff(dim=1).square()
        later = torch.arange(changes.shape[1]) >= self.bottom[:, None]
        mean = (changes * later).sum(1) / later.sum(1).clamp(min=1)
        return (mean - 2 * self.noise.square() / block_size).clamp(min=0).sqrt()

    @property
    def _at_bottom(self) -> Tensor:
        return self.blocks.gather(1, self.bottom[:, None])[:, 0]

    @property
    def _after_bottom(self) -> Tensor:
        places = torch.arange(self.blocks.shape[1])
        return self.blocks.masked_fill(places < self.bottom[:, None], -torch.inf)


def norm_shapes(
    norms: Float[Tensor, "n T"], *, n_blocks: int = 20, smoothing: float = 0.92
) -> NormShapes:
    """First drop, rise, second descent and noise of curves of norms.

    Everything is said of log₂ norms. Levels are means over `n_blocks` equal blocks of steps, which
    average the noise of single batches away (of white noise the share 1/√size is left; highest and
    lowest of b blocks lie about two of these apart where nothing happens). Only the time of the
    drop is finer: it is read off the exponential moving average.

    Args:
        norms: Positive values at equally spaced steps, raw.
        n_blocks: Blocks; up to b − 1 values at the end are left out where they do not divide.
        smoothing: Of the curve on which the time of the drop is found, see `ema`.

    Returns:
        The shapes.

    Raises:
        ValueError: There are fewer than two values per block, fewer than four blocks, or norms that
            are not positive and finite.

    Example:
        >>> steps = torch.arange(400.0)
        >>> falls = 2.0 ** (-4 * (1 - torch.exp(-steps / 30)))
        >>> shapes = norm_shapes(torch.stack([falls, falls * 2.0 ** (steps / 200)]))
        >>> shapes.rise.round(decimals=1).tolist()
        [0.0, 1.3]

    References:
        "What's going on with Per-Component Weight Updates?" (LessWrong), whose curves these are.
    """
    size = norms.shape[-1] // n_blocks if n_blocks >= 4 else 0
    if size < 2:
        raise ValueError(
            "at least four blocks of two values are needed, but there are "
            f"{norms.shape[-1]} values for n_blocks={n_blocks}. Record norms at more steps."
        )
    values = norms.detach().double().cpu()
    if not bool((values.isfinite() & (values > 0)).all()):
        raise ValueError(
            "norms must be positive and finite, since their logarithm is taken, but some are not. "
            "Leave out the tensors that have no gradient."
        )
    y = values.log2()
    blocks = y[:, : n_blocks * size].reshape(len(y), n_blocks, size).mean(2)
    start = y[:, :N_START].mean(1)
    bottom = blocks[:, : n_blocks // 2].argmin(1)
    drop = start - blocks.gather(1, bottom[:, None])[:, 0]
    below = ema(y, smoothing) <= (start - drop / 2)[:, None]
    half = torch.where(below.any(1) & (drop > 0), below.double().argmax(1).double(), torch.nan)
    # Of a normal variable the median of the absolute value is .6745 standard deviations.
    noise = y[:, size:].diff(dim=1).abs().median(1).values / 0.6745 / 2**0.5
    return NormShapes(start, blocks, bottom, noise, half)
