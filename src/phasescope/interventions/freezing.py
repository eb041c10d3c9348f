"""Stages of a network frozen in sequence, by a schedule or when they have settled.

Letters: s stages, from the input on; W steps per window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def freezeout_ends(n_stages: int, first: float, power: int = 3) -> tuple[float, ...]:
    """When each stage is frozen under FreezeOut, as a share of the training.

    t_i = (t_0 + (1 − t_0) i / (s − 1))^power: the last stage is trained to the end.

    Args:
        n_stages: s, at least 2.
        first: t_0, before the power is taken; .8 in the published code.
        power: 1 for the linear schedule, 3 for the cubic one, which is the published default.

    Returns:
        Shares, increasing, the last 1.

    Raises:
        ValueError: Fewer than two stages, `first` not in (0, 1], or a power below 1.

    Example:
        >>> freezeout_ends(3, 0.5, 1)
        (0.5, 0.75, 1.0)

    References:
        Brock et al. (2017), "FreezeOut", arXiv:1706.04983, section 3.
    """
    if n_stages < 2 or not 0 < first <= 1 or power < 1:
        raise ValueError(
            "at least two stages, a first share in (0, 1] and a power of at least 1 are required, "
            f"but they are {n_stages}, {first} and {power}."
        )
    shares = [i / (n_stages - 1) for i in range(n_stages)]
    # So written the last one is 1 to the last bit.
    return tuple((first * (1 - share) + share) ** power for share in shares)


def settled(movement: Sequence[float], *, tolerance: float = 0.1, patience: int = 3) -> int | None:
    """The window at the end of which a stage has settled: its movement stays what it was.

    A stage has settled when the logarithm of its movement changed by less than `tolerance` from
    window to window, `patience` times in succession. What still learns speeds up or slows down;
    what merely diffuses in the noise of the batches moves evenly.

    Args:
        movement: Of each window: ‖w_{t+W} − w_t‖ / (‖w_{t+W}‖ Σ rate).
        tolerance: Of the change of the logarithm.
        patience: Changes in succession.

    Returns:
        Index of the window, None if it never is.

    Raises:
        ValueError: The tolerance or the patience is not positive.

    Example:
        >>> settled([8.0, 4.0, 2.0, 2.1, 2.0, 2.05])
        5
    """
    if not tolerance > 0 or patience < 1:
        raise ValueError(
            f"tolerance and patience must be positive, but they are {tolerance} and {patience}."
        )
    quiet = 0
    for i in range(1, len(movement)):
        a, b = movement[i - 1], movement[i]
        still = a > 0 and b > 0 and abs(math.log(b / a)) < tolerance
        quiet = quiet + 1 if still else 0
        if quiet == patience:
            return i
    return None


class SequentialFreezing:
    """Sets the rates of stages before every update, freezes them in sequence, watches them move.

    A frozen stage has no gradient, no momentum and no decay, and its batch norms are in evaluation
    mode: nothing in it changes any more. The backward pass ends at the first stage that is not.

    With `cosine` the rate of a stage falls to zero at the end of its training,
    ``½ rate/t_i (1 + cos(π t / t_i))`` with t its share that is over; the division by t_i gives
    every stage the same sum of rates, as FreezeOut does by default. Under the rule of `settled` a
    stage is frozen at the end of a window if it and all stages before it have settled.

    Call `before_update` before the forward pass of every update. Give it to a `Recorder` as part
    of the state, so that a resumed training goes on with the same stages frozen.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> optimizer = torch.optim.SGD(SequentialFreezing.groups(model, ("0", "1")), lr=0.1)
        >>> freezing = SequentialFreezing(
        ...     model, optimizer, ("0", "1"), n_steps=4, window=2, ends=(0.5, 1.0)
        ... )
        >>> for step in range(4):
        ...     freezing.before_update(step)
        ...     _ = model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
        >>> freezing.frozen_at
        [2, None]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        stages: Sequence[str],
        *,
        n_steps: int,
        window: int,
        ends: Sequence[float] | None = None,
        cosine: bool = False,
        when_settled: bool = False,
        tolerance: float = 0.1,
        patience: int = 3,
    ) -> None:
        """Freeze nothing yet.

        Args:
            model: Trained.
            optimizer: With one group per stage, see `groups`.
            stages: Names of modules from the input to the output; several of one stage are joined
                by a space.
            n_steps: Updates of the whole training.
            window: Steps between measurements of the movement.
            ends: When each stage is frozen, as shares of the training; by default never.
            cosine: Whether rates fall to zero at the end.
            when_settled: Whether stages are frozen once settled. The last one never is.
            tolerance: See `settled`.
            patience: See `settled`.

        Raises:
            ValueError: The groups or the ends do not match the stages, ends do not increase to 1,
                or both ways of freezing are asked for.
        """
        if len(optimizer.param_groups) != len(stages):
            raise ValueError(
                f"the optimizer needs one group for each of {len(stages)} stages, but it has "
                f"{len(optimizer.param_groups)}. Make it from SequentialFreezing.groups."
            )
        ends = tuple(ends) if ends is not None else (1.0,) * len(stages)
        if len(ends) != len(stages) or list(ends) != sorted(ends) or ends[-1] != 1 or ends[0] <= 0:
            raise ValueError(
                f"ends must be one share for each of {len(stages)} stages, increasing to 1, but "
                f"they are {ends}."
            )
        if when_settled and ends[0] < 1:
            raise ValueError("freeze by a schedule (ends) or when_settled, not both.")
        if window < 1 or n_steps < 1:
            raise ValueError(
                f"window and n_steps must be positive, but they are {window} and {n_steps}."
            )
        self._model, self._optimizer = model, optimizer
        self._modules = [[model.get_submodule(n) for n in stage.split()] for stage in stages]
        self._trained = {id(p) for p in model.parameters() if p.requires_grad}
        self._n_steps, self._window = n_steps, window
        self._ends, self._cosine, self._when_settled = ends, cosine, when_settled
        self._tolerance, self._patience = tolerance, patience
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._rates = [0.0] * len(stages)
        self._before: list[Tensor] = []
        self.movement: list[list[float]] = [[] for _ in stages]
        """Of every stage, one number per window while it was trained; see `settled`."""
        self.frozen_at: list[int | None] = [None] * len(stages)
        """Updates that each stage had when it was frozen; None while it is trained."""

    @staticmethod
    def groups(model: nn.Module, stages: Sequence[str]) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, one per stage.

        Args:
            model: The model.
            stages: Names of modules, as for the class.

        Raises:
            ValueError: The stages do not cover every parameter exactly once.

        Example:
            >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
            >>> [len(g["params"]) for g in SequentialFreezing.groups(model, ("0", "1"))]
            [2, 2]
        """
        found = [
            [p for name in stage.split() for p in model.get_submodule(name).parameters()]
            for stage in stages
        ]
        listed = [id(p) for params in found for p in params]
        if sorted(listed) != sorted(id(p) for p in model.parameters()):
            raise ValueError(
                f"stages must cover every parameter exactly once, but {', '.join(stages)} hold "
                f"{len(listed)} of {len(list(model.parameters()))}."
            )
        return [{"params": params} for params in found]

    @property
    def n_frozen(self) -> int:
        """Stages that are frozen."""
        return sum(at is not None for at in self.frozen_at)

    def before_update(self, step: int) -> None:
        """Measure and freeze what is due, and set the rates of the coming update.

        Args:
            step: Updates applied so far.
        """
        self._keep_frozen()
        if step % self._window == 0:
            self._measure()
            if self._when_settled:
                while self.n_frozen < len(self._modules) - 1 and self._is_settled(self.n_frozen):
                    self._freeze(self.n_frozen, step)
        for i, end in enumerate(self._ends):
            # A product such as .55 · 100 may lie above its whole number by rounding.
            due = math.ceil(end * self._n_steps * (1 - 1e-12))
            if self.frozen_at[i] is None and end < 1 and step >= due:
                self._freeze(i, step)
        for i, group in enumerate(self._optimizer.param_groups):
            if self.frozen_at[i] is None:
                group["lr"] = self._rate(i, step)
                self._rates[i] += group["lr"]

    def _rate(self, i: int, step: int) -> float:
        if not self._cosine:
            return self._base[i]
        end = self._ends[i]
        share = min(step / (end * self._n_steps), 1.0)
        return self._base[i] / end * 0.5 * (1 + math.cos(math.pi * share))

    def _is_settled(self, i: int) -> bool:
        found = settled(self.movement[i], tolerance=self._tolerance, patience=self._patience)
        return found is not None

    def _weights(self, i: int) -> Tensor:
        parts = [p.detach().flatten() for m in self._modules[i] for p in m.parameters()]
        return torch.cat(parts).clone()

    def _measure(self) -> None:
        now = [self._weights(i) for i in range(len(self._modules))]
        if self._before:
            for i, (a, b) in enumerate(zip(self._before, now, strict=True)):
                if self.frozen_at[i] is None and self._rates[i] > 0:
                    # A checkpoint may have brought what was before from another device.
                    change = (b.double() - a.to(b.device).double()).norm() / b.double().norm()
                    self.movement[i].append(float(change) / self._rates[i])
        self._before, self._rates = now, [0.0] * len(now)

    def _freeze(self, i: int, step: int) -> None:
        self.frozen_at[i] = step
        self._apply(i)

    def _keep_frozen(self) -> None:
        """Also after ``model.train()``, which puts every batch norm into training mode."""
        for i, at in enumerate(self.frozen_at):
            if at is not None:
                self._apply(i)

    def _apply(self, i: int) -> None:
        for module in self._modules[i]:
            for parameter in module.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
                self._optimizer.state.pop(parameter, None)
            for part in module.modules():
                if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                    part.eval()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "frozen_at": list(self.frozen_at),
            "movement": [list(row) for row in self.movement],
            "rates": list(self._rates),
            "before": list(self._before),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state back; the stages that were frozen then are frozen now, and no others.

        Args:
            state_dict: What `state_dict` returned.
        """
        before = zip(self.frozen_at, state_dict["frozen_at"], strict=True)
        thawed = [i for i, (now, then) in enumerate(before) if now is not None and then is None]
        self.frozen_at = list(state_dict["frozen_at"])
        self.movement = [list(row) for row in state_dict["movement"]]
        self._rates = list(state_dict["rates"])
        self._before = list(state_dict["before"])
        for module in (module for i in thawed for module in self._modules[i]):
            module.train(self._model.training)
            for parameter in module.parameters():
                parameter.requires_grad_(id(parameter) in self._trained)
        self._keep_frozen()
