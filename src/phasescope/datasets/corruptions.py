"""Corruptions of labelled images that interpolate between a data set and nothing to learn.

Axes: n images, height and width in pixels. Every function leaves its inputs as they are and draws
from the generator alone; amounts lie between 0 (as it was) and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Units = Literal["pixels", "rows", "columns"]
Scope = Literal["fixed", "fresh", "across"]


def gaussian_noise(
    images: Float[Tensor, "n height width"], *, generator: torch.Generator
) -> Float[Tensor, "n height width"]:
    """Independent normal pixels with the mean and standard deviation that each pixel has.

    Keeps the first two moments of every pixel over the images; destroys everything else, the
    correlation between pixels included.

    Args:
        images: The images whose moments are taken.
        generator: Draws the noise.

    Returns:
        As many images of noise.

    Example:
        >>> images = torch.tensor([[[0.0, 1.0]], [[0.0, 3.0]]])
        >>> gaussian_noise(images, generator=torch.Generator().manual_seed(0))[:, 0, 0]
        tensor([0., 0.])
    """
    _check_images(images)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return noise * images.std(0, correction=0) + images.mean(0)


def phase_scrambled(
    images: Float[Tensor, "n height width"], *, generator: torch.Generator
) -> Float[Tensor, "n height width"]:
    """Every image with its own amplitudes of spatial frequencies, and random phases.

    Keeps the power spectrum of each image, hence its mean, variance and smoothness; destroys where
    things are. The phases are those of white noise, so the result is real.

    Args:
        images: The images.
        generator: Draws the phases.

    Returns:
        The scrambled images; values outside the range of the pixels occur.

    Example:
        >>> images = torch.eye(4)[None]
        >>> scrambled = phase_scrambled(images, generator=torch.Generator().manual_seed(0))
        >>> round(scrambled.mean().item(), 4), torch.equal(scrambled, images)
        (0.25, False)
    """
    _check_images(images)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    phases = torch.fft.rfft2(noise)
    phases = phases / phases.abs().clamp(min=torch.finfo(images.dtype).tiny)
    phases[:, 0, 0] = 1  # the mean keeps its sign
    return torch.fft.irfft2(torch.fft.rfft2(images) * phases, s=images.shape[1:])


def permuted_pixels(
    images: Float[Tensor, "n height width"], *, generator: torch.Generator
) -> Float[Tensor, "n height width"]:
    """Every image with its own pixels in a random order of its own.

    Keeps the histogram of each image; destroys where things are. Unlike `shuffle` with "fresh" the
    order is uniform over all permutations, so a pixel may stay where it is.

    Args:
        images: The images.
        generator: Draws the orders.

    Returns:
        The permuted images.

    Example:
        >>> images = torch.arange(4.0).reshape(1, 2, 2)
        >>> permuted_pixels(images, generator=torch.Generator().manual_seed(0)).sort().values.sum()
        tensor(6.)
    """
    _check_images(images)
    flat = images.flatten(1)
    order = torch.rand(flat.shape, generator=generator).argsort(1)
    return flat.gather(1, order).reshape(images.shape)


def mix_noise(
    images: Float[Tensor, "n height width"],
    noise: Float[Tensor, "n height width"],
    amount: float | int,
) -> Float[Tensor, "n height width"]:
    r"""$(1 - a) x + a n$ for every image, with the mean and the variance of the image.

    The noise is first brought to the image's mean and variance, so that the amount says how much of
    it there is; the mixture again, since mixing independent patterns lowers the variance. An image
    of one grey stays as it is.

    Args:
        images: The images x.
        noise: An image of noise n for each; see `gaussian_noise`, `phase_scrambled`,
            `permuted_pixels`. One of a single grey counts as no noise.
        amount: The share a of noise, 0 to 1.

    Returns:
        The mixtures.

    Raises:
        ValueError: The shapes differ, or the amount is outside [0, 1].

    Example:
        >>> images, noise = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[5.0, 1.0]]])
        >>> mix_noise(images, noise, 1).tolist()
        [[[2.0, 0.0]]]
    """
    _check_images(images)
    _check_amount(amount)
    if noise.shape != images.shape:
        raise ValueError(
            "one image of noise of the same size is required for every image, but images has the "
            f"shape {tuple(images.shape)} and noise {tuple(noise.shape)}. Make the noise from the "
            "same images."
        )
    if amount == 0:
        return images.clone()
    return _matched((1 - amount) * images + amount * _matched(noise, images), images)


def shuffle(
    images: Float[Tensor, "n height width"],
    units: Units,
    scope: Scope,
    amount: float | int,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "n height width"]:
    """A fraction of the pixels, rows or columns moved elsewhere.

    * "fixed": one permutation for all images. Nothing is lost to a fully connected network, which
      knows no neighbourhoods: a control that must change nothing but the initial values' order.
    * "fresh": a permutation of its own for every image. Keeps each image's histogram (and, for rows
      and columns, the content of each row or column); destroys positions.
    * "across": every unit keeps its position and takes the values of another image, by a
      permutation of the images of its own. Keeps the distribution of every unit over the images;
      destroys what belongs together, and with it the class.

    Exactly round(amount x number) of the units (for "across": of the images, in each unit) are
    moved, in one random cycle, so that none of them stays. A single one has nowhere to go and
    stays.

    Args:
        images: The images.
        units: What is moved as a whole.
        scope: Within which the permutation moves, and how many permutations there are.
        amount: Fraction that is moved, 0 to 1.
        generator: Draws the permutations.

    Returns:
        The shuffled images.

    Raises:
        ValueError: `units` or `scope` is none of the three, or the amount is outside [0, 1].

    Example:
        >>> images = torch.arange(8.0).reshape(2, 2, 2)
        >>> shuffle(images, "rows", "fixed", 1, generator=torch.Generator().manual_seed(0))[0]
        tensor([[2., 3.],
                [0., 1.]])
    """
    _check_images(images)
    _check_amount(amount)
    for name, value, known in (("units", units, Units), ("scope", scope, Scope)):
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {get_args(known)}, but it is {value!r}.")
    turned = images.transpose(1, 2) if units == "columns" else images
    parts = turned.reshape(len(images), -1, 1) if units == "pixels" else turned
    n, size = parts.shape[:2]
    if scope == "across":
        index = _cycles(size, n, amount, generator).T
        moved = parts.gather(0, index[..., None].expand(parts.shape))
    else:
        index = _cycles(1 if scope == "fixed" else n, size, amount, generator)
        moved = parts.gather(1, index[..., None].expand(parts.shape))
    moved = moved.reshape(turned.shape)
    return (moved.transpose(1, 2) if units == "columns" else moved).contiguous()


def downscale(images: Float[Tensor, "n height width"], side: int) -> Float[Tensor, "n side side"]:
    """Smaller images: the mean over equal squares of pixels.

    Keeps the mean of every image; the variance falls.

    Args:
        images: Square images.
        side: Side of the small images in pixels, a divisor of the side.

    Returns:
        The small images.

    Raises:
        ValueError: The images are not square, or the side does not divide theirs.

    Example:
        >>> downscale(torch.arange(16.0).reshape(1, 4, 4), 2)
        tensor([[[ 2.5000,  4.5000],
                 [10.5000, 12.5000]]])
    """
    _check_images(images)
    n, height, width = images.shape
    if height != width or side < 1 or height % side:
        raise ValueError(
            "square images and a side that divides theirs are required, but the images are "
            f"{height} x {width} and the side is {side}. Sides of 28 pixels are 1, 2, 4, 7, 14, 28."
        )
    factor = height // side
    return images.reshape(n, side, factor, side, factor).mean((2, 4))


def noisy_labels(
    labels: Int64[Tensor, " n"],
    amount: float | int,
    n_classes: int,
    *,
    generator: torch.Generator,
) -> Int64[Tensor, " n"]:
    """Labels of which a fraction was replaced by a class drawn uniformly from all of them.

    Exactly round(amount x n) labels are drawn anew, and one in `n_classes` of these is the old one
    again. At 1 nothing about the image is left in its label.

    Args:
        labels: Classes, from 0.
        amount: Fraction that is drawn anew, 0 to 1.
        n_classes: Number of classes.
        generator: Draws which, and the classes.

    Returns:
        The labels.

    Raises:
        ValueError: The amount is outside [0, 1], or a label is no class.

    Example:
        >>> labels, generator = torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(1)
        >>> noisy_labels(labels, 0.5, 10, generator=generator)
        tensor([0, 8, 0, 3])

    References:
        Zhang, Bengio, Hardt, Recht & Vinyals (2017), "Understanding deep learning requires
        rethinking generalization", arXiv:1611.03530, section 2.1, "partially corrupted labels".
    """
    _check_amount(amount)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(
            f"labels must lie between 0 and {n_classes - 1} for {n_classes} classes, but they run "
            f"from {int(labels.min())} to {int(labels.max())}."
        )
    rows = torch.randperm(len(labels), generator=generator)[: round(amount * len(labels))]
    noisy = labels.clone()
    noisy[rows] = torch.randint(n_classes, (len(rows),), generator=generator)
    return noisy


def draw_examples(
    labels: Int64[Tensor, " n"],
    n_examples: int,
    *,
    classes: Sequence[int] | None = None,
    generator: torch.Generator,
) -> Int64[Tensor, " n_examples"]:
    """Rows of randomly drawn examples, without replacement, of some classes or of all.

    Subsets of classes come at equal size that way, and a smaller number of examples of the same
    classes from the same state of the generator is the beginning of a larger one. Classes keep
    their labels and, on average, their proportions.

    Args:
        labels: Class of every example.
        n_examples: How many are drawn.
        classes: The classes to draw from; all by default.
        generator: Draws the order.

    Returns:
        Row numbers, in random order.

    Raises:
        ValueError: There are fewer examples.

    Example:
        >>> rows = draw_examples(
        ...     torch.tensor([1, 7, 1, 3]), 2, classes=(1,), generator=torch.Generator()
        ... )
        >>> rows.sort().values
        tensor([0, 2])
    """
    eligible = torch.arange(len(labels))
    if classes is not None:
        eligible = eligible[torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype))]
    if not 1 <= n_examples <= len(eligible):
        of = "" if classes is None else f" of the classes {tuple(classes)}"
        raise ValueError(
            f"between 1 and {len(eligible)} examples can be drawn, as many as there are{of}, but "
            f"{n_examples} are required. Ask for fewer, or for more classes."
        )
    return eligible[torch.randperm(len(eligible), generator=generator)[:n_examples]]


def _matched(
    values: Float[Tensor, "n height width"], images: Float[Tensor, "n height width"]
) -> Float[Tensor, "n height width"]:
    """Values with the mean and standard deviation of each image; greys stay the image's grey."""
    axes = (1, 2)
    centred = values - values.mean(axes, keepdim=True)
    spread = centred.std(axes, correction=0, keepdim=True)
    wanted = images.std(axes, correction=0, keepdim=True)
    scale = torch.where(spread > 0, wanted / spread.clamp(min=torch.finfo(values.dtype).tiny), 0.0)
    return centred * scale + images.mean(axes, keepdim=True)


def _cycles(
    n_permutations: int, size: int, amount: float | int, generator: torch.Generator
) -> Int64[Tensor, "n_permutations size"]:
    """Permutations that move exactly round(amount x size) elements, in one random cycle each."""
    keys = torch.rand(n_permutations, size, generator=generator)
    cycle = keys.argsort(1)[:, : round(amount * size)]
    index = torch.arange(size).repeat(n_permutations, 1)
    return index.scatter_(1, cycle, cycle.roll(1, dims=1))


def _check_images(images: Tensor) -> None:
    if len(images) == 0:
        raise ValueError("at least one image is required, but there is none.")


def _check_amount(amount: float | int) -> None:
    if not 0 <= amount <= 1:
        raise ValueError(
            f"the amount must be a share between 0 (nothing) and 1 (all), but it is {amount}."
        )
