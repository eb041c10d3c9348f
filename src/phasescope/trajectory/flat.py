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
from phasescope.trajectory.sharding import TensorNorms, is_dtensor, local_tensor, part_like


class FlatParameters:
    """Copies between a model's tensors and rows of the flat vector."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], table: ParameterTable) -> None:
        self.tensors = list(parameters.values())
        self.names = list(parameters)
        self.table = table
        self.norms = TensorNorms(self.tensors)
        self._spread = any(is_dtensor(tensor) for tensor in self.tensors)
        wide = any(p.dtype == torch.float64 for p in self.tensors)
        self._before_dtype = torch.float64 if wide else torch.float32
        self._before: list[Tensor] | None = None
        self._owned: set[int] = set()
        self._n_owned = -1
        # The parameters without gradient at their last update: name -> [first step, last, count].
        self.missing: dict[str, list[int]] = {}
        # The parameters whose gradient was sparse.
        self.densified: dict[str, None] = {}

    def fill(self, pieces: list[Tensor], tensors: list[Tensor]) -> None:
        """Copy one tensor per parameter into the pieces of a row, whatever their float type."""
        values = [tensor.detach() if tensor.requires_grad else tensor for tensor in tensors]
        # One call for all of them; large tensors are copied by all threads.
        copy = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
        copy(pieces, values, non_blocking=True)

    def gradients(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        step: int | None = None,
        scale: Tensor | float | None = None,
    ) -> list[Tensor]:
        """The gradients that the optimizer consumes, divided by `scale`; no graph hangs on them.

        A missing gradient is zero, and so is that of a parameter that the optimizer does not have:
        another one may have filled it. A sparse gradient is made dense.

        Args:
            optimizer: The optimizer.
            step: The update they are for; missing and sparse ones are marked then.
            scale: What they are still multiplied with.
        """
        owned = self._owned_by(optimizer)
        if scale is None and not self._spread and len(owned) >= len(self.tensors):
            usual = []
            for parameter in self.tensors:
                gradient = parameter.grad
                if gradient is None or gradient.layout is not torch.strided:
                    break
                usual.append(gradient.detach() if gradient.requires_grad else gradient)
            else:
                return usual
        found = []
        for name, parameter in zip(self.names, self.tensors, strict=True):
            gradient = parameter.grad if id(parameter) in owned else None
            if gradient is None:
                if step is not None:
                    span = self.missing.setdefault(name, [step, step, 0])
                    span[1] = step
                    span[2] += 1
                gradient = torch.zeros_like(local_tensor(parameter))
            elif gradient.layout != torch.strided:
                self.densified[name] = None
                gradient = gradient.to_dense()
            gradient = part_like(gradient, parameter) if self._spread else gradient.detach()
            # In float32: a half-precision gradient times a scale may not have a quotient there.
            found.append(gradient if scale is None else gradient.float() / scale)
        return found

    def has_gradients(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether there is anything to consume for the optimizer."""
        owned = self._owned_by(optimizer)
        return any(p.grad is not None for p in self.tensors if id(p) in owned)

    def _owned_by(self, optimizer: torch.optim.Optimizer) -> set[int]:
        """The ids of the optimizer's parameters; groups may be added while it trains."""
        n = sum(len(group["params"]) for group in optimizer.param_groups)
        if n != self._n_owned:
            groups = optimizer.param_groups
            ours = {id(p) for p in self.tensors}
            self._owned = {id(p) for group in groups for p in group["params"]} & ours
            self._n_owned = n
        return self._owned

    def weights(self) -> list[Tensor]:
        """The weights as they are now; of sharded ones the parts that this process holds."""
        if self._spread:
            return [local_tensor(parameter) for parameter in self.tensors]
        return [parameter.detach() for parameter in self.tensors]

    def keep(self) -> None:
        """Remember the weights before an update."""
        if self._before is None:
            self._before = [
                torch.empty(p.shape, dtype=self._before_dtype, device=p.device)
                for p in self.weights()
            ]
        for kept, weight in zip(self._before, self.weights(), strict=True):
            kept.copy_(weight)

    def change(self) -> list[Tensor]:
        """Weights now minus weights at `keep`."""
        if self._before is None:
            raise RuntimeError("keep() comes before change()")
        pairs = zip(self.weights(), self._before, strict=True)
        return [weight.to(before.dtype) - before for weight, before in pairs]

    def decay(
        self, optimizer: torch.optim.Optimizer, factor: DecayFactor, *, gradients_later: bool
    ) -> list[Tensor]:
        """The change that decoupled weight decay is about to make: ``-lr * weight_decay * w``."""
        factors: dict[int, float] = {}
        for group in optimizer.param_groups:
            # A parameter without gradient is skipped by the optimizer, and so is its decay.
            decayed = [p for p in group["params"] if gradients_later or p.grad is not None]
            factors |= {id(p): factor(group) for p in decayed}
        return [local_tensor(p) * -factors.get(id(p), 0.0) for p in self.tensors]

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
        return [local_tensor(s[name] if name in s else torch.zeros_like(p)) for s, p in pairs]
