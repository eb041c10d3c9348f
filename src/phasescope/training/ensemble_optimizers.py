"""Optimizers of ensembles: many small models in one tensor, each with its own settings if wanted.

Every parameter has a leading `seed` axis. SGD and Adam act on every number by itself, so a batch of
models takes exactly the steps that each would take alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Params = dict[str, Shaped[Tensor, "seed *shape"]]
PerSeed = float | Float[Tensor, " seed"]
LearningRateFactor = Callable[[int], float]


@runtime_checkable
class EnsembleOptimizer(Protocol):
    """What `train_ensemble` needs of an optimizer."""

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """Change the parameters in place by one step."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers: tensors under flat names, as safetensors takes them."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        ...


class EnsembleSGD:
    r"""Gradient descent with momentum and weight decay, as `torch.optim.SGD` does it.

    $g \leftarrow g + \lambda\theta$ (coupled decay), $m \leftarrow \mu m + g$,
    $\theta \leftarrow \theta - \eta\, m$; with `decoupled` the decay is
    $\theta \leftarrow (1 - \eta\lambda)\,\theta$ before the step instead. Without momentum the two
    are the same.

    Args:
        lr: Learning rate, one number or one per seed.
        momentum: Share of the velocity that is kept.
        weight_decay: $\lambda$, one number or one per seed.
        decoupled: Whether the decay bypasses the momentum.
        schedule: Factor of the learning rate at each step, counted from 0.

    Raises:
        ValueError: If a setting is negative or not finite.

    Example:
        >>> params = {"w": torch.ones(2, 3)}
        >>> EnsembleSGD(torch.tensor([0.1, 0.5])).update(params, {"w": torch.ones(2, 3)})
        >>> params["w"][:, 0]
        tensor([0.9000, 0.5000])
    """

    def __init__(
        self,
        lr: PerSeed,
        *,
        momentum: float = 0.0,
        weight_decay: PerSeed = 0.0,
        decoupled: bool = False,
        schedule: LearningRateFactor | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            check_setting(name, value)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.decoupled = decoupled
        self.schedule = schedule
        self.n_updates = 0
        self._velocity: Params = {}

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """Change the parameters in place by one step."""
        factor = 1.0 if self.schedule is None else self.schedule(self.n_updates)
        with torch.no_grad():
            for name, theta in params.items():
                lr = shaped(self.lr, theta) * factor
                grad = _decayed(theta, grads[name], lr, self.weight_decay, self.decoupled)
                if self.momentum:
                    if name in self._velocity:
                        grad = self._velocity[name].mul_(self.momentum).add_(grad)
                    else:
                        self._velocity[name] = grad = grad.clone()
                _subtract(theta, grad, lr)
        self.n_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Velocities and number of updates: tensors under flat names, as safetensors takes them."""
        named = {f"{name}.velocity": value for name, value in self._velocity.items()}
        return {**named, "n_updates": torch.tensor(self.n_updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: From an optimizer of the same parameters.
        """
        self.n_updates = int(state["n_updates"])
        self._velocity = {
            name.removesuffix(".velocity"): value.clone()
            for name, value in state.items()
            if name.endswith(".velocity")
        }


class EnsembleAdam:
    r"""Adam, and with `decoupled` AdamW, as `torch.optim` has them.

    $m \leftarrow \beta_1 m + (1-\beta_1) g$, $v \leftarrow \beta_2 v + (1-\beta_2) g^2$,
    $\theta \leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)$ with the bias-corrected
    $\hat m = m / (1 - \beta_1^t)$ and $\hat v = v / (1 - \beta_2^t)$.

    Args:
        lr: Learning rate $\eta$, one number or one per seed.
        betas: $\beta_1, \beta_2$.
        eps: $\epsilon$.
        weight_decay: $\lambda$, one number or one per seed.
        decoupled: Decay $\theta \leftarrow (1 - \eta\lambda)\,\theta$ beside the step (AdamW)
            instead of $g \leftarrow g + \lambda\theta$ before it.
        schedule: Factor of the learning rate at each step, counted from 0.

    Raises:
        ValueError: If a setting is negative or not finite, or a beta is not below 1.

    Example:
        >>> params = {"w": torch.zeros(2, 3)}
        >>> EnsembleAdam(0.1).update(params, {"w": torch.full((2, 3), 7.0)})
        >>> params["w"][0, 0]
        tensor(-0.1000)

    References:
        Kingma & Ba (2015), "Adam", arXiv:1412.6980, Algorithm 1. Loshchilov & Hutter (2019),
        "Decoupled weight decay regularization", arXiv:1711.05101, Algorithm 2.
    """

    def __init__(
        self,
        lr: PerSeed,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: PerSeed = 0.0,
        decoupled: bool = False,
        schedule: LearningRateFactor | None = None,
    ) -> None:
        named = (("lr", lr), ("eps", eps), ("weight_decay", weight_decay))
        for name, value in named:
            check_setting(name, value)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), but they are {betas}.")
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.decoupled = decoupled
        self.schedule = schedule
        self.n_updates = 0
        self._moments: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def update(self, params: Params, grads: Mapping[str, Tensor]) -> None:
        """Change the parameters in place by one step."""
        factor = 1.0 if self.schedule is None else self.schedule(self.n_updates)
        self.n_updates += 1
        beta1, beta2 = self.betas
        # m / c1 / (√(v / c2) + ε) = √c2 / c1 · m / (√v + ε √c2): one pass over memory less.
        root = (1 - beta2**self.n_updates) ** 0.5
        correction = root / (1 - beta1**self.n_updates)
        with torch.no_grad():
            for name, theta in params.items():
                lr = shaped(self.lr, theta) * factor
                grad = _decayed(theta, grads[name], lr, self.weight_decay, self.decoupled)
                if name not in self._moments:
                    zeros = torch.zeros_like(theta), torch.zeros_like(theta)
                    self._moments[name] = (*zeros, torch.empty_like(theta))
                first, second, work = self._moments[name]
                first.lerp_(grad, 1 - beta1)
                second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                torch.sqrt(second, out=work).add_(self.eps * root)
                if isinstance(lr, Tensor):
                    theta.sub_(torch.div(first, work, out=work).mul_(lr * correction))
                else:
                    theta.addcdiv_(first, work, value=-lr * correction)

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and number of updates: tensors under flat names, as safetensors takes them."""
        return moments_state(self._moments, self.n_updates)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: From an optimizer of the same parameters.
        """
        self.n_updates = int(state["n_updates"])
        self._moments = {
            name: (first, second, torch.empty_like(first))
            for name, (first, second) in moments_of(state).items()
        }


