"""SplitMix64, a hash of counters: random bits that are a function of their position.

References:
    Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA, with the
    constants of its `mix64` variant 13 (D. Stafford).
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

# The odd step of the counter, and shift and multiplier of every round of the finaliser.
GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def signed(z: int) -> int:
    """The int64 with the same lowest 64 bits.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    return (z + 2**63) % 2**64 - 2**63


def mix(z: Int64[Tensor, "*shape"], scratch: Int64[Tensor, "*shape"]) -> None:
    """The finaliser, in place.

    Args:
        z: States, replaced by their hashes.
        scratch: Overwritten.
    """
    for shift, factor in _ROUNDS:
        # int64 has only the arithmetic shift; the mask takes the copies of its sign bit away.
        torch.bitwise_right_shift(z, shift, out=scratch)
        z.bitwise_xor_(scratch.bitwise_and_((1 << (64 - shift)) - 1))
        if factor != 1:
            z.mul_(signed(factor))


def mix_number(z: int) -> int:
    """The hash of one state, modulo 2⁶⁴."""
    for shift, factor in _ROUNDS:
        z %= 2**64
        z = (z ^ (z >> shift)) * factor
    return z


def random_bits(counters: Int64[Tensor, "*n"], key: int) -> Int64[Tensor, "*n"]:
    """64 random bits for each counter, in the wrapping arithmetic of int64.

    Args:
        counters: Positions in the sequence.
        key: Where the sequence starts; a hash itself, so that sequences do not overlap.

    Returns:
        Numbers over the whole range of int64.

    Example:
        >>> random_bits(torch.tensor([1]), 0) == 0xE220A8397B1DCDAF - 2**64
        tensor([True])
    """
    z = counters * signed(GAMMA) + key
    mix(z, torch.empty_like(z))
    return z
