"""Index sets of tensor axes, and what must be permuted together.

An axis is a sum of products of atoms: the 3·h·e columns of fused queries, keys and values are
``((h, e), (h, e), (h, e'))``, with the last factor running fastest. An atom is a set of indices
that may be permuted; wherever it occurs, it is permuted in the same way. Every operation that is
traced can only restrict what may be permuted: atoms are joined, divided, or frozen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Segment = tuple[int, ...]
"""Atoms whose product runs through part of an axis; empty for a single index."""
Axis = tuple[Segment, ...]
"""Segments one after the other."""
SINGLE: Axis = ((),)
"""An axis of length 1."""


class Atoms:
    """All atoms of one trace: a union-find whose members may also be divided or frozen.

    Example:
        >>> atoms = Atoms()
        >>> neurons, heads = atoms.axis(6), atoms.reshape([atoms.axis(6)], [2, 3])
        >>> atoms.join(neurons, atoms.reshape(heads, [6])[0])
        >>> [atoms.size(a) for a in atoms.resolve(neurons)[0]]
        [2, 3]
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._parents: list[int] = []
        self._pieces: dict[int, Axis] = {}
        self._frozen: dict[int, str] = {}
        self._opaque: dict[int, int] = {}

    def axis(self, size: int, *, frozen: str | None = None) -> Axis:
        """A new axis; with `frozen`, one whose order is fixed, for this reason."""
        if size == 1:
            return SINGLE
        self._sizes.append(size)
        self._parents.append(len(self._parents))
        atom = len(self._parents) - 1
        if frozen is not None:
            self._frozen[atom] = frozen
        return ((atom,),)

    def size(self, atom: int) -> int:
        """Number of indices of an atom."""
        return self._sizes[atom]

    def length(self, axis: Axis) -> int:
        """Number of indices of an axis."""
        return sum(self._segment_length(segment) for segment in axis)

    def why_frozen(self, atom: int) -> str | None:
        """Why an atom must not be permuted; None if it may be."""
        return self._frozen.get(self._root(atom))

    def resolve(self, axis: Axis) -> Axis:
        """The axis in atoms that are not divided any further."""
        return tuple(part for segment in axis for part in self._expand(segment))

    def freeze(self, axes: Iterable[Axis], reason: str) -> None:
        """Let none of the atoms of these axes be permuted; the first reason is kept."""
        for axis in axes:
            for segment in self.resolve(axis):
                for atom in segment:
                    self._frozen.setdefault(atom, reason)

    def join(self, first: Axis, second: Axis) -> None:
        """Permute two axes of one length in the same way."""
        while True:
            a, b = self.resolve(first), self.resolve(second)
            for left, right in zip(a, b, strict=False):
                n, m = self._segment_length(left), self._segment_length(right)
                if n != m:
                    progress = self._cut(left, m) if n > m else self._cut(right, n)
                else:
                    progress = self._join_products(left, right)
                if progress is None:
                    self.freeze([a, b], "axes that must agree are divided differently")
                    return
                if progress:
                    break
            else:
                return

    def cut(self, axis: Axis, at: int) -> tuple[Axis, Axis]:
        """The axis up to an index, and from there on."""
        while True:
            resolved, passed = self.resolve(axis), 0
            for number, segment in enumerate(resolved):
                if passed == at:
                    return resolved[:number], resolved[number:]
                length = self._segment_length(segment)
                if passed + length > at:
                    if self._cut(segment, at - passed) is None:
                        reason = "an axis is cut between the values of a factor"
                        self.freeze([resolved], reason)
                        total = self.length(axis)
                        return (
                            self.axis(at, frozen=reason),
                            self.axis(total - at, frozen=reason),
                        )
                    break
                passed += length
            else:
                return resolved, ()

    def reshape(self, axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
        """Axes of a reshaped tensor."""
        result: list[Axis] = []
        for old, new in _aligned([self.length(axis) for axis in axes], shape):
            group = [axes[i] for i in old]
            sizes = [shape[i] for i in new]
            result += self._regroup(group, sizes)
        return result

    def _regroup(self, group: list[Axis], sizes: list[int]) -> list[Axis]:
        group = [self.resolve(axis) for axis in group]
        group = [axis for axis in group if axis != SINGLE]
        wide = [i for i, n in enumerate(sizes) if n != 1]
        if len(group) == len(wide) == 1:
            return [group[0] if i == wide[0] else SINGLE for i in range(len(sizes))]
        if all(len(axis) == 1 for axis in group[1:]):
            rest = tuple(atom for axis in group[1:] for atom in axis[0])
            if len(wide) == 1:
                merged = tuple(segment + rest for segment in group[0])
                return [merged if i == wide[0] else SINGLE for i in range(len(sizes))]
            if group and len(group[0]) == 1:
                divided = self._divide([*group[0][0], *rest], sizes)
                if divided is not None:
                    return divided
        reason = "a reshape does not respect the parts of an axis"
        self.freeze(group, reason)
        return [self.axis(n, frozen=reason) for n in sizes]

    def _divide(self, factors: list[int], sizes: list[int]) -> list[Axis] | None:
        result = []
        for n in sizes:
            taken: list[int] = []
            while n > 1:
                if not factors:
                    return None
                factor = factors.pop(0)
                size = self._sizes[factor]
                if n % size == 0:
                    taken.append(factor)
                    n //= size
                elif size % n == 0:
                    outer, inner = self._split_product(factor, n)
                    taken.append(outer)
                    factors.insert(0, inner)
                    n = 1
                else:
                    return None
            result.append((tuple(taken),))
        return result

    def _join_products(self, left: Segment, right: Segment) -> bool | None:
        """Whether something was divided, so that all has to be resolved again; None: impossible."""
        for a, b in zip(left, right, strict=False):
            n, m = self._sizes[a], self._sizes[b]
            if n == m:
                self._union(a, b)
                continue
            larger, smaller = (a, m) if n > m else (b, n)
            if self._sizes[larger] % smaller:
                return None
            self._split_product(larger, smaller)
            return True
        return False

    def _split_product(self, atom: int, outer: int) -> tuple[int, int]:
        reason = self._frozen.get(atom)
        ((first,),) = self.axis(outer, frozen=reason)
        ((second,),) = self.axis(self._sizes[atom] // outer, frozen=reason)
        self._pieces[atom] = ((first, second),)
        return first, second

    def _cut(self, segment: Segment, at: int) -> bool | None:
        """Divide the leading atom into a sum, so that a segment ends at an index."""
        inner = self._segment_length(segment[1:])
        if at % inner:
            return None
        atom, reason = segment[0], self._frozen.get(segment[0])
        k = at // inner
        parts = self.axis(k, frozen=reason) + self.axis(self._sizes[atom] - k, frozen=reason)
        self._pieces[atom] = parts
        return True

    def _expand(self, segment: Segment) -> list[Segment]:
        result: list[Segment] = [()]
        for atom in segment:
            root = self._root(atom)
            if root not in self._pieces:
                pieces: list[Segment] = [(root,)]
            else:
                pieces = [p for piece in self._pieces[root] for p in self._expand(piece)]
            if len(pieces) == 1:
                result = [done + pieces[0] for done in result]
            elif result == [()]:
                result = pieces
            else:  # a sum that other factors run around: its parts do not lie side by side
                result = [(*done, self._as_one(root, pieces)) for done in result]
        return result

    def _as_one(self, root: int, pieces: list[Segment]) -> int:
        """A frozen atom in the place of a sum."""
        if root not in self._opaque:
            reason = "a part of an axis is cut inside a product"
            for piece in pieces:
                for atom in piece:
                    self._frozen.setdefault(atom, reason)
            ((self._opaque[root],),) = self.axis(self._sizes[root], frozen=reason)
        return self._opaque[root]

    def _union(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a != b:
            self._parents[b] = a
            if b in self._frozen:
                self._frozen.setdefault(a, self._frozen[b])

    def _root(self, atom: int) -> int:
        while self._parents[atom] != atom:
            self._parents[atom] = self._parents[self._parents[atom]]
            atom = self._parents[atom]
        return atom

    def _segment_length(self, segment: Segment) -> int:
        return math.prod(self._sizes[atom] for atom in segment)


def _aligned(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of neighbouring axes that hold as many numbers before and after."""
    if math.prod(old) == 0:
        return [(list(range(len(old))), list(range(len(new))))]
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left, right = [], []
        n = m = 1
        while True:
            if n == m and (left or right):
                break
            if n <= m and i < len(old):
                n *= old[i]
                left.append(i)
                i += 1
            elif j < len(new):
                m *= new[j]
                right.append(j)
                j += 1
            else:
                break
        groups.append((left, right))
    return groups
