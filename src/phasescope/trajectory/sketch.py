r"""CountSketch: a short random projection of the flat vector, for models too large to keep.

Letters: P parameters of the flat vector g, m = `size` buckets, b blocks of m consecutive entries.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from phasescope.splitmix import random_bits
from phasescope.trajectory.signs import SignBits

METHOD = "blocked CountSketch"
VERSION = 1


@dataclass(frozen=True)
class CountSketch:
    r"""A random linear map of the flat vector onto `size` numbers that keeps inner products.

    Every entry is added to one bucket with a random sign: $(Sg)_k = \sum_{i: h(i) = k} s_i g_i$.
    The vector is cut into blocks of m = `size` consecutive entries; entry j of block b goes into
    bucket $(j + r_b) \bmod m$, with one random shift $r_b$ for each block and one random sign for
    each entry. Within a block nothing collides, and a sum of shifted blocks needs no table.

    Over random signs and shifts $\langle Sa, Sb\rangle$ has the mean $\langle a, b\rangle$ and the
    variance $(\|a\|^2\|b\|^2 + \langle a,b\rangle^2 - \sum_B (\|a_B\|^2\|b_B\|^2 +
    \langle a_B, b_B\rangle^2))/m$, B running over the blocks. With a random bucket for every entry
    (the classic CountSketch) $2 \sum_i a_i^2 b_i^2$ is subtracted, which is never larger. So the
    mean is the same and the variance at most that of the classic one; a vector of at most m entries
    is kept exactly. The price: two blocks have one shift between them, so where the mass of a
    vector has a period, either many heavy entries collide or none, and the error varies more.

    Signs and shifts are hashed (SplitMix64 of the position): nothing is drawn from a generator. The
    result depends on `size`, `seed` and the flat vector alone: bit for bit the same however the
    vector is cut into tensors, on every device and for any number of threads.

    It misleads where single parameters matter: a bucket is the sum of P/m of them. See `estimate`.
    Subtracting a step's mean over parameters (`center="parameters"`) has no meaning for sketches.

    Args:
        size: Number of buckets m; at least 20 times the number of steps for singular values. A
            call makes one addition per block, so below about 4096 it takes longer.
        seed: Different seeds give independent sketches. Only sketches of equal size and seed can be
            compared.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: `size` is not positive, or `seed` not within 0 ... 2⁶¹ - 1.

    Example:
        >>> sketch = CountSketch(size=4096, seed=0)
        >>> vector = torch.linspace(-1, 1, 50_000)
        >>> row = sketch.apply([vector[:20_000].view(100, 200), vector[20_000:]])
        >>> error = (row @ row) / (vector @ vector) - 1
        >>> bool(abs(error) < 4 * sketch.standard_error(1.0, 1.0, 1.0))
        True

    References:
        Charikar, Chen & Farach-Colton (2002), "Finding frequent items in data streams", ICALP.
        Weinberger et al. (2009), "Feature hashing for large scale multitask learning", ICML,
        Lemma 2 (the classic variance), arXiv:0902.2206.
        Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators", OOPSLA
        (SplitMix64).
    """

    size: int = 65_536
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("size", 1, None), ("seed", 0, 2**61 - 1)):
            value = getattr(self, name)
            try:
                number = operator.index(value)
            except TypeError:
                raise TypeError(
                    f"CountSketch requires an integer {name}, but {value!r} arrived."
                ) from None
            if number < least or (most is not None and number > most):
                limits = f"of at least {least}" if most is None else f"within {least} ... {most}"
                raise ValueError(f"CountSketch requires a {name} {limits}, but {number} arrived.")
            object.__setattr__(self, name, number)

    @torch.no_grad()
    def apply(self, tensors: Iterable[Tensor]) -> Float32[Tensor, " size"]:
        """The sketch of the vector that the tensors form one after the other, each row-major.

        Linear up to float32 rounding: values of any floating dtype are rounded to float32, and
        added up in float32. Scratch memory is 8 bytes per bucket and a few MB more, whatever the
        model's size. NaN and infinity reach the buckets of their entries, and no others.

        Args:
            tensors: One per parameter, always in the same order. They may lie on any device and
                need not be contiguous. If they lie on several devices, each adds up its own and the
                sums of `size` numbers meet on the first, which changes the rounding.

        Returns:
            The buckets, on the device of the first tensor.

        Raises:
            TypeError: Something else than dense, real floating point tensors arrived.
            ValueError: There is no tensor.
        """
        parts = _checked(tensors)
        n_blocks = -(-sum(part.numel() for part in parts) // self.size)
        if len(self._shifts) < n_blocks:
            self._shifts[:] = self._shift(torch.arange(n_blocks, device="cpu")).tolist()
        sums: dict[torch.device, Tensor] = {}
        start = 0
        for run in _runs(parts):
            device = run[0].device
            if device not in sums:
                # Twice as long as the sketch, so that no shifted block has to be cut in two.
                sums[device] = torch.zeros(2 * self.size, dtype=torch.float32, device=device)
            start = self._add(run, start, sums[device])
        first, *others = (s[: self.size] + s[self.size :] for s in sums.values())
        for other in others:
            first += other.to(first.device)
        return first

    def estimate(
        self, rows: Float[Tensor, "*T size"], indices: Int64[Tensor, " n"]
    ) -> Float[Tensor, "*T n"]:
        r"""Estimates of single entries of the vectors behind the sketches: $s_i (Sg)_{h(i)}$.

        Unbiased, with variance $(\|g\|^2 - \|g_B\|^2)/m$, B being the block of the entry. So only
        entries that exceed several $\|g\|/\sqrt m$ (heavy hitters) can be told from nothing; all
        others drown in those that share their bucket.

        It misleads as a search: all P/m entries of a bucket get the same estimate but for the sign.
        An entry is heavy if sketches of several seeds say so.

        Args:
            rows: One or more sketches.
            indices: Columns of the flat vector.

        Returns:
            One estimate for each row and index.

        Raises:
            ValueError: The rows have another length than `size`, or an index is negative.

        Example:
            >>> vector = torch.full((20_000,), 1e-3)
            >>> vector[12_345] = 1.0
            >>> sketches = [CountSketch(size=1024, seed=seed) for seed in range(2)]
            >>> found = [s.estimate(s.apply([vector]), torch.arange(20_000)) for s in sketches]
            >>> [int((each.abs() > 0.5).sum()) for each in found]  # one entry, and its company
            [20, 19]
            >>> torch.stack(found).abs().amin(0).argmax()
            tensor(12345)
        """
        if rows.shape[-1:] != (self.size,):
            raise ValueError(
                f"sketches of {self.size} buckets are required, but rows of shape "
                f"{tuple(rows.shape)} arrived. Use the CountSketch that they were made with."
            )
        if indices.numel() and int(indices.min()) < 0:
            raise ValueError(
                "indices count columns of the flat vector from 0, but "
                f"{int(indices.min())} arrived."
            )
        indices = indices.to(rows.device)
        block, offset = indices // self.size, indices % self.size
        buckets = (offset + self._shift(block)) % self.size
        return rows[..., buckets] * (1 - 2 * self._signs.at(indices)).to(rows.dtype)

    def standard_error(
        self,
        norm_a: float | int | Tensor,
        norm_b: float | int | Tensor,
        inner: float | int | Tensor,
    ) -> float | Tensor:
        r"""Standard deviation of an inner product of two sketches, an upper bound.

        $\sqrt{(\|a\|^2\|b\|^2 + \langle a,b\rangle^2)/m}$: what is subtracted from the variance
        (see `CountSketch`) needs the vectors. It matters where few blocks hold most of their mass;
        for n blocks of equal norms the standard deviation is $\sqrt{1 - 1/n}$ of this or less.

        Args:
            norm_a: Norm of one vector or of its sketch; numbers, or tensors that broadcast.
            norm_b: Norm of the other.
            inner: Their inner product.

        Returns:
            In the units of the inner product.

        Example:
            >>> CountSketch(size=10_000).standard_error(3.0, 4.0, 0.0)
            0.12
        """
        return ((norm_a**2 * norm_b**2 + inner**2) / self.size) ** 0.5

    def to_json(self) -> dict[str, Any]:
        """What a reader needs to make the same sketch, as plain strings and numbers."""
        return {"method": METHOD, "version": VERSION, "size": self.size, "seed": self.seed}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CountSketch:
        """The sketch that `to_json` describes.

        Raises:
            ValueError: It describes another method or version.
        """
        found = content.get("method"), content.get("version")
        if found != (METHOD, VERSION):
            raise ValueError(
                f"this phasescope makes sketches of the method {METHOD!r}, version {VERSION}, but "
                f"{found[0]!r}, version {found[1]!r}, arrived. Use the version that recorded them."
            )
        return cls(size=content["size"], seed=content["seed"])

    @cached_property
    def _keys(self) -> list[int]:
        """Of the signs and of the shifts."""
        counters = torch.arange(2 * self.seed + 1, 2 * self.seed + 3, device="cpu")
        return random_bits(counters, 0).tolist()

    @cached_property
    def _signs(self) -> SignBits:
        return SignBits(self._keys[0])

    @cached_property
    def _shifts(self) -> list[int]:
        """The shifts of the first blocks, as many as were needed until now."""
        return []

    def _shift(self, blocks: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return (random_bits(blocks, self._keys[1]) & (2**63 - 1)) % self.size

    def _add(self, tensors: list[Tensor], start: int, sums: Float32[Tensor, " n"]) -> int:
        """Add tensors of one device that begin at column `start`; return the column after them."""
        stop = start + sum(tensor.numel() for tensor in tensors)
        pieces = values = None
        for origin, bits in self._signs.stretches(start, stop, sums.device):
            if pieces is None or values is None:  # the same memory every time
                pieces, values = _pieces(tensors, start, len(bits)), bits.view(torch.float32)
            end = min(origin + len(bits), stop)
            position = start
            while position < end:
                piece = next(pieces)
                # Flipping sign bits is exact, and cheaper than making floats of them to multiply.
                _part(bits, position - origin, len(piece)).bitwise_xor_(piece)
                position += len(piece)
            # One block after the other: the same order of additions everywhere.
            while start < end:
                block, offset = divmod(start, self.size)
                n = min(end - start, self.size - offset)
                to = self._shifts[block] + offset
                sums[to : to + n].add_(_part(values, start - origin, n))
                start += n
        return stop


def _checked(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors as a list, if they can be sketched."""
    if isinstance(tensors, Tensor):
        raise TypeError(
            "one tensor per parameter is required, but a single tensor arrived. For one flat "
            "vector write apply([vector])."
        )
    parts = list(tensors)
    if not parts:
        raise ValueError("at least one tensor is required, but the list is empty.")
    for i, part in enumerate(parts):
        if not isinstance(part, Tensor):
            found = type(part).__name__
        elif part.layout != torch.strided:
            found = f"one of layout {part.layout}"
        elif not part.is_floating_point():
            found = f"one of {part.dtype}"
        else:
            continue
        raise TypeError(
            f"dense tensors of real floating point numbers are required, but number {i} is "
            f"{found}. Convert it first."
        )
    return parts


