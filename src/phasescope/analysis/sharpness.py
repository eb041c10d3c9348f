"""How sharply the loss rises around the weights of a model.

Letters: P parameters, k eigenvalues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phasescope.analysis.flat_loss import FlatLoss, Loss
from phasescope.parameters import Component

_DENSE_UP_TO = 64  # moved parameters: smaller Hessians are written out


def hessian_eigenvalues(
    loss: Loss,
    parameters: Mapping[str, Tensor],
    n: int = 1,
    *,
    smallest: bool = False,
    component: Component | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Float64[Tensor, " k"]:
    r"""The largest eigenvalues of the Hessian of a loss, by Lanczos with Hessian-vector products.

    The largest is *the* sharpness of the edge of stability: full-batch gradient descent of rate
    η is stable along its eigenvector up to 2/η. It depends on the parametrisation: layers that can
    be scaled against each other, or that a normalisation follows, make it any size at the same
    function.

    Args:
        loss: Scalar loss of parameters by name, the same at every call, twice differentiable. The
            mean over all examples is meant; a batch has another Hessian.
        parameters: Where; such as ``dict(model.named_parameters())``; not changed. In float64 the
            products are exact enough for small eigenvalues too.
        n: How many.
        smallest: The smallest (most negative) ones instead.
        component: The Hessian of these entries of the flat parameters only, such as one head.
        tolerance: Relative accuracy of the eigenvalues.
        seed: Of the first vector.

    Returns:
        In descending order; of the smallest in ascending order. In units of the loss over those of
        the parameters squared.

    Raises:
        ValueError: `n` is not between 1 and the number of parameters, a parameter is no
            floating-point tensor, or the component is not one of these parameters.

    Example:
        >>> def loss(w):
        ...     return (torch.tensor([3.0, 1.0, 2.0]) * w["x"] ** 2).sum() / 2
        >>> hessian_eigenvalues(loss, {"x": torch.zeros(3)}, 2)
        tensor([3., 2.], dtype=torch.float64)

    References:
        Cohen et al. (2021), "Gradient descent on neural networks typically occurs at the edge of
        stability", arXiv:2103.00065.
    """
    from scipy.sparse import linalg  # scipy takes long to import

    flat = FlatLoss(loss, parameters)
    columns = flat.mask(component).nonzero()[:, 0]
    if not 1 <= n <= len(columns):
        raise ValueError(f"n must be between 1 and the {len(columns)} parameters, but it is {n}.")
    point = flat.start.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(flat(point), point, create_graph=True)

    def product(vector: np.ndarray) -> np.ndarray:
        v = torch.zeros_like(flat.start)
        v[columns] = torch.as_tensor(vector.reshape(-1)).to(v)
        if not gradient.requires_grad:  # a linear loss
            return np.zeros(len(columns))
        (hv,) = torch.autograd.grad(gradient, point, v, retain_graph=True, allow_unused=True)
        hv = torch.zeros_like(v) if hv is None else hv
        return hv[columns].double().cpu().numpy()

    if len(columns) <= max(_DENSE_UP_TO, n + 1):
        dense = np.stack([product(row) for row in np.eye(len(columns))])
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
    else:
        make: Any = linalg.LinearOperator  # scipy's types know neither of the two calls
        lanczos: Any = linalg.eigsh
        values = lanczos(
            make((len(columns), len(columns)), matvec=product, dtype=np.float64),
            k=n,
            which="SA" if smallest else "LA",
            v0=np.random.default_rng(seed).standard_normal(len(columns)),
            tol=tolerance,
            return_eigenvectors=False,
        )
    ascending = torch.from_numpy(np.sort(values))
    return ascending[:n] if smallest else ascending.flip(0)[:n]


def box_sharpness(
    loss: Loss,
    parameters: Mapping[str, Tensor],
    *,
    radius: float = 1e-3,
    n_directions: int | None = 10,
    n_starts: int = 3,
    seed: int = 0,
) -> float:
    r"""Keskar's sharpness: how far the loss rises within a small box, in per cent.

    .. math:: \phi = 100\,\frac{\max_{y \in C} f(x + A y) - f(x)}{1 + f(x)},\quad
        C = \{y : |y_i| \le \epsilon\,(|(A^+ x)_i| + 1)\}

    with p random orthonormal directions as the columns of A, or all of space. The maximum is looked
    for by L-BFGS-B from random places of the box, so that the number is a lower bound.

    Args:
        loss: Scalar loss of parameters by name, the same at every call.
        parameters: The weights x; not changed. Small radii need float64.
        radius: ε.
        n_directions: p; None for all of space.
        n_starts: Places from which the maximum is looked for; the best counts.
        seed: Of directions and places.

    Returns:
        φ in per cent of 1 + f(x).

    Raises:
        ValueError: An argument is out of range, or a parameter is no floating-point tensor.

    Example:
        >>> def loss(w):
        ...     return (w["x"] ** 2).sum() / 2
        >>> x = torch.zeros(4, dtype=torch.float64)
        >>> round(box_sharpness(loss, {"x": x}, radius=0.1, n_directions=None), 6)  # 4 · .1² / 2
        2.0

    References:
        Keskar et al. (2017), "On large-batch training for deep learning", arXiv:1609.04836,
        section 2.2.1, with orthonormal directions.
    """
    from scipy.optimize import minimize  # scipy takes long to import

    flat = FlatLoss(loss, parameters)
    P = len(flat.start)
    if not radius > 0 or n_starts < 1 or not (n_directions is None or 1 <= n_directions <= P):
        raise ValueError(
            f"a positive radius, at least 1 start and 1 to {P} directions (or None) are required, "
            f"but radius={radius}, n_starts={n_starts} and n_directions={n_directions} arrived."
        )
    generator = torch.Generator().manual_seed(seed)
    axes = None
    if n_directions is not None:
        drawn = torch.randn(P, n_directions, generator=generator, dtype=torch.float64)
        axes = torch.linalg.qr(drawn).Q.to(flat.start)
    along = flat.start if axes is None else axes.T @ flat.start
    half = radius * (along.abs() + 1).double().cpu().numpy()

    def falling(y: np.ndarray) -> tuple[float, np.ndarray]:
        place = torch.from_numpy(y).to(flat.start).requires_grad_()
        with torch.enable_grad():
            value = flat(flat.start + (place if axes is None else axes @ place))
            (slope,) = torch.autograd.grad(value, place)
        return -value.item(), -slope.double().cpu().numpy()

    here = flat(flat.start).item()
    best = here
    for _ in range(n_starts):
        place = torch.rand(len(half), generator=generator, dtype=torch.float64).numpy()
        found = minimize(
            falling,
            (2 * place - 1) * half,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(-half, half, strict=True)),
        )
        best = max(best, -float(found.fun))
    return 100 * (best - here) / (1 + here)
