"""Random signs as a function of (seed, surrogate, step, column): nothing is stored.

Letters: T steps (rows), b columns of a piece.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from phasescope.splitmix import GAMMA, mix, mix_number, signed

TILE = 4096
"""Columns whose signs are made at once, counted from column 0. Part of the format of the signs:
another number would change every surrogate."""
_WORDS = TILE // 32  # of 32 bits: bit 31 - s of word w is the sign of column s * _WORDS + w
_HASHES = _WORDS // 2

# Rows flipped at once: the piece of the matrix, its signs and the result stay in a core's cache.
_ROWS = 32


class RandomSigns:
    """Signs for the entries of a steps × parameters matrix, made again whenever they are needed.

    The sign of an entry depends on the seed, the surrogate, the step value of its row and its
    column alone: not on the other rows, on how the matrix is read, or on the device. Two rounds of
    SplitMix64 (`phasescope.splitmix`): the first turns (seed, surrogate, step) into the start of a
    row's stream of 64-bit hashes, the second walks along the columns, 64 at a time.

    Example:
        >>> signs = RandomSigns(torch.arange(2), seed=0)
        >>> X = torch.ones(2, 4)
        >>> signs.flip(X, 0, surrogate=0, out=torch.empty(2, 4))
        tensor([[ 1., -1.,  1., -1.],
                [-1.,  1.,  1.,  1.]])
    """

    def __init__(self, steps: Int64[Tensor, " T"], *, seed: int) -> None:
        """Prepare the buffers.

        Args:
            steps: Step value of every row, on the device of the matrix.
            seed: Seed of all surrogates.
        """
        self.seed = seed
        T, device = len(steps), steps.device
        self._rows = steps * signed(GAMMA)
        self._columns = torch.arange(1, _HASHES + 1, device=device) * signed(GAMMA)
        self._hashes = torch.empty(T, _HASHES, dtype=torch.int64, device=device)
        self._scratch = torch.empty_like(self._hashes)
        self._shifts = torch.arange(32, dtype=torch.int32, device=device)[:, None]
        self._bits = torch.empty(min(_ROWS, T), 32, _WORDS, dtype=torch.int32, device=device)

    def words(self, tile: int, *, surrogate: int) -> Int32[Tensor, "T 128"]:
        """Random words of one tile: bit 31 - s of word w belongs to its column 128 s + w.

        Args:
            tile: Its first column is 4096 times this.
            surrogate: Which surrogate.

        Returns:
            32-bit words in a buffer that the next call overwrites.
        """
        key = mix_number(mix_number(self.seed + GAMMA) + (surrogate + 1) * GAMMA)
        rows = self._rows + signed(key)
        mix(rows, torch.empty_like(rows))
        rows += signed(tile * _HASHES * GAMMA)
        torch.add(rows[:, None], self._columns, out=self._hashes)
        mix(self._hashes, self._scratch)
        return self._hashes.view(torch.int32)

    def flip(
        self, X: Float[Tensor, "T b"], column: int, *, surrogate: int, out: Float[Tensor, "T b"]
    ) -> Float[Tensor, "T b"]:
        """Absolute values of some columns under random signs.

        Since the signs are independent of the data, this is the same surrogate as a product of
        signs and values, for less work.

        Args:
            X: Columns from `column` on, all in one tile.
            column: First column, counted in the whole matrix.
            surrogate: Which surrogate.
            out: Overwritten.

        Returns:
            `out`.
        """
        tile, first = divmod(column, TILE)
        words = self.words(tile, surrogate=surrogate)
        T, b = X.shape
        # Copying a sign is bitwise for float32 on a CPU. Elsewhere a word that happens to be a NaN
        # might lose its sign: there only the sign bit is kept, so that every word is 0 or -0.
        bitwise = X.dtype == torch.float32 and X.device.type == "cpu"
        for start in range(0, T, _ROWS):
            rows = slice(start, min(start + _ROWS, T))
            bits = self._bits[: rows.stop - start]
            torch.bitwise_left_shift(words[rows, None], self._shifts, out=bits)
            if not bitwise:
                bits &= -(2**31)
            signs = bits.view(torch.float32).view(-1, TILE)[:, first : first + b]
            torch.copysign(X[rows], signs, out=out[rows])
        return out
