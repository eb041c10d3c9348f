"""Sparse features and their embedding, for toy models of superposition.

Axes: model (an independent stream each), row of a batch, feature, d of the embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Frequencies = Literal["uniform", "power_law"]
POWER = 1.1
DENSE = 0.25  # probability above which drawing every entry is cheaper


def feature_frequencies(
    n_features: int, mean: float, kind: Frequencies = "uniform"
) -> Float64[Tensor, " feature"]:
    r"""Probability with which each feature is active.

    Uniform: all are `mean`. Power law: $p_i = \min(1, N \bar p\, i^{-1.1} / \sum_j j^{-1.1})$ for
    i = 1 … N, so feature 0 is the most frequent; where the first are clipped at 1 the mean is lower
    than asked for.

    Args:
        n_features: N.
        mean: $\bar p$, in (0, 1].
        kind: Which of the two.

    Returns:
        Probabilities.

    Raises:
        ValueError: There is no feature, `mean` is not a probability, or the kind is another word.

    Example:
        >>> feature_frequencies(3, 0.2, "power_law").round(decimals=3).tolist()
        [0.34, 0.159, 0.102]

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    if n_features < 1 or not 0 < mean <= 1:
        raise ValueError(
            "at least one feature with a mean frequency in (0, 1] is required, but "
            f"n_features={n_features} and mean={mean} arrived."
        )
    if kind == "uniform":
        return torch.full((n_features,), mean, dtype=torch.float64)
    if kind != "power_law":
        raise ValueError(f"frequencies are 'uniform' or 'power_law', but {kind!r} arrived.")
    weights = torch.arange(1, n_features + 1, dtype=torch.float64) ** -POWER
    return (n_features * mean * weights / weights.sum()).clamp(max=1.0)


