r"""How a factorization $Z = X Y^\top$ grows under gradient flow: exact answers.

The loss is $\frac12 \lVert C - Z \rVert_F^2$ and, with weight decay, $\frac\lambda2 (\lVert X
\rVert^2 + \lVert Y \rVert^2)$ more; time is learning rate x steps, for small learning rates. For a
target $C = a b^\top$ of rank one and factors of one column, four numbers say everything, whatever
the dimension:

- u = x·a/|a| and v = y·b/|b|, the aligned parts,
- p = |x|² - u² and q = |y|² - v², the irrelevant parts.

In the balanced case u = v and p = q there are closed forms for w = u² and p.

Axes: batch (such as seeds), time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_STEP = 0.03  # integration step x fastest rate: an error of about 1e-9 over a training


@dataclass(frozen=True, eq=False)
class RankOneState:
    """A rank-one factorization, reduced to what its dynamics depend on."""

    u: Float[Tensor, "*batch"]
    """Part of x along the target's a."""
    v: Float[Tensor, "*batch"]
    """Part of y along the target's b."""
    p: Float[Tensor, "*batch"]
    """Squared length of the rest of x."""
    q: Float[Tensor, "*batch"]
    """Squared length of the rest of y."""
    s: Float[Tensor, "*batch"]
    """The target's singular value, the product of the lengths of a and b."""

    @property
    def loss(self) -> Float[Tensor, "*batch"]:
        r"""$\frac12 \lVert C - Z \rVert_F^2$, without the decay's part."""
        u, v, p, q, s = self.u, self.v, self.p, self.q, self.s
        return ((s - u * v) ** 2 + u**2 * q + p * v**2 + p * q) / 2


def rank_one_state(
    X: Float[Tensor, "*batch d 1"],
    Y: Float[Tensor, "*batch d 1"],
    A: Float[Tensor, "*batch d 1"],
    B: Float[Tensor, "*batch d 1"],
) -> RankOneState:
    """Aligned and irrelevant parts of one-column factors X, Y of a target A Bᵀ, in float64.

    Args:
        X: Left factor.
        Y: Right factor.
        A: Left factor of the target.
        B: Right factor of the target.

    Returns:
        u, v, p, q and s.

    Example:
        >>> x, a = torch.tensor([[3.0], [4.0]]), torch.tensor([[2.0], [0.0]])
        >>> state = rank_one_state(x, x, a, a)
        >>> state.u.item(), state.p.item(), state.s.item()
        (3.0, 16.0, 4.0)
    """
    x, y, a, b = (m.squeeze(-1).double() for m in (X, Y, A, B))
    a_length, b_length = a.norm(dim=-1), b.norm(dim=-1)
    a_hat, b_hat = a / a_length.unsqueeze(-1), b / b_length.unsqueeze(-1)
    u, v = (x * a_hat).sum(-1), (y * b_hat).sum(-1)
    # Not |x|² - u², which cancels once x is aligned.
    p = (x - u.unsqueeze(-1) * a_hat).square().sum(-1)
    q = (y - v.unsqueeze(-1) * b_hat).square().sum(-1)
    return RankOneState(u, v, p, q, a_length * b_length)


def rank_one_flow(
    start: RankOneState, times: Float[Tensor, " time"], *, decay: float = 0.0
) -> RankOneState:
    r"""The exact path of a rank-one factorization from any start, by its four equations.

    $u' = s v - (v^2 + q + \lambda)\, u$, $v' = s u - (u^2 + p + \lambda)\, v$,
    $p' = -2 (v^2 + q + \lambda)\, p$, $q' = -2 (u^2 + p + \lambda)\, q$.

    Integrated in float64 by the classical Runge-Kutta method with steps short enough for relative
    errors of about 1e-9. Gradient descent with learning rate $\eta$ deviates from it by O($\eta$).

    Args:
        start: The state at time 0; one or a batch.
        times: Increasing, from 0 on; learning rate x steps.
        decay: Weight decay $\lambda$ of the loss $+ \frac\lambda2(|x|^2 + |y|^2)$.

    Returns:
        The states, with time as their last axis.

    Raises:
        ValueError: If the times are negative or do not increase, or the decay is negative.

    Example:
        >>> start = RankOneState(*(torch.tensor(x) for x in (0.1, 0.1, 0.99, 0.99, 1.0)))
        >>> path = rank_one_flow(start, torch.tensor([0.0, 3.313, 20.0]))
        >>> [round(value, 3) for value in (path.u * path.v).tolist()]
        [0.01, 0.5, 1.0]

    References:
        Saxe, McClelland & Ganguli (2014), "Exact solutions to the nonlinear dynamics of learning in
        deep linear neural networks", arXiv:1312.6120, for the aligned case.
    """
    times = times.double()
    if len(times) and (times[0] < 0 or bool((times.diff() <= 0).any())):
        raise ValueError("times must increase from 0 or later. Sort them and drop repetitions.")
    _check_decay(decay)
    state = torch.stack([start.u, start.v, start.p, start.q]).double()
    s = start.s.double()

    def slope(y: Tensor) -> Tensor:
        u, v, p, q = y
        left, right = v * v + q + decay, u * u + p + decay
        return torch.stack([s * v - left * u, s * u - right * v, -2 * left * p, -2 * right * q])

    path, now = [], 0.0
    for time in times.tolist():
        while now < time:
            u, v, p, q = state
            fastest = float((2 * s + decay + torch.maximum(u * u + p, v * v + q)).max())
            h = min(time - now, _STEP / fastest)
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            now = time if h == time - now else now + h
        path.append(state)
    u, v, p, q = torch.stack(path, dim=-1) if path else state.unsqueeze(-1)[..., :0]
    return RankOneState(u, v, p, q, s.unsqueeze(-1).expand_as(u))


