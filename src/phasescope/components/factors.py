"""Where the matrices of every attention head lie in the flat vector, turned to one orientation.

Letters: d width of the model (one more with a bias), h width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from phasescope.components.description import Cut, Heads, Structure
from phasescope.components.layers import structure as derived_structure
from phasescope.components.reading import ModelNames, closest


@dataclass(frozen=True, eq=False)
class HeadFactors:
    """Columns of the flat vector that are one head's four matrices, each d × h.

    ``vector[factors.q]`` is W_Q as d × h however the model stores it; a bias of q, k or v is the
    last row, as if the input had a constant 1. The head uses them only in the products
    ``W_Q @ W_K.T`` and ``W_V @ W_O.T``.
    """

    name: str
    """Such as ``l0h1``."""
    q: Int64[Tensor, "d_in h"]
    """Of the queries."""
    k: Int64[Tensor, "d_in h"]
    """Of the keys."""
    v: Int64[Tensor, "d_in hv"]
    """Of the values."""
    o: Int64[Tensor, "d_out hv"]
    """Of the output, transposed."""


def head_factors(model: nn.Module, *, structure: Structure | None = None) -> dict[str, HeadFactors]:
    """The matrices of every attention head of a model, as columns of its flat vector.

    Nothing is read but names and shapes. Under grouped queries heads share keys and values.

    Args:
        model: Any module with attention that `components` can divide into heads.
        structure: What the heads are, where it cannot be derived.

    Returns:
        Heads by their names, ``l0h0`` first.

    Raises:
        ValueError: The model has no heads, or a matrix of a head is not two-dimensional.

    Example:
        >>> layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16)
        >>> factors = head_factors(layer)
        >>> list(factors), factors["l0h0"].q.shape, factors["l0h0"].o.shape
        (['l0h0', 'l0h1'], torch.Size([9, 4]), torch.Size([8, 4]))
    """
    names = ModelNames(model)
    layers = (derived_structure(model) if structure is None else structure).layers
    found: dict[str, HeadFactors] = {}
    for i, layer in enumerate(layers):
        if layer.heads is None:
            continue
        for j in range(layer.heads.n_heads):
            found[f"l{i}h{j}"] = _factors(names, layer.heads, f"l{i}h{j}", j)
    if not found:
        why = "; ".join(dict.fromkeys(x.unknown["heads"] for x in layers if "heads" in x.unknown))
        raise ValueError(
            f"a model with attention heads is required, but none could be derived{': ' * bool(why)}"
            f"{why}. State them with structure=ps.structure(model, n_heads=...)."
        )
    return found


def _factors(names: ModelNames, heads: Heads, name: str, j: int) -> HeadFactors:
    group = j // (heads.n_heads // heads.n_groups)
    places = {"q": (heads.q, heads.n_heads, j), "k": (heads.k, heads.n_groups, group)}
    places |= {"v": (heads.v, heads.n_groups, group), "o": (heads.o, heads.n_heads, j)}
    # Where the output's matrix is written outputs first, d × all heads, the others are h × d.
    out = heads.o[0] if heads.o else None
    outputs_first = out is not None and out.axis == 1 and len(names.shapes.get(out.tensor, ())) == 2
    parts = {
        part: _matrix(names, cuts, n, at, f"{name} {part}", head_first=part == "o" or outputs_first)
        for part, (cuts, n, at) in places.items()
    }
    return HeadFactors(name, **parts)


def _matrix(
    names: ModelNames, cuts: Sequence[Cut], n: int, j: int, what: str, *, head_first: bool
) -> Tensor:
    """Columns of a head's matrix as d × h, with the bias below."""
    matrix: Tensor | None = None
    biases = []
    for cut in cuts:
        if cut.tensor not in names.tensors:
            raise KeyError(
                f"the structure cuts {cut.tensor!r}, but the model has no tensor of this name. The "
                f"closest are {closest(cut.tensor, names.tensors)}."
            )
        if cut.axis == 2:  # a learned key or value of one more token, which is no bias
            continue
        shape = names.shapes[cut.tensor]
        offset, stop = names.table.interval(names.tensors[cut.tensor])
        starts, width = cut.pieces(shape, n)
        columns = torch.arange(offset, stop).view(shape).narrow(cut.axis, starts[j], width)
        if len(shape) == 3 and width == 1:  # heads first, then the two axes of the matrix
            piece = columns.squeeze(cut.axis)
            piece = piece.T if head_first else piece
        elif len(shape) == 2 and width == 1 and cut.axis == 0 and matrix is not None:
            piece = columns.flatten()  # a bias with the heads first
        elif len(shape) == 2:
            piece = columns if cut.axis == 1 else columns.T
        else:
            piece = columns.flatten()
        if piece.ndim == 1:
            biases.append(piece)
        elif piece.ndim == 2 and matrix is None:
            matrix = piece
        else:
            raise ValueError(
                f"the matrix of {what} must be one tensor of two axes (three with the heads "
                f"first), but {cut.tensor!r} of shape {shape} is another. State the structure."
            )
    if matrix is None:
        raise ValueError(
            f"a matrix is required for {what}, but the structure names none for it. State it: "
            "Heads(..., q=(Cut(...),), ...)."
        )
    return torch.cat([matrix, *(bias[None] for bias in biases)])
