"""Random signs as a function of (seed, surrogate, step, column): nothing is stored.

Letters: T steps (rows), b columns of a piece.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

TILE = 4096
"""Columns whose signs are made at once, counted from column 0. Part of the format of the signs:
another number would change every surrogate."""
_WORDS = TILE // 32  # of 32 bits: bit 31 - s of word w is the sign of column s * _WORDS + w
_HASHES = _WORDS // 2

# SplitMix64: an odd step of the counter, and the two multipliers of its finaliser (variant 13).
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# Rows flipped at once: the piece of the matrix, its signs and the result stay in a core's cache.
_ROWS = 32


class RandomSigns:
    """Signs for the entries of a steps × parameters matrix, made again whenever they are needed.

    The sign of an entry depends on the seed, the surrogate, the step value of its row and its
    column alone: not on the other rows, on how the matrix is read, or on the device. Two rounds of
    SplitMix64 in integer arithmetic: the first turns (seed, surrogate, step) into the start of a
    row's stream of 64-bit hashes, the second walks along the columns, 64 at a time.

    Example:
        >>> signs = RandomSigns(torch.arange(2), seed=0)
        >>> X = torch.ones(2, 4)
        >>> signs.flip(X, 0, surrogate=0, out=torch.empty(2, 4))
        tensor([[ 1., -1.,  1., -1.],
                [-1.,  1.,  1.,  1.]])

    References:
        Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA, with
        the constants of Stafford's variant 13.
    """

    def __init__(self, steps: Int64[Tensor, " T"], *, seed: int) -> None:
        """Prepare the buffers.

        Args:
            steps: Step value of every row, on the device of the matrix.
            seed: Seed of all surrogates.
        """
        self.seed = seed
        T, device = len(steps), steps.device
        self._rows = steps * _signed(_GAMMA)
        self._columns = torch.arange(1, _HASHES + 1, device=device) * _signed(_GAMMA)
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
        key = _mix_number(_mix_number(self.seed + _GAMMA) + (surrogate + 1) * _GAMMA)
        rows = self._rows + _signed(key)
        _mix(rows, torch.empty_like(rows))
        rows += _signed(tile * _HASHES * _GAMMA)
        torch.add(rows[:, None], self._columns, out=self._hashes)
        _mix(self._hashes, self._scratch)
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


def _mix(z: Int64[Tensor, "*shape"], scratch: Int64[Tensor, "*shape"]) -> None:
    """SplitMix64's finaliser, in place; torch shifts signed numbers, hence the masks."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, None)):
        torch.bitwise_right_shift(z, shift, out=scratch)
        scratch &= 2 ** (64 - shift) - 1
        z ^= scratch
        if factor is not None:
            z *= _signed(factor)


def _mix_number(z: int) -> int:
    """The same of one number."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        z %= 2**64
        z = (z ^ (z >> shift)) * factor
    return z


def _signed(z: int) -> int:
    """The int64 with the same lowest 64 bits."""
    return (z + 2**63) % 2**64 - 2**63
