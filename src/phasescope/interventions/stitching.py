"""Layers of two networks joined by a layer that is trained for it.

Letters: n images, a channels of the first network, b channels of the second, height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional


def match_channels(
    first: Float[Tensor, "n a height width"], second: Float[Tensor, "n b height width"]
) -> nn.Conv2d:
    """The 1 x 1 convolution that maps one network's activations to another's by least squares.

    Args:
        first: Activations of the first network.
        second: Of the second, on the same images and of the same size.

    Returns:
        The convolution, with a bias; of all least-squares solutions the one of smallest norm.

    Raises:
        ValueError: Images or their sizes differ, or values are not finite.

    Example:
        >>> h = torch.randn(8, 3, 4, 4)
        >>> stitch = match_channels(h, h.flip(1))
        >>> torch.allclose(stitch(h), h.flip(1), atol=1e-4)
        True

    References:
        Csiszárik et al. (2021), "Similarity and matching of neural network representations",
        arXiv:2110.14633, section 3 (direct matching).
    """
    if first.shape[:1] + first.shape[2:] != second.shape[:1] + second.shape[2:]:
        raise ValueError(
            "activations of the same images and of the same height and width are required, but "
            f"their shapes are {tuple(first.shape)} and {tuple(second.shape)}."
        )
    x, y = (h.detach().double().movedim(1, -1).flatten(0, -2) for h in (first, second))
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise ValueError("activations must be finite, but some are not.")
    center_x, center_y = x.mean(0), y.mean(0)
    # SVD-based, so that channels that are silent or alike do not break it.
    solution = torch.linalg.lstsq((x - center_x).cpu(), (y - center_y).cpu(), driver="gelsd")
    weight = solution.solution.T.to(x)
    stitch = nn.Conv2d(first.shape[1], second.shape[1], 1).to(first)
    with torch.no_grad():
        stitch.weight.copy_(weight[:, :, None, None])
        stitch.bias.copy_(center_y - weight @ center_x)  # pyright: ignore[reportOptionalMemberAccess]
    return stitch


def train_stitch(
    stitch: nn.Module,
    back: Callable[[Tensor], Tensor],
    activations: Float[Tensor, "n a height width"],
    labels: Int64[Tensor, " n"],
    *,
    n_epochs: int = 2,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> nn.Module:
    """Train a stitching layer on the task, with everything else fixed.

    Adam on the cross-entropy of ``back(relu(stitch(activations)))``; activations between blocks of
    a ResNet are not negative, hence the ReLU. Neither network learns: put them into evaluation
    mode, and their parameters get no gradient here.

    Args:
        stitch: Trained in place.
        back: The rest of the second network.
        activations: What the first network gives to it, on the training images.
        labels: Their classes.
        n_epochs: Passes through them.
        batch_size: Images per update.
        learning_rate: Of Adam.
        seed: Of the order of the images.

    Returns:
        The stitching layer.

    Raises:
        ValueError: There are no images, or not one label for each.

    Example:
        >>> h, y = torch.rand(64, 2, 1, 1), torch.arange(64) % 2
        >>> stitch = train_stitch(nn.Conv2d(2, 2, 1), lambda h: h.flatten(1), h, y)
        >>> stitch(h).shape
        torch.Size([64, 2, 1, 1])

    References:
        Bansal, Nakkiran & Barak (2021), "Revisiting model stitching", arXiv:2106.07682.
    """
    if not len(labels) or len(labels) != len(activations):
        raise ValueError(
            f"one label for each image is required, but there are {len(labels)} labels and "
            f"{len(activations)} images."
        )
    generator = torch.Generator().manual_seed(seed)
    parameters = list(stitch.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(batch_size):
            logits = back(functional.relu(stitch(activations[rows])))
            loss = functional.cross_entropy(logits, labels[rows])
            found = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            optimizer.step()
    return stitch
