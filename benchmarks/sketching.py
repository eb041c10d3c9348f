"""A sketch of one gradient, beside reading the gradient once and beside tables of buckets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row, alternate, summary
from torch import Tensor, nn

import phasescope as ps
from phasescope.models import ConvNet


@dataclass(frozen=True)
class Gradient:
    name: str
    shapes: tuple[tuple[int, ...], ...]
    size: int = 65_536
    turns: int = 30


def shapes(model: nn.Module) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(p.shape) for p in model.parameters())


def transformer(width: int, n_layers: int) -> nn.Module:
    """Only its shapes are used: on the device `meta` nothing is allocated."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width)
        return nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)


GRADIENTS = (
    Gradient("ConvNet", shapes(ConvNet())),
    Gradient("transformer, 6 layers of 384", shapes(transformer(384, 6))),
)
QUICK = (Gradient("tiny transformer", shapes(transformer(16, 1)), size=256, turns=1),)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    return [
        row
        for gradient in (QUICK if quick else GRADIENTS)
        for row in gradient_rows(gradient, quick=quick)
    ]


def gradient_rows(gradient: Gradient, *, quick: bool) -> list[Row]:
    """Two rows: the memory bound, and the classic CountSketch with stored tables."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in gradient.shapes]
    P = sum(tensor.numel() for tensor in tensors)
    sketch = ps.CountSketch(gradient.size)
    vector = torch.cat([tensor.flatten() for tensor in tensors])
    others: dict[str, Callable[[], Tensor]] = {
        "torch.linalg.vector_norm": lambda: torch.linalg.vector_norm(vector),
        "index_add_ with stored tables": tables(vector, gradient.size, generator),
    }
    calls = {"apply": lambda: sketch.apply(tensors), **others}
    alternate(calls, 2)  # the first calls set things up
    times = alternate(calls, gradient.turns)
    title = f"CountSketch of one gradient, {gradient.name}, P = {P:,}, size {gradient.size:,}"
    found = []
    for name, goal in zip(others, (0.25, None), strict=True):
        detail = {
            "ours_s": summary(times["apply"]),
            "other_s": summary(times[name]),
            # Of neighbouring calls, which the drift of the machine leaves alone.
            "ratio_of_turns": summary(
                [other / ours for ours, other in zip(times["apply"], times[name], strict=True)]
            ),
            "n_parameters": P,
            "n_tensors": len(tensors),
            "size": gradient.size,
        }
        mine, other = detail["ours_s"]["median"], detail["other_s"]["median"]
        note = f"{mine / other:.2g} times its duration" if goal else "12 bytes per parameter"
        found.append(Row(title, mine, other, name, goal, detail=detail, note=note, quick=quick))
    return found


def tables(vector: Tensor, size: int, generator: torch.Generator) -> Callable[[], Tensor]:
    """The classic CountSketch: a random bucket (int64) and sign (float32) for every entry."""
    buckets = torch.randint(0, size, vector.shape, generator=generator)
    signs = torch.randint(0, 2, vector.shape, generator=generator) * 2.0 - 1.0
    return lambda: torch.zeros(size).index_add_(0, buckets, vector * signs)
