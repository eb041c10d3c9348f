"""Ensembles trained under masks, of every seed its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from phasescope.interventions.masks import Masks, drop_and_grow
from phasescope.interventions.pruning import (
    Grow,
    check_growth,
    drop_share,
    growth_scores,
    regrows,
)
from phasescope.training.ensemble_optimizers import EnsembleOptimizer, Params


class MaskedEnsemble:
    """Another ensemble's optimizer under masks, fixed or regrown; as `SparseTraining`.

    Every seed has masks of its own along the first axis, and is dropped from and grown by itself.

    Args:
        optimizer: Makes the steps; its `state_dict` names what it remembers of a parameter
            ``"NAME.…"``.
        masks: Of some parameters, seed first; changed when they are regrown.
        grow: ``"gradient"`` (RigL), ``"random"`` (SET), or None for fixed masks.
        every: Steps between two regrowths.
        until: Step from which masks stay.
        fraction: Share dropped at first.
        generator: Source of random growth, on the CPU.

    Raises:
        ValueError: A setting is missing or out of range, or a mask has another shape.

    Example:
        >>> from phasescope.training import EnsembleSGD
        >>> params = {"w": torch.ones(1, 3)}
        >>> masks = {"w": torch.tensor([[True, False, True]])}
        >>> optimizer = MaskedEnsemble(EnsembleSGD(0.1, momentum=0.9), masks)
        >>> optimizer.update(params, {"w": torch.ones(1, 3)})
        >>> params["w"]
        tensor([[0.9000, 0.0000, 0.9000]])
    """

    def __init__(
        self,
        optimizer: EnsembleOptimizer,
        masks: Masks,
        *,
        grow: Grow | None = None,
        every: int = 100,
        until: int = 0,
        fraction: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> None:
        check_growth(grow, every, until, fraction, generator)
        self.optimizer, self.masks, self.generator = optimizer, masks, generator
        self.grow: Grow | None = grow
        self.every, self.until, self.fraction = every, until, fraction
        self.n_updates = 0

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """One step of the weights, or of the masks."""
        for name, mask in self.masks.items():
            if params[name].shape != mask.shape:
                raise ValueError(
                    f"a mask of shape {tuple(params[name].shape)}, seeds first, is required for "
                    f"{name!r}, but it has {tuple(mask.shape)}."
                )
        self.n_updates += 1
        if regrows(self.n_updates, self.grow, self.every, self.until):
            self._regrow(params, grads)
            return
        # Products with zeros and ones: many times faster than filling where a mask is not.
        factors = {n: mask.to(params[n].dtype) for n, mask in self.masks.items()}
        masked = {n: g * factors[n] if n in factors else g for n, g in grads.items()}
        for name, factor in factors.items():
            params[name].mul_(factor)
        self.optimizer.update(params, masked)
        for name, factor in factors.items():
            params[name].mul_(factor)

    def _regrow(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        share = drop_share(self.n_updates, self.until, self.fraction)
        state = self.optimizer.state_dict()
        for name, mask in self.masks.items():
            theta = params[name]
            scores = growth_scores(name, grads[name], mask, self.grow, self.generator)
            parts = [
                drop_and_grow(w, m, s, math.floor(share * int(m.sum())))
                for w, m, s in zip(theta, mask, scores, strict=True)
            ]
            kept = torch.stack([k for k, _ in parts])
            theta.masked_fill_(~kept, 0)
            for key, value in state.items():
                if key.rpartition(".")[0] == name and value.shape == theta.shape:
                    state[key] = value * kept
            self.masks[name] = torch.stack([new for _, new in parts])
        self.optimizer.load_state_dict(state)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the optimizer inside, masks and number of updates."""
        masks = {f"mask {n}": m for n, m in self.masks.items()}
        return {**self.optimizer.state_dict(), **masks, "n_masked": torch.tensor(self.n_updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned; random growth is not part of it.

        Args:
            state: From an optimizer of the same parameters.
        """
        self.masks = {n: state[f"mask {n}"].clone() for n in self.masks}
        self.n_updates = int(state["n_masked"])
        inside = {n: v for n, v in state.items() if not n.startswith("mask ") and n != "n_masked"}
        self.optimizer.load_state_dict(inside)
