"""How features share dimensions and neurons: capacity, monosemanticity, states of features.

Axes: feature, d of the space that features share, neuron; leading batch axes are models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_ZERO_NORM = 1e-6
MONO, POLY, IGNORED = 0, 1, 2


def feature_dimensionality(W: Float[Tensor, "*batch feature d"]) -> Float[Tensor, "*batch feature"]:
    r"""Share of a dimension that each feature has to itself; the same as its capacity.

    $D_i = \lVert W_i \rVert^2 / \sum_j (\hat W_i \cdot W_j)^2
    = (W_i \cdot W_i)^2 / \sum_j (W_i \cdot W_j)^2$, between 0 and 1; the sum over features is at
    most d. Orthogonal to all others: 1; n features along one line: 1/n each; regular polytopes give
    3/4 (tetrahedron), 2/3 (triangle), 1/2 (antipodal pair), 2/5 (pentagon), 3/8 (square antiprism).
    Zero features (norm below 1e-6) have 0. Invariant to scaling and rotating the space.

    Misleads where the embedding is fixed and only read: apply it to what a network learned (its
    input weights times the embedding, or its output weights).

    Args:
        W: Direction of each feature in the shared space.

    Returns:
        Dimensionality, dimensionless.

    Example:
        >>> feature_dimensionality(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]))
        tensor([1.0000, 0.5000, 0.5000])

    References:
        Elhage et al. (2022), "Toy Models of Superposition", "The Geometry of Superposition".
        Scherlis et al. (2022), "Polysemanticity and capacity", arXiv:2210.01892, eq. (2).
    """
    products = (W @ W.mT).square()
    norms = W.norm(dim=-1)
    share = norms**4 / products.sum(-1).clamp(min=torch.finfo(W.dtype).tiny)
    return torch.where(norms > _ZERO_NORM, share, torch.zeros_like(share))


def dimensions_per_feature(W: Float[Tensor, "*batch feature d"]) -> Float[Tensor, "*batch"]:
    r"""Dimensions for each feature that is represented: $D^* = d / \lVert W \rVert_F^2$.

    About 1 if as many features as dimensions have unit length, 1/2 for antipodal pairs.

    Args:
        W: Direction of each feature in the shared space.

    Returns:
        One number per model; infinite if nothing is represented.

    Example:
        >>> dimensions_per_feature(torch.tensor([[1.0], [-1.0]]))
        tensor(0.5000)

    References:
        Elhage et al. (2022), "Toy Models of Superposition", "The Geometry of Superposition".
    """
    return W.shape[-1] / W.square().sum((-2, -1))


def interference(W: Float[Tensor, "*batch feature d"]) -> Float[Tensor, "*batch feature"]:
    r"""What the other features add along a feature: $\sum_{j \ne i} (\hat W_i \cdot W_j)^2$.

    Args:
        W: Direction of each feature in the shared space.

    Returns:
        Squared length; 0 for a feature that is orthogonal to all others or is zero.

    Example:
        >>> interference(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        tensor([1.0000, 0.5000])
    """
    norms = W.norm(dim=-1, keepdim=True)
    units = torch.where(norms > _ZERO_NORM, W / norms.clamp(min=_ZERO_NORM), torch.zeros_like(W))
    products = (units @ W.mT).square()
    own = torch.diagonal(products, dim1=-2, dim2=-1)
    return (products.sum(-1) - own).clamp(min=0)


def neuron_selectivity(
    S: Float[Tensor, "*batch neuron feature"],
) -> Float[Tensor, "*batch neuron"]:
    r"""Share of a neuron's positive response that its strongest feature has.

    $r_j = \max_i S_{ji} / (10^{-10} + \sum_i S_{ji})$ of the responses to each feature alone at
    value 1, negative ones (GELU) counted as zero. A dead neuron has 0.

    Args:
        S: Single-feature activations.

    Returns:
        Between 0 and 1; 1 is a neuron for one feature.

    Example:
        >>> neuron_selectivity(torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        tensor([0.7500, 0.0000])

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2 ("single-feature
        activations").
    """
    S = S.clamp(min=0)
    return S.amax(-1) / (1e-10 + S.sum(-1))


def mono_fraction(
    S: Float[Tensor, "*batch neuron feature"], threshold: float = 0.999
) -> Float[Tensor, "*batch"]:
    """Monosemantic neurons per feature: those whose selectivity exceeds the threshold, over N.

    May exceed 1, since several neurons may serve one feature. The number depends on the threshold
    and on the phase of the learning-rate cycle at which the weights were taken: say both.

    Args:
        S: Single-feature activations.
        threshold: Strict bound; .999 is the source's, .9 is robust to small responses.

    Returns:
        Neurons over features, one per model.

    Raises:
        ValueError: The threshold is not in (0, 1).

    Example:
        >>> mono_fraction(torch.eye(2, 4))
        tensor(0.5000)

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    check_threshold(threshold)
    counts = (neuron_selectivity(S) > threshold).sum(-1)
    return counts.to(S.dtype) / S.shape[-1]


def check_threshold(threshold: float) -> None:
    """Raise unless a threshold of selectivity lies between 0 and 1."""
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold must lie between 0 and 1, such as .999, not {threshold}.")


def dead_neurons(S: Float[Tensor, "*batch neuron feature"]) -> Bool[Tensor, "*batch neuron"]:
    """Neurons that no single feature activates.

    A neuron may still fire on rows with several features; see `mono_fraction` for those that serve
    one.

    Args:
        S: Single-feature activations.

    Returns:
        True where every response is zero or negative.

    Example:
        >>> dead_neurons(torch.tensor([[0.0, 0.0], [0.0, 0.1]]))
        tensor([ True, False])
    """
    return (S <= 0).all(-1)


@dataclass(frozen=True, eq=False)
class FeatureStates:
    """What became of every feature."""

    states: Int64[Tensor, "*batch feature"]
    """0 mono, 1 poly, 2 ignored."""
    n_mono_neurons: Int64[Tensor, "*batch feature"]
    """Monosemantic neurons of each feature."""

    def share(self, state: int) -> Float[Tensor, "*batch"]:
        """Share of the features in a state (0 mono, 1 poly, 2 ignored)."""
        return (self.states == state).float().mean(-1)


def feature_states(
    S: Float[Tensor, "*batch neuron feature"],
    explained: Float[Tensor, "*batch feature"],
    *,
    threshold: float = 0.999,
    represented: float = 0.1,
) -> FeatureStates:
    """Whether each feature is mono, poly or ignored.

    Mono: a monosemantic neuron responds to it most. Ignored: less than `represented` of its
    variance is explained by the output. Poly: everything else, that is, represented by neurons that
    also serve other features.

    Args:
        S: Single-feature activations.
        explained: Share of the variance of each feature that the output explains, on data; zero or
            less for the zero predictor; a feature with NaN, which was never active, is ignored. See
            `explained_share`.
        threshold: Of the selectivity of monosemantic neurons.
        represented: Share of variance below which a feature counts as ignored.

    Returns:
        States and numbers of monosemantic neurons.

    Raises:
        ValueError: The shapes do not belong together or the threshold is not in (0, 1).

    Example:
        >>> S = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
        >>> feature_states(S, torch.tensor([0.9, 0.6, 0.6, 0.0])).states.tolist()
        [0, 1, 1, 2]
    """
    check_threshold(threshold)
    if explained.shape != (*S.shape[:-2], S.shape[-1]):
        raise ValueError(
            "one explained share for each feature of each model is required, "
            f"{(*S.shape[:-2], S.shape[-1])}, but the shape {tuple(explained.shape)} arrived."
        )
    mono = neuron_selectivity(S) > threshold
    strongest = S.argmax(-1)
    counts = torch.zeros(explained.shape, dtype=torch.int64, device=S.device)
    counts.scatter_add_(-1, strongest, mono.long())
    poly_or_ignored = torch.where(explained >= represented, POLY, IGNORED)
    return FeatureStates(torch.where(counts > 0, MONO, poly_or_ignored), counts)


def explained_share(
    target: Float[Tensor, "*batch row feature"], output: Float[Tensor, "*batch row feature"]
) -> Float[Tensor, "*batch feature"]:
    r"""Share of each feature's mean square that the output explains where the feature is active.

    $1 - \sum (v_i - y_i)^2 / \sum v_i^2$ over the rows with $v_i \ne 0$: 1 is perfect, 0 is what
    the zero predictor gives, NaN where the feature was never active.

    Args:
        target: Values of the features.
        output: What the model makes of them.

    Returns:
        One number per model and feature; negative where the output is worse than zero.

    Example:
        >>> explained_share(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.ones(2, 2))
        tensor([0.8000,    nan])
    """
    active = target != 0
    missed = torch.where(active, target - output, 0.0).square().sum(-2)
    return 1 - missed / target.square().sum(-2)
