"""Noise of all kinds, with and without planted components."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

# T, P as small as the formulas allow to be told apart; K is few against T.
T, P, K = 60, 1500, 4


@dataclass(frozen=True)
class Noise:
    """Independent rows; what distinguishes one kind from another."""

    spread: float = 0.0
    """Spread of the log-normal standard deviations of the parameters."""
    norms: str = "equal"
    """How the norms of the steps fall."""
    entries: str = "normal"
    """Distribution of the entries, all with variance 1."""
    n_factors: int = 0
    """Directions that carry half of the energy of every row: correlation between parameters."""
    loud_signal: bool = False
    """Whether planted components lie where the noise is, rather than evenly on all parameters."""


NOISES = {
    "equal variances": Noise(),
    "log-normal .5": Noise(0.5),
    "log-normal 1": Noise(1.0),
    "log-normal .5, norms 1/√t": Noise(0.5, "root"),
    "log-normal 1, norms exp(−3t/T)": Noise(1.0, "exponential"),
    "the same, signal as loud as noise": Noise(1.0, "exponential", loud_signal=True),
    "Student t (5), log-normal .5, 1/√t": Noise(0.5, "root", "student"),
    "skewed (exponential), log-normal .5, 1/√t": Noise(0.5, "root", "skewed"),
}
# No rule below is meant to be silent here: the structure is there, only training did not make it.
CORRELATED = {"correlated between parameters": Noise(0.5, "root", n_factors=10)}

_NORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "equal": torch.ones_like,
    "root": lambda t: t**-0.5,
    "exponential": lambda t: torch.exp(-3 * t / T),
}


def norms(noise: Noise, n_steps: int = T) -> torch.Tensor:
    """Scale of every step."""
    return _NORMS[noise.norms](torch.arange(1.0, n_steps + 1))


def scales(noise: Noise, generator: torch.Generator) -> torch.Tensor:
    """Standard deviation of every parameter."""
    return torch.exp(noise.spread * torch.randn(P, generator=generator))


def rows(
    noise: Noise, sigma: torch.Tensor, generator: torch.Generator, n_steps: int = T
) -> torch.Tensor:
    """Independent rows of one distribution, before the norms of the steps."""
    A = _entries(noise.entries, (n_steps, P), generator)
    if noise.n_factors:
        mixing = torch.Generator().manual_seed(0)  # the same directions in every row and draw
        W = torch.randn(noise.n_factors, P, generator=mixing) / noise.n_factors**0.5
        A = A + torch.randn(n_steps, noise.n_factors, generator=generator) @ W
    return A * sigma


def draw(noise: Noise, amplitude: float, seed: int) -> torch.Tensor:
    """Noise, with K planted components if there is an amplitude.

    Amplitudes are in units of the noise of a row: at 1 half of a parameter vector is signal. Steps
    are scaled after planting, as a falling gradient norm scales signal and noise alike.
    """
    generator = torch.Generator().manual_seed(seed)
    sigma = scales(noise, generator)
    A = rows(noise, sigma, generator)
    if amplitude:
        U = torch.linalg.qr(torch.randn(T, K, generator=generator))[0]
        V = torch.randn(P, K, generator=generator)
        V = torch.linalg.qr(V * sigma[:, None] if noise.loud_signal else V)[0]
        A += amplitude * float(sigma.square().sum().sqrt()) * U @ V.T
    return A * norms(noise)[:, None]


def _entries(kind: str, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    normal = torch.randn(shape, generator=generator)
    if kind == "normal":
        return normal
    if kind == "skewed":
        return torch.empty(shape).exponential_(generator=generator) - 1
    # Student's t with 5 degrees of freedom has variance 5/3.
    chi2 = torch.randn((5, *shape), generator=generator).square().sum(0)
    return normal / (chi2 / 5).sqrt() / (5 / 3) ** 0.5
