"""Which algorithm a network uses: the clock's or the pizza's, with the measures of Zhong et al.

Letters: i, j places of the operands, c of the results, n of each; d d_model, t triples.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, check_axes, frequency_power

LogitsFromEmbeddings = Callable[[Tensor, Tensor], Tensor]


@functools.lru_cache(maxsize=8)
def symmetricity_triples(
    n: int, n_triples: int = 100, seed: int = 42
) -> tuple[tuple[int, int, int], ...]:
    """The triples (a, b, c) on which Zhong et al. measure gradient symmetricity.

    The first of all n³ triples in lexicographic order, shuffled by Python's `random.Random`; c is
    any result, not the right one.

    Args:
        n: Number of tokens.
        n_triples: How many.
        seed: Seed of the shuffle.

    Returns:
        The triples.

    Example:
        >>> symmetricity_triples(59)[0]
        (29, 1, 57)
    """
    numbers = list(range(n**3))
    random.Random(seed).shuffle(numbers)
    return tuple((x // n**2, x // n % n, x % n) for x in numbers[:n_triples])


def gradient_symmetricity(
    logits_from_embeddings: LogitsFromEmbeddings,
    W_E: Float[Tensor, "n d"],
    triples: Sequence[tuple[int, int, int]] | None = None,
) -> float:
    r"""Mean cosine of a logit's gradients by the two operands' embeddings: 1 for the pizza.

    $\cos(\partial o_c/\partial E_a, \partial o_c/\partial E_b)$ over triples. An untrained network
    is far from 0 too: near 1 where "=" follows the operands; without it the last position reads
    $E_b$ past the attention as well, which leaves about .7 with constant attention ($1/\sqrt2$ if
    values and outputs have gain 1) and .4 with softmax. Show it beside the number.

    Args:
        logits_from_embeddings: From embeddings of a and of b, both [t, d] and before the positional
            embedding, to the logits at the last position, [t, c].
        W_E: Embedding, in the order of the tokens.
        triples: Tokens a and b and a result c each; default `symmetricity_triples`.

    Returns:
        Between −1 and 1.

    Example:
        >>> W_E = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        >>> round(gradient_symmetricity(lambda a, b: (a + b) ** 2, W_E, [(0, 1, 2)]), 6)
        1.0

    References:
        Zhong et al. (2023), "The Clock and the Pizza", arXiv:2306.17844, section 4.1.
    """
    triples = symmetricity_triples(len(W_E)) if triples is None else triples
    a, b, c = torch.tensor(triples, device=W_E.device).unbind(1)
    with torch.enable_grad():
        E_a = W_E.detach()[a].requires_grad_()
        E_b = W_E.detach()[b].requires_grad_()
        chosen = logits_from_embeddings(E_a, E_b).gather(1, c[:, None]).sum()
        by_a, by_b = torch.autograd.grad(chosen, (E_a, E_b))
    return torch.nn.functional.cosine_similarity(by_a.double(), by_b.double()).mean().item()


def distance_irrelevance(
    basis: FourierBasis,
    logits: Float[Tensor, "n n c"],
    labels: Int64[Tensor, "n n"],
    which: Literal["correct", "top_wrong", "margin"] = "correct",
) -> float:
    r"""How little a logit depends on the distance i − j of the operands: the pizza depends on it.

    Standard deviation over the pairs of equal distance, averaged over the distances, over the
    standard deviation of all pairs. About 1 at random initialisation, .2 for a pizza, .8 for a
    clock, in the source's runs. Its training code stores the variant ``"top_wrong"``, its
    evaluation notebook ``"correct"``.

    Args:
        basis: Basis of the group.
        logits: Of every pair, in the order of the places.
        labels: Place of the right result; pairs with a negative one, which have no result, are
            left out.
        which: The right logit, the largest wrong one, or their difference.

    Returns:
        Dimensionless.

    Raises:
        ValueError: Another word.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> wave = basis.rows[1][basis.differences][..., None].expand(5, 5, 5)
        >>> round(distance_irrelevance(basis, wave, basis.sums), 6)
        0.0

    References:
        Zhong et al. (2023), arXiv:2306.17844, section 4.2.
    """
    check_axes(basis, logits, 2)
    values = logits.double()
    labels = labels.to(values.device)
    index = labels.clamp(min=0).unsqueeze(-1)
    right = values.gather(-1, index).squeeze(-1)
    wrong = values.scatter(-1, index, -torch.inf).amax(-1)
    chosen = {"correct": right, "top_wrong": wrong, "margin": right - wrong}
    if which not in chosen:
        raise ValueError(f"which is 'correct', 'top_wrong' or 'margin', but {which!r} arrived.")
    M = chosen[which].masked_fill(labels < 0, torch.nan)
    j = torch.arange(len(basis), device=M.device)
    by_distance = M[basis.sums.to(M.device), j]  # [distance, j]: left operand j + distance
    return (_spread(by_distance, 1).nanmean() / _spread(M.flatten(), 0)).item()


def _spread(values: Tensor, dim: int) -> Tensor:
    """Standard deviation of what is not NaN."""
    return (values - values.nanmean(dim, keepdim=True)).square().nanmean(dim).sqrt()


def circularity(basis: FourierBasis, W_E: Float[Tensor, "n d"], n_components: int = 4) -> float:
    """How much the leading principal components of the embedding are single frequencies.

    For each, the share of its energy in its best frequency; the mean of them, as far as the
    embedding has so many. Circles of exactly the same size have no principal components of their
    own and mix.

    Args:
        basis: Basis of the group.
        W_E: Embeddings in the order of the places.
        n_components: How many principal components.

    Returns:
        Between 0 and 1; 1 if the embedding consists of circles; NaN if all rows are the same.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((9,))
        >>> circles = basis.rows[1:5].T * torch.tensor([2.0, 2.0, 1.0, 1.0])
        >>> round(circularity(basis, circles), 6)
        1.0

    References:
        Zhong et al. (2023), arXiv:2306.17844, appendix on metrics.
    """
    check_axes(basis, W_E, 1)
    centred = W_E.double() - W_E.double().mean(0)
    U, S, _ = torch.linalg.svd(centred, full_matrices=False)
    # Vectors of singular values that are rounding are any basis of what is left.
    rounding = max(W_E.shape) * torch.finfo(W_E.dtype).eps * W_E.norm()
    U = U[:, rounding < S][:, :n_components]
    return frequency_power(basis, U)[1:].amax(0).clamp(max=1.0).mean().item()


def isolate_circle(
    W_E: Float[Tensor, "n d"], circle: int, n_components: int = 20
) -> Float64[Tensor, "n d"]:
    """The embedding with two neighbouring principal components alone, and its mean.

    The network run on it shows the algorithm of one circle.

    Args:
        W_E: Embeddings.
        circle: 0 for the first two principal components, 1 for the next two.
        n_components: How many principal components there are to choose from.

    Returns:
        The embeddings, float64.

    Raises:
        ValueError: There are not so many components.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> rows = fourier_basis((9,)).rows
        >>> torch.allclose(isolate_circle(2 * rows[:5].T + rows[:3].sum(0)[:, None], 0).mean(0),
        ...     (2 * rows[:5].T + rows[:3].sum(0)[:, None]).mean(0))
        True

    References:
        Zhong et al. (2023), arXiv:2306.17844, section 3.
    """
    values = W_E.double()
    available = min(n_components, *values.shape)
    if not 0 <= circle < available // 2:
        raise ValueError(
            f"a circle is two of {available} principal components, so its number lies between 0 "
            f"and {available // 2 - 1}, but {circle} arrived."
        )
    mean = values.mean(0)
    U, S, Vh = torch.linalg.svd(values - mean, full_matrices=False)
    kept = slice(2 * circle, 2 * circle + 2)
    return mean + (U[:, kept] * S[kept]) @ Vh[kept]


def algorithm_templates(basis: FourierBasis, frequency: int) -> dict[str, Float64[Tensor, "n n n"]]:
    r"""Logits that the clock and the pizza would give with one frequency.

    ``"clock"``: $\cos w(i+j-c)$. ``"pizza"``: $|\cos(w(i-j)/2)|\cos w(i+j-c)$.

    Args:
        basis: Basis of a cyclic group.
        frequency: Number of the frequency.

    Returns:
        Both templates, to be compared by `explained`.

    Raises:
        ValueError: The group is not cyclic.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> templates = algorithm_templates(fourier_basis((5,)), 1)
        >>> templates["pizza"][0, 0, 0].item(), templates["clock"].shape
        (1.0, torch.Size([5, 5, 5]))

    References:
        Zhong et al. (2023), arXiv:2306.17844, equations 1 and 2.
    """
    if len(basis.orders) != 1:
        raise ValueError(
            f"the pizza halves angles and needs a cyclic group, but the orders are {basis.orders}."
        )
    n = len(basis)
    places = torch.arange(n)
    angle = 2 * torch.pi * frequency / n
    wave = (angle * places.double()).cos()
    clock = wave[basis.differences[basis.sums]]
    half = (angle / 2 * (places[:, None] - places).double()).cos().abs()
    return {"clock": clock, "pizza": half[..., None] * clock}


def explained(values: Float[Tensor, "*axes"], template: Float[Tensor, "*axes"]) -> float:
    """Share of the variance of standardised values that a standardised template explains.

    With both brought to mean 0 and variance 1 it is $1 - Var(y - t) = 2 r - 1$, with r their
    correlation: no scale is fitted, so it is below the r² of a regression.

    Args:
        values: Such as logits.
        template: What is expected, up to scale and shift.

    Returns:
        At most 1.

    Raises:
        ValueError: Their shapes differ.

    Example:
        >>> round(explained(torch.arange(4.0), 3 * torch.arange(4.0) - 1), 6)
        1.0

    References:
        Zhong et al. (2023), arXiv:2306.17844, section 3 (FVE).
    """
    if values.shape != template.shape:
        raise ValueError(
            "values and template must have one shape, but theirs are "
            f"{tuple(values.shape)} and {tuple(template.shape)}."
        )
    y, t = (x.double() - x.double().mean() for x in (values, template))
    return 2 * ((y * t).sum() / (y.norm() * t.norm())).item() - 1