def balanced_growth(
    times: Float[Tensor, "*#time"],
    *,
    s: Float[Tensor, "*#time"] | float,
    w0: Float[Tensor, "*#time"] | float,
    p0: Float[Tensor, "*#time"] | float = 0.0,
    decay: float = 0.0,
) -> RankOneState:
    r"""Closed form of the balanced rank-one growth u = v, p = q, with and without weight decay.

    With $k = s - \lambda$ and $N(t) = 1 + p_0 \frac{1 - e^{-2\lambda t}}{\lambda} + w_0
    \frac{e^{2kt} - 1}{k}$ (limits where λ or k is 0):

    $$w(t) = u^2 = w_0\, e^{2kt} / N(t), \qquad p(t) = p_0\, e^{-2\lambda t} / N(t).$$

    So w/p grows as $e^{2st}$ whatever the decay; without decay the irrelevant part falls as
    $1/(1/p_0 + 2t)$ while w is small, algebraically and not exponentially; and w ends at
    $\max(s - \lambda, 0)$. With $p_0 = 0$ it is the logistic growth of a Saxe mode.

    Args:
        times: Times, learning rate x steps; broadcast against the other arguments.
        s: Singular value of the target.
        w0: $u^2$ at time 0.
        p0: Squared length of the irrelevant part at time 0.
        decay: Weight decay λ.

    Returns:
        The states at the times; u and v are $\sqrt w$.

    Raises:
        ValueError: If `s` is not positive or `w0`, `p0` or `decay` is negative.

    Example:
        >>> path = balanced_growth(torch.tensor([3.3128]).double(), s=1.0, w0=0.01, p0=0.99)
        >>> round(path.u.square().item(), 3)
        0.5
    """
    _check_decay(decay)
    t = times.double()
    s_, w0_, p0_ = torch.broadcast_tensors(
        *(torch.as_tensor(x, dtype=torch.float64, device=t.device) for x in (s, w0, p0))
    )
    if not (bool((s_ > 0).all()) and bool((w0_ >= 0).all()) and bool((p0_ >= 0).all())):
        raise ValueError("s must be positive, and w0 and p0 must not be negative.")
    k = s_ - decay
    exponent = torch.where(w0_ > 0, 2 * k * t, 0.0)
    # Everything is divided by exp(shift), so that nothing overflows long after the growth.
    shift = exponent.clamp(min=0)
    waited = 2 * t if decay == 0 else -torch.expm1(-2 * decay * t) / decay
    unit = torch.exp(-shift)
    grown = torch.where(
        k == 0, 2 * t * unit, (torch.exp(exponent - shift) - unit) / torch.where(k == 0, 1.0, k)
    )
    N = unit * (1 + p0_ * waited) + w0_ * grown
    w = w0_ * torch.exp(exponent - shift) / N
    p = p0_ * torch.exp(-2 * decay * t - shift) / N
    w, p, s_ = torch.broadcast_tensors(w, p, s_)
    return RankOneState(w.sqrt(), w.sqrt(), p, p, s_)