def per_seed(value: Float[Tensor, " seed"], like: Shaped[Tensor, "seed *shape"]) -> Tensor:
    """One number per seed, shaped and placed so that it multiplies a parameter.

    Args:
        value: One number per seed.
        like: The parameter.

    Returns:
        The numbers with as many axes as the parameter, all but the first of length 1.

    Raises:
        ValueError: If there are not as many numbers as seeds.

    Example:
        >>> per_seed(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape
        torch.Size([2, 1, 1])
    """
    if value.shape != like.shape[:1]:
        raise ValueError(
            "a setting per seed needs one number for each of the "
            f"{like.shape[0]} seeds, but has the shape {tuple(value.shape)}."
        )
    return value.to(like.device, like.dtype).view(-1, *(1,) * (like.ndim - 1))


def shaped(value: PerSeed, like: Tensor) -> float | Tensor:
    """A setting in the parameter's shape and precision; one number stays one."""
    return per_seed(value, like) if isinstance(value, Tensor) else value


def _subtract(theta: Tensor, direction: Tensor, lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        theta.sub_(lr * direction)
    else:
        theta.sub_(direction, alpha=lr)


def _decayed(
    theta: Tensor, grad: Tensor, lr: float | Tensor, weight_decay: PerSeed, decoupled: bool
) -> Tensor:
    """The gradient with coupled decay added; decoupled decay is applied to the parameter."""
    decay = shaped(weight_decay, theta)
    if not isinstance(decay, Tensor) and decay == 0:
        return grad
    if decoupled:
        theta.mul_(1 - lr * decay)
        return grad
    if isinstance(decay, Tensor):
        return grad + decay * theta
    return grad.add(theta, alpha=decay)


def check_setting(name: str, value: PerSeed) -> None:
    """Raise unless a setting is finite and not negative, for every seed."""
    numbers = value if isinstance(value, Tensor) else torch.tensor(float(value))
    if not bool((numbers.isfinite() & (numbers >= 0)).all()):
        raise ValueError(f"{name} must be finite and not negative, but it is {value}.")


def moments_state(moments: Mapping[str, tuple[Tensor, ...]], n_updates: int) -> dict[str, Tensor]:
    """First and second moments by parameter, and the number of updates, under flat names."""
    named = {}
    for name, (first, second, *_) in moments.items():
        named |= {f"{name}.m": first, f"{name}.v": second}
    return {**named, "n_updates": torch.tensor(n_updates)}


def moments_of(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of the moments that `moments_state` named."""
    names = dict.fromkeys(key[:-2] for key in state if key.endswith((".m", ".v")))
    return {n: (state[f"{n}.m"].clone(), state[f"{n}.v"].clone()) for n in names}
