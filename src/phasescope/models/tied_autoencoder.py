"""The tied autoencoder of the superposition paper, many at once, with gradients written out.

Axes: model, row of a batch, feature (n), d of the space that features share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def initial_tied_autoencoder(seeds: Sequence[int], *, n_features: int, d: int) -> dict[str, Tensor]:
    r"""Parameters of many models: W as Xavier's normal initialisation draws it, b zero.

    Entries of W are N(0, 2 / (n + d)).

    Args:
        seeds: One model each; equal seeds start alike.
        n_features: n.
        d: Dimensions of the hidden space.

    Returns:
        W, model × feature × d: row i is the direction of feature i. b, model × feature. Float32.

    Raises:
        ValueError: There is no seed, no feature or no dimension.

    Example:
        >>> params = initial_tied_autoencoder([0, 1], n_features=5, d=2)
        >>> {name: tuple(p.shape) for name, p in params.items()}
        {'W': (2, 5, 2), 'b': (2, 5)}

    References:
        Elhage et al. (2022), "Toy Models of Superposition", "Demonstrating superposition".
    """
    if not seeds or n_features < 1 or d < 1:
        raise ValueError(
            "at least one seed, one feature and one dimension are needed, but "
            f"{len(seeds)} seeds, n_features={n_features} and d={d} arrived."
        )
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn.append(
            torch.randn(n_features, d, generator=generator) * (2 / (n_features + d)) ** 0.5
        )
    return {"W": torch.stack(drawn), "b": torch.zeros(len(seeds), n_features)}


def tied_outputs(
    params: Mapping[str, Float[Tensor, "model *shape"]], v: Float[Tensor, "model row feature"]
) -> Float[Tensor, "model row feature"]:
    r"""Reconstructions $\mathrm{ReLU}(W W^\top v + b)$ with the rows of W as directions.

    Args:
        params: From `initial_tied_autoencoder`.
        v: Features.

    Returns:
        Outputs.

    Example:
        >>> params = {"W": torch.eye(2)[None], "b": torch.zeros(1, 2)}
        >>> tied_outputs(params, torch.tensor([[[1.0, -1.0]]]))
        tensor([[[1., 0.]]])
    """
    W = params["W"]
    return torch.baddbmm(params["b"].unsqueeze(1), v @ W, W.mT).relu_()


class TiedLoss:
    r"""Loss and gradients of many tied autoencoders on fresh batches, without autograd.

    $L = \frac{1}{B n} \sum_b \sum_i w_i (v_{bi} - y_{bi})^2$ with
    $y = \mathrm{ReLU}(W W^\top v + b)$: a mean over rows and features. Instances are called by
    `train_ensemble`.

    Args:
        draw: The next batch of features; such as `SparseFeatures.draw`.
        importance: $w_i$ of every feature, 1 by default, the same for all models or for each.

    Example:
        >>> loss = TiedLoss(lambda: torch.ones(1, 4, 2))
        >>> value, grads = loss({"W": torch.zeros(1, 2, 1), "b": torch.zeros(1, 2)}, 0)
        >>> value, grads["b"].shape
        (tensor([1.]), torch.Size([1, 2]))

    References:
        Elhage et al. (2022), "Toy Models of Superposition", "Demonstrating superposition".
    """

    def __init__(
        self,
        draw: Callable[[], Float[Tensor, "model row feature"]],
        *,
        importance: Float[Tensor, " feature"] | Float[Tensor, "model feature"] | None = None,
    ) -> None:
        self._draw = draw
        self._importance = None if importance is None else importance.unsqueeze(-2)

    def __call__(
        self, params: Mapping[str, Tensor], step: int
    ) -> tuple[Float[Tensor, " model"], dict[str, Tensor]]:
        """Loss per model, and the gradients."""
        v, W = self._draw(), params["W"]
        n_numbers = v.shape[1] * v.shape[2]
        h = v @ W
        y = torch.baddbmm(params["b"].unsqueeze(1), h, W.mT).relu_()
        error = y - v
        weighted = error if self._importance is None else error * self._importance
        loss = torch.linalg.vecdot(weighted.flatten(1), error.flatten(1)) / n_numbers
        grad = torch.ops.aten.threshold_backward(weighted, y, 0)
        grads = {"W": grad.mT @ h + v.mT @ (grad @ W), "b": grad.sum(1)}
        for value in grads.values():
            value *= 2 / n_numbers
        return loss, grads