def half_time(
    *,
    s: Float[Tensor, "*#batch"] | float,
    w0: Float[Tensor, "*#batch"] | float,
    p0: Float[Tensor, "*#batch"] | float = 0.0,
    decay: float = 0.0,
    share: float = 0.5,
) -> Float[Tensor, "*batch"]:
    r"""Time at which the balanced growth reaches a share of its final value $s - \lambda$.

    Without irrelevant part it is $\frac{1}{2s} \ln(s/w_0 - 1)$ for a half; with one, growth starts
    only once it has decayed: $t = \frac{1}{2s} \ln\frac{s(1/p_0 + 2t) - R_0}{R_0}$ with
    $R_0 = w_0/p_0$. Found by bisection to rounding.

    Args:
        s: Singular value of the target.
        w0: $u^2$ at time 0, positive.
        p0: Squared length of the irrelevant part at time 0.
        decay: Weight decay λ.
        share: Share of the final value, between 0 and 1.

    Returns:
        Times, learning rate x steps; 0 where the share is exceeded at the start, infinite where
        decay wins ($\lambda \ge s$).

    Raises:
        ValueError: If `w0` or `s` is not positive, or `share` not between 0 and 1.

    Example:
        >>> round(half_time(s=1.0, w0=1e-4).item(), 3)
        4.605
        >>> round(half_time(s=1.0, w0=0.01, p0=0.99).item(), 3)
        3.313
    """
    s_, w0_, p0_ = torch.broadcast_tensors(
        *(torch.as_tensor(x, dtype=torch.float64) for x in (s, w0, p0))
    )
    if not (bool((w0_ > 0).all()) and bool((s_ > 0).all()) and 0 < share < 1):
        raise ValueError(
            f"w0 and s must be positive and share between 0 and 1, but share is {share} and the "
            "smallest w0 and s are "
            f"{float(w0_.min())} and {float(s_.min())}."
        )
    k = s_ - decay
    goal = share * k

    def below(t: Tensor) -> Tensor:
        return balanced_growth(t, s=s_, w0=w0_, p0=p0_, decay=decay).u.square() < goal

    low = torch.zeros_like(s_)
    high = 1 / k.clamp(min=1e-12)
    for _ in range(80):
        high = torch.where(below(high) & (k > 0), 2 * high, high)
    for _ in range(200):
        middle = (low + high) / 2
        short = below(middle)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    found = torch.where(below(torch.zeros_like(s_)), high, 0.0)
    return torch.where(k > 0, found, math.inf)


def saxe_mode(
    times: Float[Tensor, "*#time"],
    *,
    s: Float[Tensor, "*#time"] | float,
    a0: Float[Tensor, "*#time"] | float,
    tau: float = 1.0,
) -> Float[Tensor, "*time"]:
    r"""Strength of one mode of a two-layer linear network with whitened inputs, from small values.

    $a(t) = s\, e^{2st/\tau} / (e^{2st/\tau} - 1 + s/a_0)$. Modes do not interact, and each is
    learned at about $\frac{\tau}{2s} \ln(s/a_0)$: larger singular values first, in stages.

    Args:
        times: Times.
        s: Singular value of the mode.
        a0: Strength at time 0.
        tau: Time constant, 1 / learning rate.

    Returns:
        Strengths, between a0 and s.

    Raises:
        ValueError: If `s` is not positive or `a0` is negative.

    Example:
        >>> times = torch.tensor([0.0, 4.6051, 50.0]).double()
        >>> [round(a, 4) for a in saxe_mode(times, s=1.0, a0=1e-4).tolist()]
        [0.0001, 0.5, 1.0]

    References:
        Saxe, McClelland & Ganguli (2014), arXiv:1312.6120, equation 12.
    """
    return balanced_growth(times / tau, s=s, w0=a0).u.square()


def conserved_matrix(
    X: Float[Tensor, "*batch d rank"], Y: Float[Tensor, "*batch d rank"]
) -> Float[Tensor, "*batch rank rank"]:
    r"""$X^\top X - Y^\top Y$, which gradient flow keeps for every loss of $Z = X Y^\top$ alone.

    With weight decay λ it shrinks as $e^{-2\lambda t}$. Gradient descent lets it drift by
    O(learning rate); Adam does not keep it.

    Args:
        X: Left factor.
        Y: Right factor.

    Returns:
        The matrix; 0 for a balanced factorization.

    Example:
        >>> conserved_matrix(torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [1.0]])).item()
        2.0
    """
    return X.mT @ X - Y.mT @ Y


def _check_decay(decay: float) -> None:
    if not decay >= 0:
        raise ValueError(f"decay must not be negative, but it is {decay}.")
