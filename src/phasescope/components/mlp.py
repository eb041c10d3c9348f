"""Which pieces of which matrices belong to a neuron of an MLP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from phasescope.components.description import Cut, Neurons
from phasescope.components.reading import ModelNames

# Names of the layers into the neurons (the gate among them) and out of them.
_PAIRS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("linear1",), "linear2"),
    (("fc1",), "fc2"),
    (("fc_in",), "fc_out"),
    (("wi_0", "wi_1"), "wo"),
    (("wi",), "wo"),
    (("Wi",), "Wo"),
    (("w1", "w3"), "w2"),
    (("w1",), "w2"),
    (("w_1",), "w_2"),
    (("lin1",), "lin2"),
    (("W_gate", "W_in"), "W_out"),
    (("W_in",), "W_out"),
    (("intermediate.dense",), "output.dense"),
    (("up",), "down"),
)
# Gate and value in one matrix, one below the other.
_GATED = ("gate_up_proj", "Wi")
_SEQUENCES = ("mlp", "ff", "ffn", "feed_forward", "net")


@dataclass(frozen=True)
class Mlp:
    """An MLP that was found in a layer."""

    tensors: tuple[str, ...]
    """What belongs to it."""
    neurons: Neurons | None
    """Its neurons; None if they could not be derived."""
    problem: str
    """Why not."""


def find_mlp(names: ModelNames, layer: str, attention: tuple[str, ...]) -> Mlp | None:
    """The MLP of a transformer's layer.

    Args:
        names: The model.
        layer: Path of the layer.
        attention: Paths of the attentions, which are left out of the search.
    """
    inside = [n for n in names.below(layer) if not n.startswith(tuple(f"{a}." for a in attention))]
    paths = dict.fromkeys(
        ".".join(parts[:n])
        for parts in (name.split(".") for name in inside)
        for n in range(len(layer.split(".")) if layer else 0, len(parts))
    )
    found = [
        mlp
        for path in paths
        if (mlp := _from_tensors(names, path) or _from_layers(names, path, whole=path != layer))
    ]
    if len(found) > 1:
        tensors = tuple(name for mlp in found for name in mlp.tensors)
        return Mlp(
            tensors,
            None,
            "neurons are numbered in layers with one MLP, but this one has several, perhaps "
            f"experts: {', '.join(tensors[:3])}, ...",
        )
    return found[0] if found else None


def _from_layers(names: ModelNames, path: str, *, whole: bool) -> Mlp | None:
    """Full layers with known names, or the two full layers of an nn.Sequential."""
    for ups, down in [*_PAIRS, *_sequence(names, path)]:
        layers = [f"{path}.{child}" if path else child for child in (*ups, down)]
        if all(f"{layer}.weight" in names.tensors for layer in layers):
            tensors = (path,) if whole else tuple(layers)
            if any(names.rows_axis(layer) is None for layer in layers):
                return Mlp(tensors, None, f"{layers} must be full layers, and not all are.")
            return _neurons(names, tensors, layers[:-1], layers[-1], gated=ups[0] in _GATED)
    return None


def _sequence(names: ModelNames, path: str) -> list[tuple[tuple[str, ...], str]]:
    module = names.modules.get(path)
    if not isinstance(module, nn.Sequential) or path.split(".")[-1] not in _SEQUENCES:
        return []
    full = [name for name, child in module.named_children() if isinstance(child, nn.Linear)]
    return [((full[0],), full[1])] if len(full) == 2 else []


def _neurons(
    names: ModelNames, tensors: tuple[str, ...], ups: list[str], down: str, *, gated: bool
) -> Mlp:
    n = names.width(down, outputs=False)
    widths = [names.width(up, outputs=True) for up in ups]
    if any(width != n * (1 + gated) for width in widths):
        wanted = f"{n} outputs" + (", twice for gate and value," * gated)
        return Mlp(tensors, None, f"{ups} must have {wanted} for {down!r}, but have {widths}.")
    starts = [range(half * n, (half + 1) * n) for half in range(1 + gated)]
    into = [cut for up in ups for start in starts for cut in names.outputs(up, start, 1)]
    return Mlp(tensors, Neurons(n, tuple(into), names.inputs(down, range(n), 1)), "")


def _from_tensors(names: ModelNames, path: str) -> Mlp | None:
    """TransformerLens: the tensors W_in, W_out and perhaps W_gate and b_in of the module itself."""
    prefix = f"{path}." if path else ""
    W_in, W_out, b_in = (prefix + name for name in ("W_in", "W_out", "b_in"))
    shapes = names.shapes
    if len(shapes.get(W_in, ())) != 2 or len(shapes.get(W_out, ())) != 2:
        return None
    axis = _neuron_axis(shapes[W_in], shapes[W_out], shapes.get(b_in))
    if axis is None:
        problem = (
            f"which axis of {W_in!r} the neurons lie on must show in the shapes, but "
            f"{shapes[W_in]} and {shapes[W_out]} do not tell."
        )
        return Mlp((path,), None, problem)
    n = shapes[W_in][axis]
    into = [Cut(W, axis, range(n), 1) for W in (W_in, prefix + "W_gate") if W in names.tensors]
    into += [Cut(b, 0, range(n), 1) for b in (b_in, prefix + "b_gate") if b in names.tensors]
    return Mlp((path,), Neurons(n, tuple(into), (Cut(W_out, 1 - axis, range(n), 1),)), "")


def _neuron_axis(
    W_in: tuple[int, ...], W_out: tuple[int, ...], b_in: tuple[int, ...] | None
) -> int | None:
    """1 where the matrices are inputs × outputs, 0 where they are outputs × inputs."""
    if W_in != W_out[::-1]:
        return None
    if b_in is not None and W_in[0] != W_in[1] and b_in[0] in W_in:
        return W_in.index(b_in[0])
    return None
