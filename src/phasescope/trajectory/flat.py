"""A model's tensors as rows of the flat vector, and their norms.

Axis letters: p parameters of the flat vector, n tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phasescope.errors import RecordingError
from phasescope.parameters import ParameterTable
from phasescope.trajectory.optimizers import DecayFactor


class FlatParameters:
    """Copies between a model's tensors and rows of the flat vector."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], table: ParameterTable) -> None:
        self.tensors = list(parameters.values())
        self.names = list(parameters)
        self.table = table
        self._sizes = list(table.sizes)
        wide = any(p.dtype == torch.float64 for p in self.tensors)
        self._before_dtype = torch.float64 if wide else torch.float32
        self._before: list[Tensor] | None = None
        # The parameters without gradient at their last update: name -> [first step, last, count].
        self.missing: dict[str, list[int]] = {}
        # The parameters whose gradient was sparse.
        self.densified: dict[str, None] = {}

    def fill(self, row: Tensor, tensors: list[Tensor]) -> None:
        """Copy one tensor per parameter into a row (padded, any float type)."""
        flat = [tensor.detach().reshape(-1) for tensor in tensors]
        for part, source in zip(self.parts(row), flat, strict=True):
            part.copy_(source, non_blocking=True)

    def parts(self, row: Tensor) -> tuple[Tensor, ...]:
        """Views of a row (padded), one per parameter."""
        return row[: self.table.size].split(self._sizes)

    def gradients(self, step: int, scale: Tensor | float | None = None) -> list[Tensor]:
        """The gradients of all parameters, divided by `scale`.

        A missing gradient is zero and marked as missing; a sparse one is made dense.
        """
        found = []
        for name, parameter in zip(self.names, self.tensors, strict=True):
            gradient = parameter.grad
            if gradient is None:
                span = self.missing.setdefault(name, [step, step, 0])
                span[1] = step
                span[2] += 1
                gradient = torch.zeros_like(parameter)
            elif gradient.layout != torch.strided:
                self.densified[name] = None
                gradient = gradient.to_dense()
            # In float32: a half-precision gradient times a scale may not have a quotient there.
            found.append(gradient if scale is None else gradient.float() / scale)
        return found

    def keep(self) -> None:
        """Remember the weights before an update."""
        if self._before is None:
            self._before = [
                torch.empty(p.numel(), dtype=self._before_dtype, device=p.device)
                for p in self.tensors
            ]
        for kept, parameter in zip(self._before, self.tensors, strict=True):
            kept.copy_(parameter.detach().reshape(-1))

    def change(self) -> list[Tensor]:
        """Weights now minus weights at `keep`."""
        if self._before is None:
            raise RuntimeError("keep() comes before change()")
        pairs = zip(self.tensors, self._before, strict=True)
        return [p.detach().reshape(-1).to(before.dtype) - before for p, before in pairs]

    def decay(
        self, optimizer: torch.optim.Optimizer, factor: DecayFactor, *, gradients_later: bool
    ) -> list[Tensor]:
        """The change that decoupled weight decay is about to make: ``-lr * weight_decay * w``."""
        factors: dict[int, float] = {}
        for group in optimizer.param_groups:
            # A parameter without gradient is skipped by the optimizer, and so is its decay.
            decayed = [p for p in group["params"] if gradients_later or p.grad is not None]
            factors |= {id(p): factor(group) for p in decayed}
        return [p.detach() * -factors.get(id(p), 0.0) for p in self.tensors]

    def moment(self, optimizer: torch.optim.Optimizer, name: str) -> list[Tensor]:
        """One state tensor per parameter; zero where the optimizer has none yet.

        Raises:
            RecordingError: The optimizer keeps a state, but nothing of this name for any parameter.
        """
        states = [optimizer.state.get(p, {}) for p in self.tensors]
        if any(states) and not any(name in state for state in states):
            kept = sorted({key for state in states for key in state})
            raise RecordingError(
                f"save= asks for 'moments/{name}', but after the update {type(optimizer).__name__} "
                f"keeps {kept}. Name one of these that has its parameter's shape."
            )
        pairs = zip(states, self.tensors, strict=True)
        return [s[name] if name in s else torch.zeros_like(p) for s, p in pairs]


def tensor_norms(tensors: list[Tensor]) -> Tensor:
    """The L2 norm of every tensor, as one vector of float32."""
    # One call for all tensors; PyTorch's own gradient clipping uses it too. Half precision would
    # round the norms as well, and float64 must not be narrowed before it is squared.
    narrow = any(t.dtype in (torch.bfloat16, torch.float16) for t in tensors)
    if narrow:
        tensors = [t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors]
    norms = torch._foreach_norm(tensors)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack([norm.float() for norm in norms])
