"""A model's names, shapes, modules and configuration, as far as they can be read off it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from phasescope.components.description import Cut
from phasescope.parameters import ParameterTable, named_modules, named_parameters

Fused = Literal["concatenated", "interleaved"]

_CONFIGURATIONS = ("config", "cfg", "args")


@dataclass(frozen=True)
class Stated:
    """What the user said about the attention of every layer."""

    n_heads: int | None = None
    n_groups: int | None = None
    d_head: int | None = None
    fused: Fused | None = None


class ModelNames:
    """Every tensor of a model under each of its names, and every module under each of its paths.

    Args:
        model: Any module; prefixes that wrappers add are left out of the names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.table = ParameterTable.from_module(model)
        self.modules = named_modules(model)
        first = {id(parameter): name for name, parameter in named_parameters(model).items()}
        tied = named_parameters(model, tied=True)
        self.tensors = {name: first[id(parameter)] for name, parameter in tied.items()}
        """Every name, those of tied tensors included, and the name that the table has for it."""
        self.shapes = {name: tuple(parameter.shape) for name, parameter in tied.items()}

    def below(self, path: str) -> list[str]:
        """Names of the tensors of the module at `path`, or the one tensor of that name."""
        if path in self.tensors:
            return [path]
        prefix = f"{path}." if path else ""
        return [name for name in self.tensors if name.startswith(prefix)]

    def require(self, path: str) -> list[str]:
        """The same, where there must be some.

        Raises:
            KeyError: Neither a tensor nor a module with tensors has this name.
        """
        found = self.below(path)
        if not found:
            raise KeyError(
                f"the structure names {path!r}, but the model has no tensor and no module with "
                f"tensors of this name. The closest are {closest(path, self.paths())}."
            )
        return found

    def paths(self) -> list[str]:
        """Names of all tensors and paths of all modules with tensors."""
        return [*self.tensors, *self.module_paths()]

    def module_paths(self) -> list[str]:
        """Paths of all modules with tensors, in the order of these, owners first."""
        found: dict[str, None] = {}
        for name in self.tensors:
            parts = name.split(".")
            found.update(dict.fromkeys(".".join(parts[:n]) for n in range(len(parts))))
        return list(found)

    def rows_axis(self, path: str) -> int | None:
        """Axis of the outputs in the weight of a full layer; None for any other module."""
        module, shape = self.modules.get(path), self.shapes.get(f"{path}.weight", ())
        if module is None or len(shape) != 2:
            return None
        if shape == (getattr(module, "out_features", -1), getattr(module, "in_features", -1)):
            return 0
        # GPT-2's layers keep their weight as inputs × outputs.
        return 1 if type(module).__name__ == "Conv1D" and shape[1] == module.nf else None

    def width(self, path: str, *, outputs: bool) -> int:
        """Number of outputs (or inputs) of the full layer at `path`."""
        axis = self.rows_axis(path) or 0
        return self.shapes[f"{path}.weight"][axis if outputs else 1 - axis]

    def outputs(self, path: str, starts: range | tuple[int, ...], width: int) -> tuple[Cut, ...]:
        """Weight and bias of the full layer at `path`, cut along its outputs."""
        cuts = [Cut(f"{path}.weight", self.rows_axis(path) or 0, starts, width)]
        if f"{path}.bias" in self.tensors:
            cuts.append(Cut(f"{path}.bias", 0, starts, width))
        return tuple(cuts)

    def inputs(self, path: str, starts: range | tuple[int, ...], width: int) -> tuple[Cut, ...]:
        """Weight of the full layer at `path`, cut along its inputs."""
        return (Cut(f"{path}.weight", 1 - (self.rows_axis(path) or 0), starts, width),)

    def number(self, path: str, names: Iterable[str]) -> tuple[int, str] | None:
        """A whole number that the module at `path` says about itself, and where it says so.

        Its own attributes come first, then the configuration that it or its nearest ancestor keeps.
        """
        names = tuple(names)
        module = self.modules.get(path)
        for name in names:
            if (value := _count(module, name)) is not None:
                return value, f"{path or 'the model'}.{name}"
        parts = path.split(".") if path else []
        for n in range(len(parts), -1, -1):
            owner = ".".join(parts[:n])
            for key in _CONFIGURATIONS:
                found = _attribute(self.modules.get(owner), key)
                for name in names:
                    if (value := _count(found, name)) is not None:
                        return value, f"{owner + '.' if owner else ''}{key}.{name}"
        return None


def closest(name: str, names: Iterable[str], n: int = 3) -> list[str]:
    """The names most like `name`, or the first few if none is."""
    names = list(names)
    return difflib.get_close_matches(name, names, n=n, cutoff=0.4) or names[:n]


def _attribute(owner: Any, name: str) -> Any:
    if isinstance(owner, dict):
        return owner.get(name)
    # Some configurations raise on reading a number that differs between layers.
    try:
        return getattr(owner, name, None)
    except Exception:
        return None


def _count(owner: Any, name: str) -> int | None:
    value = _attribute(owner, name)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_count else None
