"""LAMB for ensembles, the learning-rate cycles and the decay of biases it is used with.

Axes: seed, then the shape of a parameter. A trust ratio belongs to one tensor of one seed, so that
a batch of models takes the steps that each would take alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from phasescope.training.ensemble_optimizers import (
    EnsembleOptimizer,
    LearningRateFactor,
    Params,
    PerSeed,
    check_setting,
    moments_of,
    moments_state,
    per_seed,
    shaped,
)


class EnsembleLAMB:
    r"""LAMB: Adam's direction, scaled to a step as long as the learning rate times the weights.

    $m \leftarrow \beta_1 m + (1-\beta_1) g$, $v \leftarrow \beta_2 v + (1-\beta_2) g^2$,
    $r = m / (\sqrt v + \epsilon) + \lambda\theta$ and
    $\theta \leftarrow \theta - \eta\, \frac{\min(\lVert\theta\rVert, c)}{\lVert r\rVert}\, r$, with
    the norms of each tensor of each seed; the ratio is 1 where one of the norms is zero. As in the
    implementation that the monosemanticity paper used, m and v are not corrected for their start
    unless asked; the paper of LAMB does correct them.

    A bias vector is one tensor: its step has the length $\eta\lVert b\rVert$ whatever the gradient,
    so that at a high learning rate biases can run away exponentially.

    Args:
        lr: Learning rate $\eta$, one number or one per seed.
        betas: $\beta_1, \beta_2$.
        eps: $\epsilon$.
        weight_decay: $\lambda$, one number or one per seed.
        largest_norm: c, the norm of the weights above which steps grow no further.
        correct_bias: Divide m by $1-\beta_1^t$ and v by $1-\beta_2^t$, as Algorithm 2 does.
        schedule: Factor of the learning rate at each step, counted from 0.

    Raises:
        ValueError: If a setting is negative or not finite, or a beta is not below 1.

    Example:
        >>> params = {"w": torch.tensor([[3.0, 4.0]])}
        >>> EnsembleLAMB(0.1, eps=0.0).update(params, {"w": torch.tensor([[7.0, 7.0]])})
        >>> params["w"]  # a step of length .1 * 5
        tensor([[2.6464, 3.6464]])

    References:
        You et al. (2020), "Large batch optimization for deep learning: training BERT in 76
        minutes", arXiv:1904.00962, Algorithm 2.
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """

    def __init__(
        self,
        lr: PerSeed,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: PerSeed = 0.0,
        largest_norm: float = 10.0,
        correct_bias: bool = False,
        schedule: LearningRateFactor | None = None,
    ) -> None:
        named = (
            ("lr", lr),
            ("eps", eps),
            ("weight_decay", weight_decay),
            ("largest_norm", largest_norm),
        )
        for name, value in named:
            check_setting(name, value)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), but they are {betas}.")
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.largest_norm, self.correct_bias = largest_norm, correct_bias
        self.schedule = schedule
        self.n_updates = 0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._work: dict[str, Tensor] = {}

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """Change the parameters in place by one step."""
        factor = 1.0 if self.schedule is None else self.schedule(self.n_updates)
        self.n_updates += 1
        with torch.no_grad():
            for name, theta in params.items():
                r = self._direction(name, theta, grads[name])
                if isinstance(self.weight_decay, Tensor) or self.weight_decay != 0:
                    r.add_(shaped(self.weight_decay, theta) * theta)
                size, length = (t.flatten(1).norm(dim=1) for t in (theta, r))
                known = (size > 0) & (length > 0)
                ratio = torch.where(known, size.clamp(max=self.largest_norm) / length, 1.0)
                lr = self.lr if isinstance(self.lr, float | int) else self.lr.to(ratio)
                theta.sub_(r.mul_(per_seed(ratio * lr * factor, theta)))

    def _direction(self, name: str, theta: Tensor, grad: Tensor) -> Tensor:
        """M / (√v + ε) after this gradient, in memory of the optimizer."""
        beta1, beta2 = self.betas
        if name not in self._moments:
            self._moments[name] = torch.zeros_like(theta), torch.zeros_like(theta)
        if name not in self._work:
            self._work[name] = torch.empty_like(theta)
        first, second = self._moments[name]
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # The root of an exact zero, as under a mask or of a silent neuron, takes ten times as long.
        tiny = torch.finfo(second.dtype).tiny
        r = torch.clamp(second, min=tiny, out=self._work[name]).sqrt_()
        if not self.correct_bias:
            return torch.div(first, r.add_(self.eps), out=r)
        root = (1 - beta2**self.n_updates) ** 0.5
        r = torch.div(first, r.add_(self.eps * root), out=r)
        return r.mul_(root / (1 - beta1**self.n_updates))

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and number of updates: tensors under flat names, as safetensors takes them."""
        return moments_state(self._moments, self.n_updates)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: From an optimizer of the same parameters.
        """
        self.n_updates = int(state["n_updates"])
        self._moments = moments_of(state)


def cosine_cycles(half_period: int) -> LearningRateFactor:
    r"""Learning-rate factor $(1 + \cos(\pi t / T))/2$: 1 at 0, 0 at T, 1 again at 2T, and so on.

    What `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=T)` gives when it is stepped beyond T.
    Weights after a multiple of 2T updates are taken at the peak, those after an odd multiple of T
    where the learning rate is zero; what is measured depends on which.

    Args:
        half_period: T, in steps.

    Returns:
        The factor of each step, for the `schedule` of an ensemble's optimizer.

    Raises:
        ValueError: T is not positive.

    Example:
        >>> factor = cosine_cycles(2)
        >>> [round(factor(step), 3) for step in range(5)]
        [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    if half_period < 1:
        raise ValueError(f"half_period must be at least one step, but it is {half_period}.")
    return lambda step: (1 + math.cos(math.pi * step / half_period)) / 2


class DecayingBiases:
    r"""Another optimizer, after whose steps biases are multiplied by $1 - \eta\delta$ for a while.

    The factor has the nominal learning rate, not the scheduled one. A negative initial bias is
    pulled back to zero, which is how neurons that start silent come to life.

    Args:
        optimizer: Makes the steps.
        decay: $\delta$, one number or one per seed.
        lr: $\eta$, one number or one per seed.
        until: Steps after which biases are left alone.
        name: The biases.

    Raises:
        ValueError: A setting is negative or not finite.

    Example:
        >>> params = {"b_in": torch.full((1, 2), -1.0)}
        >>> optimizer = DecayingBiases(EnsembleLAMB(0.1), 0.5, lr=0.1, until=1)
        >>> for _ in range(3):
        ...     optimizer.update(params, {"b_in": torch.zeros(1, 2)})
        >>> params["b_in"]
        tensor([[-0.9500, -0.9500]])

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2 ("bias decay").
    """

    def __init__(
        self,
        optimizer: EnsembleOptimizer,
        decay: PerSeed,
        *,
        lr: PerSeed,
        until: int,
        name: str = "b_in",
    ) -> None:
        for setting, value in (("decay", decay), ("lr", lr)):
            check_setting(setting, value)
        self.optimizer, self.until, self.name = optimizer, until, name
        self._share: PerSeed = decay * lr
        self.n_updates = 0

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """Change the parameters in place by one step."""
        self.optimizer.update(params, grads)
        if self.n_updates < self.until:
            b = params[self.name]
            b.mul_(1 - shaped(self._share, b))
        self.n_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the optimizer inside, and the number of steps."""
        return {**self.optimizer.state_dict(), "n_decaying": torch.tensor(self.n_updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: From an optimizer of the same parameters.
        """
        self.optimizer.load_state_dict({n: v for n, v in state.items() if n != "n_decaying"})
        self.n_updates = int(state["n_decaying"])
