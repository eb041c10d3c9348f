"""Norms of all components of one gradient, beside the norms of its whole tensors."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rows import Row, alternate, summary
from torch import nn

import phasescope as ps
from phasescope.components import ComponentNorms
from phasescope.models import ConvNet

SELECTIONS = {
    "heads": ("heads",),
    "layers and heads": ("full", "layers", "heads"),
    "layers, heads and neurons": ("full", "layers", "heads", "neurons"),
    "tensors": ("tensors",),
    "layers and filters": ("full", "layers", "neurons"),
}


@dataclass(frozen=True)
class Model:
    name: str
    model: nn.Module
    selections: tuple[str, ...]
    turns: int = 20


def transformer(width: int, n_layers: int, n_heads: int) -> nn.Module:
    """PyTorch's own encoder, whose heads and neurons are found by themselves."""
    layer = nn.TransformerEncoderLayer(width, n_heads, 4 * width)
    return nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)


def models(*, quick: bool) -> tuple[Model, ...]:
    of_heads = ("heads", "layers and heads", "layers, heads and neurons")
    if quick:
        return (Model("tiny transformer", transformer(16, 1, 2), of_heads, turns=1),)
    return (
        Model("ConvNet", ConvNet(), ("tensors", "layers and filters")),
        Model("transformer, 8 layers of 320, 8 heads", transformer(320, 8, 8), of_heads),
    )


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    return [
        row(model, selection, quick=quick)
        for model in models(quick=quick)
        for selection in model.selections
    ]


def row(model: Model, selection: str, *, quick: bool) -> Row:
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.model.parameters())
    tensors = [torch.randn(p.shape, generator=generator) for p in parameters]
    parts = ps.components(model.model, *SELECTIONS[selection])
    norms = ComponentNorms(parts, ps.ParameterTable.from_module(model.model))
    calls = {"ours": lambda: norms(tensors), "other": lambda: torch._foreach_norm(tensors)}
    alternate(calls, 2)  # the first calls set things up
    times = alternate(calls, model.turns)
    squares = torch.cat([t.flatten() for t in tensors]).double().square()
    exact = torch.stack([squares[part.columns].sum() for part in parts.values()]).sqrt()
    worst = float((norms(tensors) / exact - 1).abs().max())
    P = sum(p.numel() for p in parameters)
    return Row(
        f"Norms of {len(parts):,} components ({selection}), {model.name}, P = {P:,}",
        summary(times["ours"])["median"],
        summary(times["other"])["median"],
        "_foreach_norm of the tensors",
        detail={
            "n_components": len(parts),
            "ours_s": summary(times["ours"]),
            "other_s": summary(times["other"]),
            "largest_relative_error": worst,
        },
        note=f"largest relative error {worst:.0e}",
        quick=quick,
    )
