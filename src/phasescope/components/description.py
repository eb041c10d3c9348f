"""What a model consists of: layers, attention heads and neurons as pieces of named tensors.

Letters: i layer, h query head, g key/value group, n neuron.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """One tensor cut along one axis into pieces, one for each head (or group, or neuron).

    Without `starts` the whole axis is cut evenly, in the order of the heads.

    Example:
        >>> Cut("wo.weight", axis=1).pieces((64, 128), 4)
        (range(0, 128, 32), 32)
        >>> keys = Cut("wqkv.weight", axis=0, starts=range(64, 128, 16), width=16)
        >>> keys.pieces((192, 64), 4)
        (range(64, 128, 16), 16)
    """

    tensor: str
    """Name of the tensor."""
    axis: int
    """The axis that is cut."""
    starts: range | tuple[int, ...] | None = None
    """Where on the axis each piece begins."""
    width: int | None = None
    """How many indices of the axis a piece has."""

    def __post_init__(self) -> None:
        """Check that starts and width come together."""
        if (self.starts is None) != (self.width is None):
            raise ValueError(
                f"the starts and the width of the pieces of {self.tensor!r} go together, but only "
                f"{'width' if self.starts is None else 'starts'} arrived. Give both, or neither to "
                "cut the axis evenly."
            )

    def pieces(self, shape: tuple[int, ...], n: int) -> tuple[range | tuple[int, ...], int]:
        """Where the n pieces of a tensor of this shape begin, and how wide they are.

        Raises:
            ValueError: The shape has no such axis, or the pieces do not fit into it.
        """
        where = f"the structure cuts {self.tensor!r} of shape {shape} along axis {self.axis}"
        if not 0 <= self.axis < len(shape):
            raise ValueError(f"{where}, which it does not have. Name an axis of the tensor.")
        length = shape[self.axis]
        if self.starts is None or self.width is None:
            if length % n:
                raise ValueError(
                    f"{where} into {n} equal pieces, but {length} is no multiple of {n}. Correct "
                    "the number, or give the starts and the width of the pieces."
                )
            return range(0, length, length // n), length // n
        ends = [start + self.width for start in self.starts]
        if len(ends) != n or min(self.starts) < 0 or max(ends) > length or self.width < 1:
            raise ValueError(
                f"{where} into pieces of width {self.width} at {_few(self.starts)}: {n} starts are "
                f"required, and all pieces within 0 ... {length}. Correct the starts."
            )
        return self.starts, self.width


@dataclass(frozen=True)
class Heads:
    """The attention heads of a layer.

    Query head h uses the keys and values of group ``h // (n_heads // n_groups)``, as all common
    implementations of grouped queries do.
    """

    n_heads: int
    """Query heads."""
    n_groups: int
    """Key/value heads; as many as `n_heads` without grouped queries, 1 for multi-query."""
    q: tuple[Cut, ...]
    """Query matrix and bias, a piece for each head."""
    k: tuple[Cut, ...]
    """Key matrix and bias, a piece for each group."""
    v: tuple[Cut, ...]
    """Value matrix and bias, a piece for each group."""
    o: tuple[Cut, ...]
    """Output matrix, a piece for each head. Its bias belongs to no head."""

    def __post_init__(self) -> None:
        if self.n_heads < 1 or self.n_groups < 1 or self.n_heads % self.n_groups:
            raise ValueError(
                "the number of heads must be a positive multiple of the number of key/value "
                f"groups, but n_heads={self.n_heads} and n_groups={self.n_groups}."
            )


@dataclass(frozen=True)
class Neurons:
    """The hidden neurons of a layer; filters of a convolution count as neurons."""

    n: int
    """Number of neurons."""
    into: tuple[Cut, ...]
    """What makes the activation: in-matrix, gate and their biases."""
    out: tuple[Cut, ...] = ()
    """What reads the activation: the out-matrix."""
    left_out: str = ""
    """What would belong to a neuron but could not be found, and why."""


@dataclass(frozen=True)
class Layer:
    """A layer of the model. All but the first field may be left out."""

    tensors: Names
    """Names of its tensors, or of modules whose tensors all belong to it."""
    attn: Names = ()
    """The same for its attention."""
    mlp: Names = ()
    """The same for its MLP."""
    cross: Names = ()
    """The same for the attention of a decoder to its encoder."""
    heads: Heads | None = None
    """Heads of the attention."""
    cross_heads: Heads | None = None
    """Heads of the attention to the encoder."""
    neurons: Neurons | None = None
    """Neurons of the MLP."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why `heads`, `cross_heads` or `neurons` could not be derived."""


@dataclass(frozen=True)
class Structure:
    """Which tensors, and which pieces of them, are the layers, heads and neurons of a model.

    `phasescope.structure` derives it for the common families. For any other model write it down and
    pass it on as ``structure=``. `verify` checks by function that the pieces are what they are said
    to be.

    Example:
        >>> heads = Heads(
        ...     n_heads=4,
        ...     n_groups=2,
        ...     q=(Cut("block.0.wq", axis=1),),
        ...     k=(Cut("block.0.wk", axis=1),),
        ...     v=(Cut("block.0.wv", axis=1),),
        ...     o=(Cut("block.0.wo", axis=0),),
        ... )
        >>> Structure((Layer("block.0", heads=heads),), embed="tokens").layers[0].heads.n_heads
        4
    """

    layers: tuple[Layer, ...]
    """The layers, l0 first."""
    embed: Names = ()
    """The token embedding: names of tensors or modules."""
    pos_embed: Names = ()
    """Learned position embeddings."""
    unembed: Names = ()
    """What turns the last hidden state into logits, its bias included; it may be the tensor of
    `embed`."""


def _few(starts: range | tuple[int, ...]) -> str:
    return ", ".join(map(str, starts[:4])) + (", ..." if len(starts) > 4 else "")
