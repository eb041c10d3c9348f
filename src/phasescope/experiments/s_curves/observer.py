"""What is recorded of a batch of factorizations while it trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import LowRankTargets

N_ANGLES = 24  # records at which principal angles are taken


class Observer:
    """Alignments, strengths, paths and angles of every seed, record by record."""

    def __init__(self, targets: LowRankTargets, steps: list[int]) -> None:
        self.targets = targets
        self.steps = steps
        self._U, self.S, Vh = targets.svd
        self._V = Vh.mT.contiguous()
        d, rank = targets.A.shape[1:]
        self._angle_steps = set(
            np.array(steps)[
                np.unique(np.linspace(0, len(steps) - 1, N_ANGLES).astype(int))
            ].tolist()
            if rank < d
            else []
        )
        self._alignments: list[Tensor] = []
        self._strengths: list[Tensor] = []
        self._moved: list[Tensor] = []
        self._angles: list[Tensor] = []
        self._states: list[ps.RankOneState] = []
        self._before: dict[str, Tensor] | None = None
        self.start: dict[str, Tensor] = {}
        self.start_strengths: Tensor = torch.empty(0)

    def __call__(self, step: int, params: dict[str, Tensor]) -> None:
        """Record the parameters after `step` updates."""
        X, Y = params["X"], params["Y"]
        if self._before is None:
            self.start = {name: value.clone() for name, value in params.items()}
            along = (self._U.mT @ X + self._V.mT @ Y) / 2  # the growing part, mode by mode
            self.start_strengths = along.square().sum(-1)
            self._moved.append(torch.zeros_like(X[:, 0]))
        else:
            moved = sum((params[k] - self._before[k]).square().sum(1) for k in ("X", "Y"))
            self._moved.append(torch.as_tensor(moved).sqrt())
        self._before = {name: value.clone() for name, value in params.items()}
        self._alignments.append(ps.alignments(X, self.targets.A))
        self._strengths.append(ps.mode_strengths(X, Y, self._U, self._V))
        if step in self._angle_steps:
            self._angles.append(ps.principal_angles(X, self.targets.A)[:, -1])
        if X.shape[-1] == 1:
            self._states.append(ps.rank_one_state(X, Y, self.targets.A, self.targets.B))

    @property
    def alignments(self) -> Tensor:
        """|cos|: seed, time, column of X, column of A."""
        return torch.stack(self._alignments, dim=1)

    @property
    def learned(self) -> Tensor:
        """Share of every singular mode of the target: seed, time, mode."""
        return torch.stack(self._strengths, dim=1) / self.S.unsqueeze(1)

    @property
    def moved(self) -> Tensor:
        """Distance of every column (of X and Y together) from the record before."""
        return torch.stack(self._moved, dim=1)

    @property
    def largest_angle(self) -> Tensor | None:
        """Largest angle between the spans of X and A at the end; None for full rank."""
        return self._angles[-1] if self._angles else None

    @property
    def rank_one(self) -> ps.RankOneState | None:
        """Reduced states: seed, time; None for other ranks."""
        if not self._states:
            return None
        parts = (torch.stack([getattr(s, n) for s in self._states], -1) for n in "uvpqs")
        return ps.RankOneState(*parts)

    def conserved_drift(self, params: dict[str, Tensor]) -> Tensor:
        """How far XᵀX − YᵀY moved, relative to the size of XᵀX + YᵀY at the start."""
        X, Y = self.start["X"].double(), self.start["Y"].double()
        before = ps.conserved_matrix(X, Y)
        after = ps.conserved_matrix(params["X"].double(), params["Y"].double())
        size = (X.mT @ X + Y.mT @ Y).flatten(1).norm(dim=1)
        return (after - before).flatten(1).norm(dim=1) / size
