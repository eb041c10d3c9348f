"""Curves that grow row by row and stay small: means over blocks of logarithmic time.

Letters: t rows, b blocks, c columns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


class GrowingBlocks:
    """Mean, smallest and largest value of curves over blocks equally wide in ln(1 + step).

    The first 1/width steps have blocks of their own; from there on the number of blocks grows with
    the logarithm of the step, whatever the length of the run: .005 makes 1,443 blocks of 10⁵ steps.
    Values that are not finite are left out. `phasescope.log_blocks` does this to a whole curve.

    Args:
        n_columns: Curves with the same steps.
        width: Width of a block in ln(1 + step).

    Raises:
        ValueError: The width is not positive.

    Example:
        >>> blocks = GrowingBlocks(1, width=0.5)
        >>> for row in range(6):
        ...     blocks.add(np.array([row]), np.array([[float(row)]]))
        >>> blocks.steps.tolist(), blocks.mean[:, 0].tolist(), blocks.high[:, 0].tolist()
        ([0.0, 1.0, 2.5, 4.5], [0.0, 1.0, 2.5, 4.5], [0.0, 1.0, 3.0, 5.0])
    """

    def __init__(self, n_columns: int, width: float) -> None:
        if not width > 0:
            raise ValueError(f"the width of a block must be positive, but it is {width}.")
        self.width = width
        self._place = -1
        self._rows: list[int] = []
        self._step_sums: list[float] = []
        shape = (0, n_columns)
        self._sums = np.empty(shape)
        self._counts = np.empty(shape, np.int64)
        self._low, self._high = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.last_step = -1
        """Step of the newest row; −1 before there is one."""
        self.last: Float[np.ndarray, " c"] = np.full(n_columns, np.nan)
        """The newest finite value of every curve."""

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._rows)

    def add(self, steps: Int[np.ndarray, " t"], values: Float[np.ndarray, "t c"]) -> None:
        """Take in new rows.

        Args:
            steps: Increasing, and larger than those before.
            values: The rows.

        Raises:
            ValueError: The steps do not increase.
        """
        if not len(steps):
            return
        if steps[0] <= self.last_step or (np.diff(steps) <= 0).any():
            raise ValueError(
                f"steps must increase, but {steps[0]} to {steps[-1]} arrived after "
                f"{self.last_step}. Make new blocks for a run that went back."
            )
        finite = np.isfinite(values)
        places = (np.log1p(steps) / self.width).astype(np.int64)
        begin = np.flatnonzero(np.diff(places, prepend=places[0] - 1))
        rows = np.diff(np.append(begin, len(steps))).tolist()
        step_sums = np.add.reduceat(steps.astype(np.float64), begin).tolist()
        sums = np.add.reduceat(np.where(finite, values, 0.0).astype(np.float64), begin)
        counts = np.add.reduceat(finite.astype(np.int64), begin)
        low = np.minimum.reduceat(np.where(finite, values, np.inf).astype(np.float32), begin)
        high = np.maximum.reduceat(np.where(finite, values, -np.inf).astype(np.float32), begin)
        if places[0] == self._place:
            self._rows[-1] += rows.pop(0)
            self._step_sums[-1] += step_sums.pop(0)
            self._sums[-1] += sums[0]
            self._counts[-1] += counts[0]
            self._low[-1] = np.minimum(self._low[-1], low[0])
            self._high[-1] = np.maximum(self._high[-1], high[0])
            sums, counts, low, high = sums[1:], counts[1:], low[1:], high[1:]
        self._rows += rows
        self._step_sums += step_sums
        self._sums = np.concatenate([self._sums, sums])
        self._counts = np.concatenate([self._counts, counts])
        self._low = np.concatenate([self._low, low])
        self._high = np.concatenate([self._high, high])
        self._place, self.last_step = int(places[-1]), int(steps[-1])
        newest = len(values) - 1 - finite[::-1].argmax(0)
        known = finite.any(0)
        self.last[known] = values[newest[known], np.flatnonzero(known)]

    @property
    def steps(self) -> Float[np.ndarray, " b"]:
        """Mean step of the rows of each block."""
        return np.array(self._step_sums) / np.array(self._rows, np.float64)

    @property
    def mean(self) -> Float[np.ndarray, "b c"]:
        """Mean of the finite values of each block; NaN where there are none."""
        return np.where(self._counts > 0, self._sums / np.maximum(self._counts, 1), np.nan)

    @property
    def low(self) -> Float[np.ndarray, "b c"]:
        """Smallest finite value of each block; NaN where there are none."""
        return np.where(self._counts > 0, self._low, np.nan)

    @property
    def high(self) -> Float[np.ndarray, "b c"]:
        """Largest finite value of each block; NaN where there are none."""
        return np.where(self._counts > 0, self._high, np.nan)
