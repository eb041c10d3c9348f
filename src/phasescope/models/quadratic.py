"""The quadratic MLP that groks modular arithmetic within seconds.

Letters: N neurons, p tokens, n pairs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phasescope.datasets import Coordinates
from phasescope.models.operands import of_pairs


class QuadraticMLP(nn.Module):
    """f(a, b) = W (U_a + V_b)², squared neuron by neuron, without biases.

    Weights start normal with standard deviation .5/(2N)^(1/3). With squared error against the
    one-hot result, AdamW (rate .01, decay 5, betas .9 and .98), half of the pairs and N = 500 it
    groks addition modulo 97 within 40 steps.

    Args:
        n_tokens: Number of operands, and of results.
        width: Number of neurons N.
        generator: Source of the random weights, on the CPU.

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> QuadraticMLP(97)(torch.tensor([[1, 2], [3, 4]])).shape
        torch.Size([2, 97])

    References:
        Gromov (2023), "Grokking modular arithmetic", arXiv:2301.02679. Doshi et al. (2024), "To
        grok or not to grok", arXiv:2310.13061.
    """

    def __init__(
        self, n_tokens: int, width: int = 500, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if min(n_tokens, width) < 1:
            raise ValueError(
                f"n_tokens and width must be positive, but they are {n_tokens} and {width}."
            )
        std = 0.5 / (2 * width) ** (1 / 3)
        self.U = nn.Parameter(std * torch.randn(width, n_tokens, generator=generator))
        self.V = nn.Parameter(std * torch.randn(width, n_tokens, generator=generator))
        self.W = nn.Parameter(std * torch.randn(n_tokens, width, generator=generator))

    def forward(self, pairs: Int64[Tensor, "n 2"]) -> Float[Tensor, "n p"]:
        """Outputs for pairs of operands.

        Args:
            pairs: Tokens a and b.

        Returns:
            One output per result, without unit.

        Raises:
            ValueError: The pairs have another shape or type, or (on a CPU) a token that is none.
        """
        return self.neurons(pairs) @ self.W.T

    def neurons(self, pairs: Int64[Tensor, "n 2"]) -> Float[Tensor, "n N"]:
        """The squared neurons.

        Args:
            pairs: Tokens a and b.

        Raises:
            ValueError: As of `forward`.
        """

        def squares() -> Tensor:
            a, b = pairs.unbind(-1)
            return (self.U.T.index_select(0, a) + self.V.T.index_select(0, b)).square()

        return of_pairs(squares, pairs, self.U.shape[1])


def analytic_quadratic_mlp(
    coordinates: Coordinates,
    n_tokens: int,
    width: int = 500,
    *,
    generator: torch.Generator | None = None,
) -> QuadraticMLP:
    """The quadratic MLP with the weights that solve a task in closed form.

    In the places i of the coordinates, U[k, i] = cos(2πf_k i/n + p_k), V[k, j] =
    cos(2πf_k j/n + q_k), W[l, k] = cos(2πf_k l/n + p_k + q_k), with random phases and the
    frequencies 1 to (n − 1)/2 in turn. The output is (N/2)·mean_k cos(2πf_k(i + j − l)/n) and terms
    with random phases, which become small beside it as N grows: modulo 97 all pairs are right from
    N = 200 on.

    Args:
        coordinates: Those in which the task is an addition, with one cyclic factor.
        n_tokens: Number of tokens; those without a place have weights 0.
        width: Number of neurons.
        generator: Source of the phases, on the CPU.

    Returns:
        The network, in float64.

    Raises:
        ValueError: The group is not cyclic, or has fewer than three elements.

    Example:
        >>> from phasescope.datasets import modular_task
        >>> task = modular_task("subtract", 31)
        >>> model = analytic_quadratic_mlp(task.natural, 31, generator=torch.Generator())
        >>> bool((model(task.pairs).argmax(1) == task.labels).all())
        True

    References:
        Gromov (2023), arXiv:2301.02679, equation 8.
    """
    n = len(coordinates)
    if len(coordinates.orders) > 1 or n < 3:
        raise ValueError(
            "a cyclic group of at least three elements is required, but the orders of the factors "
            f"are {coordinates.orders}. analytic_pair_transformer takes products."
        )
    frequencies = (torch.arange(width) % ((n - 1) // 2) + 1).double()
    phases = 2 * math.pi * torch.rand(2, width, generator=generator, dtype=torch.float64)
    places = torch.arange(n, dtype=torch.float64)
    angles = 2 * math.pi / n * frequencies[:, None] * places
    model = QuadraticMLP(n_tokens, width).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.U[:, coordinates.left] = (angles + phases[0, :, None]).cos()
        model.V[:, coordinates.right] = (angles + phases[1, :, None]).cos()
        model.W[coordinates.result] = (angles + phases.sum(0)[:, None]).cos().T
    return model
