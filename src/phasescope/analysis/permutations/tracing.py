"""Derives which axes of a model's parameters may be permuted together, from one call of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from phasescope.analysis.permutations.atoms import Atoms, Axis
from phasescope.analysis.permutations.rules import RULES, VIEWS, Labels, elementwise


class Tracing(TorchDispatchMode):
    """Labels the axes of every tensor while a model runs."""

    def __init__(self, state: Mapping[str, Tensor], inputs: Any, buffers: Sequence[str]) -> None:
        super().__init__()
        self.atoms = Atoms()
        self.labels: dict[int, Labels] = {}
        self._alive: list[Any] = []  # an id is that of one tensor only as long as it exists
        self._state = {id(value): name for name, value in state.items()}
        self._buffers, self._statistics = set(buffers), set[str]()
        self._used: list[Axis] = []
        self.occurrences: list[Labels] = []
        self.readings: list[tuple[int, int, Labels]] = []
        """Number of a multiplication, of an operand that is no parameter, and its labels."""
        self._raw = {id(value) for value in state.values()}
        self.unknown: list[str] = []
        self._n_reads = 0
        for value in state.values():
            self._give(value, [self.atoms.axis(n) for n in value.shape])
        for value in tree_leaves(inputs):
            if isinstance(value, Tensor):
                self._give(value, self._fixed(value, "an axis of the inputs"))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and label what comes out."""
        out = func(*args, **(kwargs or {}))
        given = complete(func, args, kwargs or {})
        values, name = list(given.values()), func._schema.name
        tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor)]
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if not outs:
            return out
        rule = elementwise if torch.Tag.pointwise in func.tags else RULES.get(name)
        if name not in VIEWS:
            self._used += [axis for t in tensors for axis in self.of(t)]
        if rule is None:
            reason = f"{name.removeprefix('aten::')} is not known"
            self.unknown.append(name)
            self.atoms.freeze([axis for t in tensors for axis in self.of(t)], reason)
            for t in outs:
                self._give(t, self._fixed(t, reason))
            return out
        labels = rule(self, values, given, out)
        self._note_reading(name, values)
        looks_on = name in VIEWS or name in ("aten::clone", "aten::_to_copy")
        if looks_on and all(id(t) in self._raw for t in tensors):
            self._raw |= {id(t) for t in outs}
        several = isinstance(out, tuple | list)
        for value, axes in zip(out, labels, strict=True) if several else [(out, labels)]:
            if isinstance(value, Tensor):
                axes = self._fixed(value, f"a by-product of {name}") if axes is None else axes
                self._give(value, axes)
        return out

    def of(self, value: Any) -> Labels:
        """Labels of a tensor; one that no operation made is a constant."""
        if id(value) not in self.labels:
            self._give(value, self._fixed(value, "an axis of a constant"))
        return self.labels[id(value)]

    def note_statistics(self, value: Any) -> None:
        """Let a buffer go along with its channels."""
        self._statistics.add(self._state.get(id(value), ""))

    def finish(self, state: Mapping[str, Tensor], output: Any) -> None:
        """Freeze what the call does not show to be free."""
        outputs = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        if not outputs:
            raise ValueError(
                "a model that returns tensors, or tuples, lists or dicts of them, is required, but "
                f"it returned {type(output).__name__}. Wrap it in a function that returns a tensor."
            )
        for value in outputs:
            if value.numel():
                self.atoms.freeze(self.of(value), "an axis of the outputs")
        for name in self._buffers - self._statistics:
            self.atoms.freeze(self.labels[id(state[name])], "an axis of a buffer")
        used = {a for axis in self._used for s in self.atoms.resolve(axis) for a in s}
        for value in state.values():
            for axis in self.labels[id(value)]:
                for segment in self.atoms.resolve(axis):
                    for atom in set(segment) - used:
                        self.atoms.freeze([((atom,),)], "not used in the call")

    def _give(self, value: Tensor, labels: Labels) -> None:
        if id(value) in self.labels:  # written in place: it has to agree with what it was
            for before, now in zip(self.labels[id(value)], labels, strict=True):
                self.atoms.join(before, now)
        else:
            self.labels[id(value)] = labels
            self._alive.append(value)
        self.occurrences.append(labels)

    def _fixed(self, value: Tensor, reason: str) -> Labels:
        return [self.atoms.axis(n, frozen=reason) for n in value.shape]

    def _note_reading(self, name: str, values: list[Any]) -> None:
        operands = _operands(name, values)
        for number, operand in enumerate(operands):
            if id(operand) not in self._raw:
                self.readings.append((self._n_reads, number, self.of(operand)))
        self._n_reads += bool(operands)


class Collecting(TorchDispatchMode):
    """Collects operands of multiplications, by the numbers of both, while a model runs again."""

    def __init__(self, wanted: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._wanted, self._n_reads = set(wanted), 0
        self.values: dict[tuple[int, int], Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation; keep its operands if they are wanted."""
        values = list(complete(func, args, kwargs or {}).values())
        operands = _operands(func._schema.name, values)
        for number, operand in enumerate(operands):
            if (self._n_reads, number) in self._wanted:
                self.values[self._n_reads, number] = operand.detach().clone()
        self._n_reads += bool(operands)
        return func(*args, **(kwargs or {}))


def _operands(name: str, values: list[Any]) -> list[Tensor]:
    """What a multiplication reads besides weights; nothing for other operations."""
    if name.startswith("aten::_scaled_dot_product"):
        return values[:3]
    if name in ("aten::addmm", "aten::baddbmm"):
        return values[1:2]
    if name in ("aten::mm", "aten::bmm", "aten::linear", "aten::convolution"):
        return values[:1]
    return []


def complete(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of an operation by name, in the order of its schema."""
    given = {}
    for number, argument in enumerate(func._schema.arguments):
        if number < len(args):
            given[argument.name] = args[number]
        elif argument.name in kwargs:
            given[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            given[argument.name] = argument.default_value
        else:
            given[argument.name] = None
    return given


def trace(
    function: Callable[..., Any],
    state: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    buffers: Sequence[str],
) -> Tracing:
    """Run ``function(state, *inputs)`` and label the axes of everything in it."""
    with visible_heads():
        tracing = Tracing(state, inputs, buffers)
        with torch.no_grad(), tracing:
            output = function(state, *inputs)
        tracing.finish(state, output)
    return tracing


@contextmanager
def visible_heads() -> Iterator[None]:
    """Without PyTorch's one operation for a whole layer of attention, in which heads are hidden."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