def _runs(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Neighbouring tensors that lie on the same device."""
    return [list(run) for _, run in itertools.groupby(tensors, key=lambda tensor: tensor.device)]


def _pieces(tensors: list[Tensor], start: int, width: int) -> Iterator[Int32[Tensor, " n"]]:
    """The float32 bits of the flat vector from column `start` on, cut at multiples of `width`."""
    for tensor in tensors:
        for flat in _flat(tensor.detach(), width):
            n, head = len(flat), width - start % width
            if flat.dtype == torch.float32:
                flat = flat.view(torch.int32)
            cuts = (flat,) if n <= head else (flat[:head], *flat[head:].split(width))
            for cut in cuts:
                yield cut if cut.dtype == torch.int32 else cut.to(torch.float32).view(torch.int32)
            start += n


def _flat(tensor: Tensor, limit: int) -> Iterator[Tensor]:
    """Contiguous 1-D parts of a tensor in row-major order; copies have at most `limit` entries."""
    if tensor.is_contiguous() or tensor.numel() <= limit:
        if tensor.numel():
            yield tensor.reshape(-1)
        return
    per_row = tensor.numel() // len(tensor)
    parts = tensor.split(limit // per_row) if per_row <= limit else tensor.unbind()
    for part in parts:
        yield from _flat(part, limit)


def _part(vector: Tensor, start: int, n: int) -> Tensor:
    """`n` entries from `start` on; without the cost of a view where that is all of them."""
    return vector if n == len(vector) else vector[start : start + n]
