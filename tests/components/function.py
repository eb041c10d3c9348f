"""What each part of a model does: zero it, and look at heads and neurons from inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from phasescope.components import components, structure
from phasescope.parameters import Component


@dataclass
class Inside:
    """What was seen in one layer."""

    z: Tensor
    """Batch, position, head, d_head: what the output projection reads."""
    pattern: Tensor
    """Batch, head, position, position."""
    acts: Tensor
    """Batch, position, neuron: what the out-matrix reads."""


class Subject(Protocol):
    """A model that can be looked into and ablated without touching its weights."""

    model: nn.Module

    def look(self, model: nn.Module) -> list[Inside]:
        """All layers of a model of this kind, on fixed inputs."""
        ...

    def logits(
        self, model: nn.Module, layer: int = -1, *, heads: Tensor | None, neurons: Tensor | None
    ) -> Tensor:
        """Outputs, with the z of heads or the acts of neurons multiplied by 0 or 1 in one layer."""
        ...


@contextmanager
def zeroed(model: nn.Module, part: Component) -> Iterator[nn.Module]:
    """The model with a part at zero; afterwards it is as it was.

    Parameters stay where they are in memory: products round differently at another alignment.
    """
    parameters = list(model.parameters())
    before = nn.utils.parameters_to_vector(parameters).detach()
    changed = before.clone()
    changed[part.columns] = 0
    _fill(parameters, changed)
    try:
        yield model
    finally:
        _fill(parameters, before)


@torch.no_grad()
def _fill(parameters: list[nn.Parameter], values: Tensor) -> None:
    """Write a flat vector into the parameters."""
    for p, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
        p.copy_(part.view_as(p))


def members(n_heads: int, n_groups: int, g: int) -> list[int]:
    """The heads of a group."""
    r = n_heads // n_groups
    return list(range(g * r, (g + 1) * r))


def others(n: int, chosen: list[int]) -> list[int]:
    return [i for i in range(n) if i not in chosen]


def check_values(subject: Subject) -> None:
    """Without its values exactly a group's heads give nothing; the others do not notice."""
    before = subject.look(subject.model)
    own = structure(subject.model)
    parts = components(subject.model, "l*h* *", "l*g* *", structure=own)
    for i, layer in enumerate(own.layers):
        n, n_groups = layer.heads.n_heads, layer.heads.n_groups
        for g in range(n_groups):
            inside = members(n, n_groups, g)
            outside = others(n, inside)
            for name in {f"l{i}h{inside[0]} v", f"l{i}h{inside[-1]} v", f"l{i}g{g} v"}:
                part = parts[name]
                with zeroed(subject.model, part) as model:
                    z = subject.look(model)[i].z
                assert not z[:, :, inside].any(), name
                assert torch.equal(z[:, :, outside], before[i].z[:, :, outside]), name
                assert before[i].z.abs().amax((0, 1, 3)).all(), name


def check_outputs(subject: Subject) -> None:
    """Zeroing an output slice does what removing the head's output does."""
    own = structure(subject.model)
    parts = components(subject.model, "l*h* *", "l*g* *", structure=own)
    for i, layer in enumerate(own.layers):
        for h in range(layer.heads.n_heads):
            part = parts[f"l{i}h{h} o"]
            keep = torch.ones(layer.heads.n_heads)
            keep[h] = 0
            ablated = subject.logits(subject.model, i, heads=keep, neurons=None)
            with zeroed(subject.model, part) as model:
                found = subject.logits(model, heads=None, neurons=None)
            # The same sums of the same products, some of them zero.
            torch.testing.assert_close(found, ablated, rtol=1e-13, atol=1e-13)
            unchanged = subject.logits(subject.model, heads=None, neurons=None)
            assert (found - unchanged).abs().max() > 1e-4


