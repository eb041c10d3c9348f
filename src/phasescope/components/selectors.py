"""Selectors: names such as ``l0h1`` turned into components of the flat parameter vector."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from phasescope.components.description import Cut, Heads, Layer, Names, Neurons, Structure
from phasescope.components.layers import structure as derived_structure
from phasescope.components.reading import ModelNames, closest
from phasescope.components.tree import component_lines
from phasescope.parameters import Component

_COLLECTIVE = {"layers": "l*", "heads": "l*h*", "groups": "l*g*", "neurons": "l*n*"}
_EDGES = ("embed", "pos_embed", "unembed")
_GRAMMAR = re.compile(
    r"""l(?P<layer>\d+|\*)\s*(
    (?P<block>attn|mlp|cross)
    | (?P<kind>[hgxn])(?P<index>\d+|\*)\s*(?P<part>q|k|v|o|in|out|\*)?
    )?""",
    re.VERBOSE,
)
_BLOCKS = ("attn", "mlp", "cross")
_KINDS = {
    "h": ("heads", "attention heads", ("q", "k", "v", "o")),
    "g": ("heads", "key/value groups", ("q", "k", "v", "o")),
    "x": ("cross_heads", "heads of an attention to an encoder", ("q", "k", "v", "o")),
    "n": ("neurons", "neurons", ("in", "out")),
}


class Components(dict[str, Component]):
    """Components under their names, in the order in which they were selected.

    An ordinary dictionary, except that it prints as a short tree of what is selected.

    Args:
        parts: The components.
        notes: What a reader of the tree should know.

    Example:
        >>> Components({"first": Component("first", ((0, 5),))})
        first   5 parameters   4 B
        1 component, 4 B for a row of norms
    """

    def __init__(self, parts: Mapping[str, Component], notes: Sequence[str] = ()) -> None:
        super().__init__(parts)
        self.notes = tuple(notes)

    def __or__(self, other: Mapping[str, Component]) -> Components:  # pyright: ignore
        notes = (*self.notes, *getattr(other, "notes", ()))
        return Components({**self, **other}, tuple(dict.fromkeys(notes)))

    def __repr__(self) -> str:
        return "\n".join([*component_lines(self), *self.notes])


def components(model: nn.Module, *selectors: str, structure: Structure | None = None) -> Components:
    """Named parts of a model's flat parameter vector: tensors, layers, heads, neurons.

    - ``full``: every parameter.
    - ``embed``, ``pos_embed``, ``unembed``: token and position embeddings; what makes the logits,
      its bias included. When tied, `embed` and `unembed` share a tensor.
    - ``l0``, ``l0 attn``, ``l0 mlp``, ``l0 cross``: a layer; its attention, its MLP, its attention
      to an encoder.
    - ``l0h1``: a head, that is its slices of the q, k, v and output matrices and of the biases of
      q, k and v. Under grouped queries its k and v are those of its group. ``l0h1 q`` (``k``,
      ``v``, ``o``) is one of the slices, ``l0x1`` a head of the attention to an encoder.
    - ``l0g0``: a key/value group, that is its k and v slices, and the q and output slices of its
      heads.
    - ``l0n17``: a neuron, that is its row of the in-matrix and of the gate, its bias and its column
      of the out-matrix. ``l0n17 in`` is all but the column, ``l0n17 out`` the column. A filter of
      a convolution counts as a neuron.
    - ``layers``, ``heads``, ``groups``, ``neurons``, ``tensors``: all of them.
    - ``blocks.0.attn.W_Q``: a tensor by its name.

    ``*`` stands for any index (``l*h*``, ``l0h1 *``) and works in names of tensors (``*.bias``).
    Layers are counted through the model in the order of its parameters, an encoder's before a
    decoder's. Components may overlap. Biases of output matrices, and norms inside an attention,
    belong to ``l0 attn`` but to no head. Frozen parameters belong to components like any other;
    tied ones are counted once and belong to every part that uses them.

    Args:
        model: Any module. Nothing is changed, and its weights are not read.
        selectors: At least one.
        structure: What the layers, heads and neurons are, where it cannot be derived.

    Returns:
        The components in the order of the selectors, each once; columns as in
        ``ParameterTable.from_module(model)``.

    Raises:
        KeyError: A selector is unknown or matches nothing; the closest are named.
        ValueError: Heads or neurons cannot be derived, or the structure contradicts the shapes.

    Example:
        >>> layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
        >>> parts = components(layer, "heads", "l0h1 v", "l0 mlp")
        >>> list(parts), parts["l0h1 v"].size
        (['l0h0', 'l0h1', 'l0h1 v', 'l0 mlp'], 36)
    """
    if not selectors:
        raise ValueError(
            "at least one selector is required, such as 'heads', 'layers' or 'full', but none "
            "arrived."
        )
    names = ModelNames(model)
    selection = _Selection(names, derived_structure(model) if structure is None else structure)
    parts: dict[str, Component] = {}
    for selector in selectors:
        for name, blocks in selection.select(selector):
            if name not in parts:
                parts[name] = Component(name, blocks=blocks())
    return Components(parts, selection.notes(parts))


# What a selector stands for: names of components, and functions that find their blocks.
_Found = Iterator[tuple[str, Callable[[], np.ndarray]]]


@dataclass(frozen=True)
class _Selection:
    """A model with its structure, ready to be selected from."""

    names: ModelNames
    structure: Structure
    cuts: dict[tuple[Cut, int], Callable[[int], tuple[int, int, int, int]]] = field(
        default_factory=dict
    )

    def select(self, selector: str) -> _Found:
        word = _COLLECTIVE.get(selector, selector)
        if word == "full":
            return iter([(word, lambda: self._whole(""))])
        if word in _EDGES and (edge := getattr(self.structure, word)):
            return iter([(word, lambda: self._whole(edge))])
        if word == "tensors":
            return self._tensors(list(self.names.table.names))
        if match := _GRAMMAR.fullmatch(word):
            found = list(self._grammar(match, selector))
        else:
            found = list(self._by_name(word))
        if not found:
            raise KeyError(self._unknown(selector))
        return iter(found)

    def _by_name(self, pattern: str) -> _Found:
        if pattern in self.names.tensors:
            return self._tensors([pattern])
        matching = fnmatch.filter(self.names.tensors, pattern) if set("*?[") & set(pattern) else []
        first: dict[str, str] = {}
        for name in matching:
            first.setdefault(self.names.tensors[name], name)
        return self._tensors(list(first.values()))

    def _tensors(self, names: list[str]) -> _Found:
        return ((name, lambda name=name: self._whole(name)) for name in names)

    def _grammar(self, match: re.Match[str], selector: str) -> _Found:
        for i in self._indices(match["layer"], len(self.structure.layers), "l", selector):
            layer = self.structure.layers[i]
            if match["kind"]:
                yield from self._pieces(match, i, layer, selector)
            elif not match["block"]:
                yield f"l{i}", lambda layer=layer: self._whole(layer.tensors)
            elif tensors := getattr(layer, match["block"]):
                yield f"l{i} {match['block']}", lambda tensors=tensors: self._whole(tensors)

    def _pieces(self, match: re.Match[str], i: int, layer: Layer, selector: str) -> _Found:
        kind = match["kind"]
        attribute, plural, parts = _KINDS[kind]
        found: Heads | Neurons | None = getattr(layer, attribute)
        if found is None:
            if match["layer"] == "*" and attribute not in layer.unknown:
                return  # a layer without attention among others that have one
            reason = layer.unknown.get(attribute, f"{self._path(layer)} shows no {plural}.")
            raise ValueError(
                f"{selector!r} requires the {plural} of layer l{i} ({self._path(layer)}), which "
                f"could not be derived: {reason}"
            )
        part = match["part"]
        if part not in (None, "*", *parts):
            raise KeyError(f"the parts of {kind!r} are {parts}, but {selector!r} arrived.")
        if isinstance(found, Neurons) and not found.out:
            if part == "out" and match["layer"] != "*":
                why = found.left_out or "they are the outputs of the model"
                raise ValueError(
                    f"{selector!r} requires what reads the neurons of l{i}, but {why}. If "
                    "something does, state it: structure=..., with Neurons(..., out=(Cut(...),))."
                )
            if part == "out":
                return
            parts = ("in",)
        counts = {"g": "n_groups", "n": "n"}.get(kind, "n_heads")
        for j in self._indices(match["index"], getattr(found, counts), f"l{i}{kind}", selector):
            for one in parts if part == "*" else (part,):
                name = f"l{i}{kind}{j}" + (f" {one}" if one else "")
                chosen = [one] if one else list(parts)
                yield name, lambda j=j, chosen=chosen: self._blocks(found, kind, j, chosen)

    def _indices(self, wanted: str, n: int, prefix: str, selector: str) -> range | list[int]:
        if wanted == "*":
            return range(n)
        if int(wanted) >= n:
            there = f"{prefix}0 ... {prefix}{n - 1}" if n else "no layers"
            raise KeyError(f"{selector!r} asks for {prefix}{wanted}, but the model has {there}.")
        return [int(wanted)]

    def _blocks(self, found: Heads | Neurons, kind: str, j: int, parts: list[str]) -> np.ndarray:
        """Blocks of one head, group or neuron."""
        pieces: list[tuple[tuple[Cut, ...], int, list[int]]] = []
        if isinstance(found, Neurons):
            cuts = {"in": found.into, "out": found.out}
            pieces = [(cuts[part], found.n, [j]) for part in parts]
        else:
            r = found.n_heads // found.n_groups
            heads = list(range(j * r, (j + 1) * r)) if kind == "g" else [j]
            group = j if kind == "g" else j // r
            for part in parts:
                if part in ("q", "o"):
                    pieces.append((getattr(found, part), found.n_heads, heads))
                else:
                    pieces.append((getattr(found, part), found.n_groups, [group]))
        blocks = [self._placed(cut, n)(one) for cuts, n, js in pieces for cut in cuts for one in js]
        return np.array(blocks, dtype=np.int64).reshape(-1, 4)

    def _placed(self, cut: Cut, n: int) -> Callable[[int], tuple[int, int, int, int]]:
        """The block of each piece of a tensor, checked once for all pieces.

        A piece is as many ranges as there are indices before its axis.
        """
        if (cut, n) in self.cuts:
            return self.cuts[cut, n]
        if cut.tensor not in self.names.tensors:
            raise KeyError(
                f"the structure cuts {cut.tensor!r}, but the model has no tensor of this name. The "
                f"closest are {closest(cut.tensor, self.names.tensors)}."
            )
        shape = self.names.shapes[cut.tensor]
        starts, width = cut.pieces(shape, n)
        offset, _ = self.names.table.interval(self.names.tensors[cut.tensor])
        inner, outer = math.prod(shape[cut.axis + 1 :]), math.prod(shape[: cut.axis])
        length, stride = width * inner, shape[cut.axis] * inner
        if outer == 1 or length == stride:
            length, stride, outer = length * outer, length * outer, 1
        self.cuts[cut, n] = lambda j: (offset + starts[j] * inner, length, stride, outer)
        return self.cuts[cut, n]

    def _whole(self, paths: Names) -> np.ndarray:
        """Blocks of whole tensors: touching ones are merged."""
        paths = (paths,) if isinstance(paths, str) else paths
        table = self.names.table
        tensors = {self.names.tensors[n] for path in paths for n in self.names.require(path)}
        intervals = sorted(table.interval(name) for name in tensors)
        return Component("", [(a, b) for a, b in intervals if a < b]).blocks

    def notes(self, parts: Mapping[str, Component]) -> list[str]:
        """What selected neurons lack."""
        chosen = {name.split("n")[0] for name in parts if re.fullmatch(r"l\d+n\d+( out)?", name)}
        lacking: dict[str, list[str]] = {}
        for i, layer in enumerate(self.structure.layers):
            if f"l{i}" in chosen and layer.neurons is not None and layer.neurons.left_out:
                lacking.setdefault(layer.neurons.left_out, []).append(f"l{i}")
        return [
            f"neurons of {', '.join(layers)} come without their column of the next layer: {why}"
            for why, layers in lacking.items()
        ]

    def _path(self, layer: Layer) -> str:
        return layer.tensors if isinstance(layer.tensors, str) else ", ".join(layer.tensors[:2])

    def _unknown(self, selector: str) -> str:
        """What an unknown selector could have meant."""
        there = ["full", *(e for e in _EDGES if getattr(self.structure, e)), "tensors"]
        layers = self.structure.layers
        if layers:
            there += ["layers", f"l0 ... l{len(layers) - 1}"]
        for block in _BLOCKS:
            there += [f"l{i} {block}" for i, x in enumerate(layers) if getattr(x, block)][:1]
        for kind, (attribute, _, _) in _KINDS.items():
            there += [f"l{i}{kind}0" for i, x in enumerate(layers) if getattr(x, attribute)][:1]
        words: list[str] = []
        for word, pattern in _COLLECTIVE.items():
            kind = _KINDS.get(pattern[2:3])
            if kind and any(getattr(x, kind[0]) for x in layers):
                words.append(word)
        known = dict.fromkeys([*there, *words, *self.names.tensors])
        return (
            f"{selector!r} selects nothing. This model has {', '.join(there)} and "
            f"{len(self.names.table.names)} tensors such as {self.names.table.names[0]!r}; the "
            f"closest to what was asked for are {closest(selector, known)}."
        )
