"""Paths of low loss between two models, found by training the points in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.connectivity import State, check_alike
from phasescope.interventions.descent import loss_value

CurveKind = Literal["bezier", "chain"]


@dataclass(frozen=True, eq=False)
class Curve:
    r"""A curve through the weights of a model, given by its bends; call it with t for a state.

    $\theta(t) = \sum_i c_i(t)\,\theta_i$ over n bends, the first and last of which are the ends. Of
    a Bezier curve, $c_i(t) = \binom{n-1}{i} t^i (1-t)^{n-1-i}$; of a polygonal chain, $c_i(t) =
    \max(0, 1 - |t(n-1) - i|)$. What is no floating-point number is the first end's.

    Args:
        bends: States, both ends included.
        kind: ``"bezier"`` or ``"chain"``.

    Raises:
        ValueError: There are fewer than two bends, they are of different models, or the kind is
            another one.

    Example:
        >>> bends = [{"w": torch.tensor([x, y])} for x, y in ((0.0, 0.0), (1.0, 2.0), (2.0, 0.0))]
        >>> Curve(bends, "bezier")(0.5)["w"], Curve(bends, "chain")(0.25)["w"]
        (tensor([1., 1.]), tensor([0.5000, 1.0000]))

    References:
        Garipov et al. (2018), "Loss surfaces, mode connectivity, and fast ensembling of DNNs",
        arXiv:1802.10026, section 3.
    """

    bends: Sequence[State] = field(repr=False)
    kind: CurveKind = "bezier"

    def __post_init__(self) -> None:
        if len(self.bends) < 2 or self.kind not in ("bezier", "chain"):
            raise ValueError(
                "at least two bends of a 'bezier' or 'chain' are required, but "
                f"{len(self.bends)} bends and kind={self.kind!r} arrived."
            )
        for bend in self.bends[1:]:
            check_alike(self.bends[0], bend)

    def coefficients(self, t: float) -> list[float]:
        """Weights of the bends at a place; they sum to 1."""
        n = len(self.bends) - 1
        if self.kind == "chain":
            return [max(0.0, 1 - abs(t * n - i)) for i in range(n + 1)]
        return [math.comb(n, i) * t**i * (1 - t) ** (n - i) for i in range(n + 1)]

    def __call__(self, t: float) -> dict[str, Tensor]:
        """The state at a place between 0 and 1; gradients flow into the bends."""
        weights = self.coefficients(t)
        state = dict(self.bends[0])
        for name, value in state.items():
            if value.is_floating_point():
                state[name] = sum_of(weights, [bend[name] for bend in self.bends])
        return state


def sum_of(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """A weighted sum that leaves out what has weight 0, so that the ends are met exactly."""
    parts = [w * x if w != 1 else x for w, x in zip(weights, tensors, strict=True) if w != 0]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class CurveTraining:
    """A trained curve."""

    curve: Curve
    """Its bends are detached."""
    losses: Float64[Tensor, " steps"]
    """Loss at the place and on the batch of every step, without the penalty."""
    t: Float64[Tensor, " steps"]
    """The places."""


def train_curve(
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    first: State,
    second: State,
    batches: Iterable[Any],
    *,
    n_steps: int,
    kind: CurveKind = "bezier",
    n_bends: int = 3,
    trained: Sequence[str] | None = None,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> CurveTraining:
    r"""Train a curve between two models so that the loss is low all along it.

    In every step a place t is drawn uniformly and
    $L(\theta(t)) + \tfrac\lambda2 \|\theta(t)\|^2$ on the next batch is descended with respect to
    the bends between the ends, which begin on the straight line. The learning rate is constant for
    the first half, falls linearly to 1 % of it at nine tenths, and stays there.

    Args:
        loss: Scalar loss of a state and a batch.
        first: State at t = 0; not changed.
        second: State at t = 1; not changed. Permute it first where that is meant.
        batches: At least `n_steps` of them.
        n_steps: Updates.
        kind: ``"bezier"`` or ``"chain"``.
        n_bends: Bends with both ends; 3 of a Bezier curve are a quadratic one.
        trained: Names of the tensors to train; by default all that are floating-point numbers but
            the running statistics of batch norms, which are counted anew when measuring.
        lr: Learning rate of the gradient descent.
        momentum: Share of the velocity that is kept.
        weight_decay: $\lambda$, of the point on the curve.
        seed: Of the places.

    Returns:
        The curve; `path_values` measures along it.

    Raises:
        ValueError: The ends are of different models, a name in `trained` is not theirs, there are
            fewer than three bends, no step or too few batches, or a loss is not finite.
        TypeError: A loss is no tensor of one number.

    Example:
        >>> ring = lambda state, batch: (state["w"].norm() - 1).square()
        >>> ends = [{"w": torch.tensor([x, 0.1])} for x in (-0.995, 0.995)]
        >>> trained = train_curve(ring, *ends, [None] * 300, n_steps=300, lr=0.1)
        >>> bool(trained.losses[-50:].mean() < 0.1 * trained.losses[:50].mean())
        True

    References:
        Garipov et al. (2018), arXiv:1802.10026, sections 3.2 and 3.3.
    """
    check_alike(first, second)
    if n_bends < 3:
        raise ValueError(
            f"at least 3 bends are required for something to train, but n_bends is {n_bends}. "
            "The straight line is linear_path."
        )
    if n_steps < 1:
        raise ValueError(f"at least one step is required, but n_steps is {n_steps}.")
    floating = [n for n, a in first.items() if a.is_floating_point()]
    own = [n for n in floating if n.rpartition(".")[2] not in _STATISTICS]
    names = own if trained is None else trained
    unknown = [n for n in names if n not in floating]
    if unknown:
        raise ValueError(
            f"trained must name floating-point tensors of the states, but {unknown} are not among "
            f"{floating}."
        )
    ends = [{n: v.detach() for n, v in s.items()} for s in (first, second)]
    places = torch.linspace(0, 1, n_bends).tolist()[1:-1]
    free = [
        {n: torch.lerp(ends[0][n], ends[1][n], t).clone().requires_grad_() for n in names}
        for t in places
    ]
    fixed = [
        {
            n: torch.lerp(a, ends[1][n], t) if a.is_floating_point() else a
            for n, a in ends[0].items()
        }
        for t in places
    ]
    bends = [ends[0], *({**f, **b} for f, b in zip(fixed, free, strict=True)), ends[1]]
    curve = Curve(bends, kind)
    parameters = [p for bend in free for p in bend.values()]
    velocity = [torch.zeros_like(p) for p in parameters]
    generator, losses, drawn = torch.Generator().manual_seed(seed), [], []
    for step, batch in zip(range(n_steps), batches, strict=False):
        t = torch.rand((), generator=generator, dtype=torch.float64).item()
        state = curve(t)
        value = loss(state, batch)
        losses.append(loss_value(value, f"at step {step}, t = {t:.3f},", lr))
        drawn.append(t)
        if weight_decay:
            decayed = torch.stack([state[n].square().sum() for n in names]).sum()
            value = value + weight_decay / 2 * decayed
        grads = torch.autograd.grad(value, parameters, allow_unused=True)
        rate = lr * curve_schedule(step / n_steps)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, grads, strict=True):
                if g is not None:
                    v.mul_(momentum).add_(g)
                    p.sub_(v, alpha=rate)
    if len(losses) < n_steps:
        raise ValueError(f"{n_steps} batches are required, but there are {len(losses)}.")
    found = Curve([{n: v.detach() for n, v in bend.items()} for bend in bends], kind)
    return CurveTraining(
        found,
        torch.tensor(losses, dtype=torch.float64),
        torch.tensor(drawn, dtype=torch.float64),
    )


def curve_schedule(share: float) -> float:
    """Factor of the learning rate after a share of the training."""
    if share <= 0.5:
        return 1.0
    return max(0.01, 1 - 0.99 * (share - 0.5) / 0.4)
