"""Random signs for the entries of a flat vector, hashed from their positions: nothing is drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from phasescope.splitmix import random_bits

# The layout of the signs, part of the format of a sketch: 2048 hashed words of 32 bits give the
# signs of a chunk of 65,536 consecutive entries, bit 31 - i of word w that of entry 2048 i + w. So
# the hash is paid once for 32 entries, and shifting all words at once turns bits into sign bits.
CHUNK = 65_536
_WORDS = 2048
_HASHES = _WORDS // 2  # of 64 bits: the low halves are the first words, the high halves the others
_BITS = CHUNK // _WORDS

# Words are hashed for 2²⁰ entries at a time, and those of the first 2²⁴ entries are kept: 2 MB.
# For a small model the hash would be a fifth of the time of a sketch.
_GROUP = 16 * CHUNK
_KEPT_GROUPS = 16


class SignBits:
    """One random bit for every entry of a vector of any length.

    Args:
        key: Of the hash; another key gives independent bits.
    """

    def __init__(self, key: int) -> None:
        self._key = key
        self._kept: dict[tuple[torch.device, int], tuple[Tensor, ...]] = {}

    def at(self, indices: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The bits of some entries, 0 or 1."""
        chunk, inside = indices // CHUNK, indices % CHUNK
        row, word = inside // _WORDS, inside % _WORDS
        hashed = random_bits(chunk * _HASHES + word % _HASHES, self._key)
        return hashed >> (31 - row + 32 * (word // _HASHES)) & 1

    def stretches(
        self, start: int, stop: int, device: torch.device
    ) -> Iterator[tuple[int, Int32[Tensor, " n"]]]:
        """The bits of the entries [start, stop) as sign bits of float32, stretch by stretch.

        Yields:
            The first entry of a stretch, and its bits: int32 that are 0 or the lowest number. Up to
            where the first stretch begins, and from where the last one ends, entries outside may be
            included. The tensor is used again for the next stretch, and may be written to.
        """
        n_chunks = _chunks_at_once(device)
        bits = torch.empty((n_chunks, _BITS, _WORDS), dtype=torch.int32, device=device)
        flat = bits.view(-1)
        by = torch.arange(_BITS, dtype=torch.int32, device=device)[:, None]
        sign_bit = torch.tensor(-(2**31), dtype=torch.int32, device="cpu")
        width = n_chunks * CHUNK
        parts: tuple[Tensor, ...] = ()
        for origin in range(start - start % width, stop, width):
            group, inside = divmod(origin, _GROUP)
            if not parts or inside == 0:
                needed = -(-min(_GROUP, stop - group * _GROUP) // CHUNK)
                parts = self._words(group, needed, n_chunks, device)
            words = parts[inside // width]
            whole = len(words) == n_chunks
            torch.bitwise_left_shift(words, by, out=bits if whole else bits[: len(words)])
            bits.bitwise_and_(sign_bit)
            yield origin, flat

    def _words(
        self, group: int, n_chunks: int, at_once: int, device: torch.device
    ) -> tuple[Tensor, ...]:
        """The words of the first chunks of a group (chunks, 1, words), some chunks at once."""
        kept = self._kept.get((device, group), ())
        if sum(map(len, kept)) >= n_chunks:
            return kept
        first = group * (_GROUP // CHUNK)
        counters = torch.arange(first * _HASHES, (first + n_chunks) * _HASHES, device=device)
        hashed = random_bits(counters, self._key).view(-1, 1, _HASHES)
        # Sign-extended, the low halves fit into 32 bits too.
        words = torch.cat([(hashed << 32 >> 32).int(), (hashed >> 32).int()], dim=2)
        parts = words.split(at_once)
        if group < _KEPT_GROUPS:
            self._kept[device, group] = parts
        return parts


def _chunks_at_once(device: torch.device) -> int:
    """As many as stay in the cache of a processor's core; more on a GPU, for few calls."""
    return 1 if device.type == "cpu" else _GROUP // CHUNK
