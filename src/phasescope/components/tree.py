"""What is selected, as a few lines of text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from phasescope.components.subspace import Subspace
from phasescope.parameters import Component

BYTES_PER_NORM = 4

_SELECTOR_NUMBER = re.compile(r"\d+")
# In names of tensors only the items of numbered lists share a line, not linear1 and linear2.
_PATH_NUMBER = re.compile(r"(?<![^.])\d+(?=\.)")


def component_lines(components: Mapping[str, Component | Subspace]) -> list[str]:
    """Components as lines: name, number of parameters, bytes in every recorded row of norms.

    Components of one size whose names differ in their numbers only share a line.

    Args:
        components: What is going to be recorded or analysed.

    Returns:
        A line for each group of components and one for their sum.

    Example:
        >>> heads = {f"l{i}h{h}": Component("", ((0, 8),)) for i in range(2) for h in range(4)}
        >>> for line in component_lines(heads):
        ...     print(line)
        l0...l1 h0...h3   8 x 8 parameters   32 B
        8 components, 32 B for a row of norms
    """
    groups: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for name, component in components.items():
        pattern = _SELECTOR_NUMBER if re.match(r"l\d+($|[ hgxn])", name) else _PATH_NUMBER
        numbers = tuple(int(number) for number in pattern.findall(name))
        groups.setdefault((pattern.sub("#", name), _size(component)), []).append(numbers)
    rows = [
        (label, f"{n} x {size}" if n > 1 else size, f"{BYTES_PER_NORM * n:,} B")
        for (template, size), members in groups.items()
        for label, n in _labels(template, members)
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    lines = [f"{a:{widths[0]}s}   {b:>{widths[1]}s}   {c:>{widths[2]}s}" for a, b, c in rows]
    n, plural = len(components), "s" * (len(components) != 1)
    return [*lines, f"{n:,} component{plural}, {BYTES_PER_NORM * n:,} B for a row of norms"]


def _size(component: Component | Subspace) -> str:
    if isinstance(component, Subspace):
        return f"{len(component.basis):,} directions"
    return f"{component.size:,} parameters"


def _labels(template: str, members: list[tuple[int, ...]]) -> list[tuple[str, int]]:
    """One label where the numbers fill a box, else one for every value of the first number."""
    axes = [sorted(set(values)) for values in zip(*members, strict=True)]
    fills = len(members) == len(set(members)) == len(list(itertools.product(*axes)))
    if fills and all(axis[-1] - axis[0] == len(axis) - 1 for axis in axes):
        return [(_label(template, axes), len(members))]
    if len(axes) <= 1:
        return [(_label(template, [[number] for number in m]), 1) for m in members]
    first: dict[int, list[tuple[int, ...]]] = {}
    for member in members:
        first.setdefault(member[0], []).append(member[1:])
    return [
        (label, n)
        for number, rest in first.items()
        for label, n in _labels(template.replace("#", str(number), 1), rest)
    ]


def _label(template: str, axes: list[list[int]]) -> str:
    """`l#h#` with its numbers: `l0...l7 h0...h7`."""
    label = template
    for axis in axes:
        before, after = label.split("#", 1)
        if axis[0] == axis[-1]:
            label = f"{before}{axis[0]}{after}"
        else:
            # The letter of a selector is repeated; a number inside a tensor's name is not.
            letter = before[-1:] if re.search(r"(^|\d| )[lhgxn]$", before) else ""
            gap = " " if letter and re.match(r"[hgxn]#", after) else ""
            label = f"{before}{axis[0]}...{letter}{axis[-1]}{gap}{after}"
    return label