def feature_directions(n_features: int, d: int, *, seed: int) -> Float[Tensor, "d feature"]:
    """A random embedding of N features in d dimensions: unit columns, as orthogonal as they go.

    Orthonormal columns of a random N × d matrix, each row then scaled to length one, transposed.

    Args:
        n_features: N.
        d: Dimensions, at most N.
        seed: Of the random matrix.

    Returns:
        The embedding P in float32; features v are seen as P v.

    Raises:
        ValueError: d is not between 1 and N.

    Example:
        >>> P = feature_directions(6, 3, seed=0)
        >>> torch.allclose(P.norm(dim=0), torch.ones(6))
        True

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    if not 1 <= d <= n_features:
        raise ValueError(
            f"d must be between 1 and the {n_features} features, but it is {d}. Features that all "
            "have a dimension of their own need no superposition."
        )
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(n_features, d, generator=generator, dtype=torch.float64)
    U = torch.linalg.svd(M, full_matrices=False).U
    return (U / U.norm(dim=1, keepdim=True)).T.float().contiguous()


class SparseFeatures:
    r"""Batches of sparse features: active with their frequencies, then uniform in [0, 1).

    Only the active entries are drawn: arrivals of a Poisson process whose intensity over an entry
    is $-\ln(1 - p)$ meet it with probability p, independently of all others. At the usual
    sparsities this costs a fraction of drawing a number for every entry, and is the same
    distribution exactly. Of features that are active more often than every fourth time all entries
    are drawn: one uniform number u for each, which is active if u < p and then has the value u / p.

    All models draw from one generator: the batches of a model depend on how many there are, but no
    model sees another's batch.

    Args:
        frequencies: Probability of each feature, in (0, 1], the same for all models or for each.
        n_models: Models that are trained together.
        batch_size: Rows for each.
        seed: Of all draws.
        device: Where the batches are wanted.

    Raises:
        ValueError: A frequency is not a probability, or there is no model or no row.

    Example:
        >>> features = SparseFeatures(torch.tensor([0.5, 1.0]), n_models=2, batch_size=3, seed=0)
        >>> batch = features.draw()
        >>> batch.shape, bool((batch[..., 1] > 0).all())
        (torch.Size([2, 3, 2]), True)
    """

    def __init__(
        self,
        frequencies: Float[Tensor, " feature"] | Float[Tensor, "model feature"],
        *,
        n_models: int,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        p = frequencies.double().cpu()
        if n_models < 1 or batch_size < 1 or not bool(((p > 0) & (p <= 1)).all()):
            raise ValueError(
                "at least one model, one row and frequencies in (0, 1] are required, but "
                f"n_models={n_models}, batch_size={batch_size} and frequencies from "
                f"{float(p.min()):g} to {float(p.max()):g} arrived."
            )
        self.frequencies = p.expand(n_models, p.shape[-1])
        self.n_models, self.batch_size = n_models, batch_size
        self.device = torch.device(device)
        self._generator = torch.Generator().manual_seed(seed)
        p = self.frequencies
        dense = p > DENSE
        self._dense_places = dense.nonzero(as_tuple=True)
        self._dense_p = p[dense].float().unsqueeze(1)
        whole = dense.all(1)  # models all of whose features are frequent are written in one piece
        self._whole = whole.nonzero().flatten() if bool((whole == dense.any(1)).all()) else None
        sparse = torch.where(dense, 0.0, p)
        intensity = -torch.log1p(-sparse)
        self._intensity = intensity.sum(1)
        rows, self._table = intensity.unique(dim=0, return_inverse=True)
        tables = [_alias_table(row) for row in rows]
        self._kept = torch.stack([kept for kept, _ in tables]).flatten()
        self._alias = torch.stack([alias for _, alias in tables]).flatten()
        self._values = torch.zeros(n_models, batch_size, p.shape[1])
        self._written = torch.empty(0, dtype=torch.int64)

    def draw(self) -> Float[Tensor, "model row feature"]:
        """The next batch of every model, float32; on the CPU the next call writes it over."""
        n_features = self._values.shape[2]
        # NumPy lets the last of repeated indices win, always; torch leaves open which one does.
        values = self._values.view(-1).numpy()
        values[self._written.numpy()] = 0
        counts = torch.poisson(self._intensity * self.batch_size, generator=self._generator)
        models = torch.arange(self.n_models).repeat_interleave(counts.long())
        u = torch.rand(2, len(models), generator=self._generator, dtype=torch.float64)
        rows = models * self.batch_size + (u[1] * self.batch_size).long()
        self._written = rows * n_features + self._choose(models, u[0] * n_features)
        drawn = torch.rand(len(models), generator=self._generator)
        values[self._written.numpy()] = drawn.numpy()
        if len(self._dense_p):
            u = torch.rand(len(self._dense_p), self.batch_size, generator=self._generator)
            u /= self._dense_p
            u.masked_fill_(u >= 1, 0.0)
            if self._whole is not None:
                self._values[self._whole] = u.unflatten(0, (-1, n_features)).mT
            else:
                model, feature = self._dense_places
                self._values[model, :, feature] = u
        return self._values.to(self.device)

    def _choose(self, models: Tensor, u: Tensor) -> Tensor:
        """A feature for every arrival, with probability in proportion to its intensity."""
        n_features = self._values.shape[2]
        columns = u.long().clamp(max=n_features - 1)
        places = self._table[models] * n_features + columns
        return torch.where(u - columns < self._kept[places], columns, self._alias[places])

    def state_dict(self) -> dict[str, Tensor]:
        """The position in the stream of draws."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a position."""
        self._generator.set_state(state["generator"])


def _alias_table(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Walker's table: column i is kept with a probability, else its alias is taken."""
    n = len(weights)
    kept, alias = torch.ones(n, dtype=torch.float64), torch.arange(n)
    if float(weights.sum()) == 0:
        return kept, alias
    scaled = (weights * (n / weights.sum())).tolist()
    small = [i for i, w in enumerate(scaled) if w < 1]
    large = [i for i, w in enumerate(scaled) if w >= 1]
    while small and large:
        i, j = small.pop(), large[-1]
        kept[i], alias[i] = scaled[i], j
        scaled[j] -= 1 - scaled[i]
        if scaled[j] < 1:
            small.append(large.pop())
    return kept, alias