def check_patterns(subject: Subject, rtol: float = 1e-14) -> None:
    """Without queries or keys attention is uniform where it may look; other heads' is the same."""
    before = subject.look(subject.model)
    own = structure(subject.model)
    parts = components(subject.model, "l*h* *", "l*g* *", structure=own)
    for i, layer in enumerate(own.layers):
        n, n_groups = layer.heads.n_heads, layer.heads.n_groups
        allowed = (before[i].pattern > 0).double()
        uniform = allowed / allowed.sum(-1, keepdim=True)
        wanted = {f"l{i}h{h} q": [h] for h in range(n)}
        wanted |= {f"l{i}g{g} q": members(n, n_groups, g) for g in range(n_groups)}
        wanted |= {f"l{i}g{g} k": members(n, n_groups, g) for g in range(n_groups)}
        wanted |= {f"l{i}h{h} k": members(n, n_groups, h * n_groups // n) for h in range(n)}
        for name, inside in wanted.items():
            part = parts[name]
            with zeroed(subject.model, part) as model:
                pattern = subject.look(model)[i].pattern
            outside = others(n, inside)
            torch.testing.assert_close(
                pattern[:, inside].double(), uniform[:, inside], rtol=rtol, atol=0
            )
            assert torch.equal(pattern[:, outside], before[i].pattern[:, outside]), name
            assert (before[i].pattern - uniform).abs().amax((0, 2, 3)).min() > 1e-4, name


def check_neurons(subject: Subject) -> None:
    """Without what leads into it exactly one activation vanishes; its column is what reads it."""
    before = subject.look(subject.model)
    unchanged = subject.logits(subject.model, heads=None, neurons=None)
    own = structure(subject.model)
    parts = components(subject.model, "neurons", "l*n* *", structure=own)
    for i, layer in enumerate(own.layers):
        n = layer.neurons.n
        assert n == before[i].acts.shape[-1]
        for j in range(n):
            with zeroed(subject.model, parts[f"l{i}n{j} in"]) as model:
                acts = subject.look(model)[i].acts
            assert not acts[..., j].any()
            assert torch.equal(acts[..., others(n, [j])], before[i].acts[..., others(n, [j])])
            keep = torch.ones(n)
            keep[j] = 0
            ablated = subject.logits(subject.model, i, heads=None, neurons=keep)
            with zeroed(subject.model, parts[f"l{i}n{j} out"]) as model:
                found = subject.logits(model, heads=None, neurons=None)
            torch.testing.assert_close(found, ablated, rtol=1e-13, atol=1e-13)
            whole = set(parts[f"l{i}n{j}"].columns.tolist())
            halves = [set(parts[f"l{i}n{j} {side}"].columns.tolist()) for side in ("in", "out")]
            assert whole == halves[0] | halves[1]
            assert not halves[0] & halves[1]
        assert (
            subject.logits(subject.model, i, heads=None, neurons=torch.zeros(n)) != unchanged
        ).any()


def check_unions(subject: Subject) -> None:
    """A head is its four parts; a group is the heads that share its keys and values."""
    own = structure(subject.model)
    parts = components(subject.model, "heads", "groups", "l*h* *", structure=own)
    columns = {name: set(part.columns.tolist()) for name, part in parts.items()}
    assert all(len(columns[name]) == part.size for name, part in parts.items())
    for i, layer in enumerate(own.layers):
        n, n_groups = layer.heads.n_heads, layer.heads.n_groups
        for h in range(n):
            pieces = [columns[f"l{i}h{h} {part}"] for part in "qkvo"]
            assert columns[f"l{i}h{h}"] == set.union(*pieces)
            assert len(columns[f"l{i}h{h}"]) == sum(map(len, pieces))
        for g in range(n_groups):
            heads = [columns[f"l{i}h{h}"] for h in members(n, n_groups, g)]
            assert columns[f"l{i}g{g}"] == set.union(*heads)
        groups = [columns[f"l{i}g{g}"] for g in range(n_groups)]
        assert len(set.union(*groups)) == sum(map(len, groups))
