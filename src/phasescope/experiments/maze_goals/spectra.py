"""When the components of gradients and updates act, beside those of a policy that stands still.

Letters: T rows, P parameters, k components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import phasescope as ps

K = 10
"""Leading components that are looked at."""
LEVEL = 0.05
"""Of the permutation test that calls a component early or late."""


@dataclass(frozen=True)
class TimeParts:
    """The leading components of a trajectory, and which of them are early and which late."""

    numbers: dict[str, Any]
    """Profiles as plain JSON."""
    leading: ps.Subspace
    """The k leading directions."""
    early: ps.Subspace | None
    """Those that lie early beyond chance; None if there are none."""
    late: ps.Subspace | None
    """Those that lie late beyond chance; None if there are none."""


def time_parts(
    A: Any, layers: Mapping[str, ps.Component] | None = None, *, k: int = K, name: str = ""
) -> TimeParts:
    """The k leading components of normalised rows, sorted by when they act.

    A component is early if the centre of mass of its squared time vector lies before that of
    permuted steps (two-sided p < .05), late if after.

    Args:
        A: Steps × parameters: recorded gradients, or any matrix.
        layers: Parts of the network, for the share of each component in them.
        k: Number of components; fewer if fewer can be resolved.
        name: What the subspaces are called.
    """
    spectrum = ps.spectrum(ps.gram(A), normalize=True)
    k = min(k, int((spectrum.resolution < spectrum.S).sum()))
    profiles = ps.time_profiles(spectrum, k)
    vectors = ps.parameter_vectors(A, spectrum, k)
    center, z = profiles.center, profiles.center.z
    early, late = (center.p < LEVEL) & (z < 0), (center.p < LEVEL) & (z > 0)
    last = float(spectrum.steps[-1] + 1)
    numbers: dict[str, Any] = {
        "n_rows": len(spectrum.steps),
        "singular_values": _rounded(spectrum.S[:k] / spectrum.S[0]),
        "participation_ratio": ps.participation_ratio(spectrum.S),
        "count": ps.count_above(spectrum.S, 0.1),
        "centers": _rounded(center.observed / last),
        "z": _rounded(z),
        "early_mass": _rounded(profiles.early.observed),
        "late_mass": _rounded(profiles.late.observed),
        "n_early": int(early.sum()),
        "n_late": int(late.sum()),
    }
    if layers:
        mass = ps.direction_mass(vectors, layers)
        size = sum(part.size for part in layers.values())
        numbers["layers"] = {
            part: {
                "parameters": layers[part].size / size,
                "early": _mean(mass[early, i]),
                "late": _mean(mass[late, i]),
                "all": _mean(mass[:, i]),
            }
            for i, part in enumerate(layers)
        }
    return TimeParts(
        numbers,
        ps.Subspace.spanned_by(f"{name} leading", vectors),
        _spanned(f"{name} early", vectors[early]),
        _spanned(f"{name} late", vectors[late]),
    )


def separation(centers: list[float]) -> float:
    """Standard deviation of the components' centres of mass, as a share of the training.

    Example:
        >>> round(separation([0.2, 0.8]), 6)
        0.3
    """
    return float(np.std(centers))


def layers_of(table: ps.ParameterTable) -> dict[str, ps.Component]:
    """A component for every module of an agent that has parameters, by a readable name.

    Args:
        table: Of its policy.
    """
    modules: dict[str, list[tuple[int, int]]] = {}
    for name in table.names:
        modules.setdefault(name.rsplit(".", 1)[0], []).append(table.interval(name))
    named = {"action_net": "head of moves", "value_net": "head of the value"}
    found = {}
    for module, intervals in modules.items():
        name = named.get(module, f"trunk {module.removeprefix('features_extractor.layers.')}")
        found[name] = ps.Component(name, tuple(sorted(intervals)))
    return found


def adam_updates(
    gradients: Float[Tensor, "T P"], per_row: int, learning_rate: float
) -> Float[Tensor, "rows P"]:
    """What Adam would have done with gradients at weights that do not move, a sum for each rollout.

    Args:
        gradients: In order.
        per_row: Updates of one rollout.
        learning_rate: Of Adam, with the epsilon that Stable-Baselines3 sets.
    """
    weights = torch.zeros(gradients.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=learning_rate, eps=1e-5)
    rows = []
    for rollout in gradients.double().split(per_row):
        with torch.no_grad():
            weights.zero_()
        for gradient in rollout:
            weights.grad = gradient
            optimizer.step()
        rows.append(weights.detach().clone())
    return torch.stack(rows).float()


def policy_path(policies: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Principal components of the policies on fixed observations, beside random walks.

    Args:
        policies: Logarithms of the moves' probabilities, a row for each step.
        steps: The steps.
    """
    rows = torch.from_numpy(np.asarray(policies, dtype=np.float64).reshape(len(steps), -1))
    gram = ps.gram(rows, dtype=torch.float64)
    spectrum = ps.spectrum(gram, center="steps")
    null = ps.path_walk_null(gram, center="steps")
    energy = spectrum.S**2 / (spectrum.S**2).sum()
    n = min(4, len(energy))
    band = np.quantile(null.shares.numpy()[:, :n], [0.025, 0.5, 0.975], axis=0)
    scores = spectrum.time_vectors[:, :3] * spectrum.S[:3]
    return {
        "shares": _rounded(energy[:n]),
        "walks": [_rounded(row) for row in band],
        "scores": [_rounded(column) for column in scores.T],
    }


def _spanned(name: str, vectors: Tensor) -> ps.Subspace | None:
    return ps.Subspace.spanned_by(name, vectors) if len(vectors) else None


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in np.asarray(values).tolist()]
