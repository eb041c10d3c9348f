"""The path of a run's logits: where it turns, and which directions it is made of.

Letters: T kept steps, m sampled pairs, n places of the task's group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

import phasescope as ps
from phasescope.analysis.grokking import FourierBasis, fourier_basis
from phasescope.datasets import Coordinates
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.training import network_at, task_of

N_PAIRS = 256  # of each kind, training and test
WINDOW = 5  # kept steps before and behind a turn
NEAR = 0.1  # a turn within this share of a boundary's step, or within the window, is at it
_N_DRAWS = 99


def logit_path(
    config: Config,
    run: ps.Run,
    steps: Sequence[int],
    boundaries: Sequence[int | None],
    keys: Sequence[int],
) -> dict[str, Any]:
    """Turns of the logits' first two principal components, and what the components are.

    Logits of up to 256 training and as many test pairs, the same at every step.

    Args:
        config: The run's configuration.
        run: Its recording.
        steps: Evenly spaced steps whose weights were kept.
        boundaries: Steps at which phases begin; None for one that was not found.
        keys: Key frequencies of the final network.
    """
    task, split = task_of(config)
    coordinates = task.natural
    generator = torch.Generator().manual_seed(0)
    sampled = [_some(rows, generator) for rows in (split.train, split.test)]
    pairs, labels = task.examples(torch.cat(sampled))
    trained = torch.arange(len(pairs)) < len(sampled[0])
    rows = run["weights"].steps.tolist()
    at = {step: row for row, step in enumerate(rows)}
    with torch.no_grad():
        logits = torch.stack(
            [network_at(config, run, at[step])(pairs)[:, : task.n_tokens] for step in steps]
        )
    # The first update of a warm-up has rate 0, and a path must move.
    moved = torch.cat([torch.tensor([True]), (logits.diff(dim=0) != 0).flatten(1).any(1)])
    logits = logits[moved]
    steps = [step for step, moves in zip(steps, moved.tolist(), strict=True) if moves]
    path = ps.gram(logits.flatten(1), dtype=torch.float64)
    path = ps.Gram(path.K, torch.tensor(steps), path.row_sums, path.n_columns, {}, path.eps)
    found = turns_at(path, boundaries)
    places = places_of(coordinates, pairs, labels, task.n_tokens)
    truth = known_directions(fourier_basis(coordinates.orders), places, trained, keys)
    spectrum = ps.spectrum(path, center="steps")
    k = min(1 + len(keys), int((spectrum.resolution < spectrum.S).sum()))
    regular = (places >= 0).all(1)
    values = logits[:, regular][:, :, coordinates.result].flatten(1)
    return found | {"directions": held_by_components(values, k, truth)}


def turns_at(path: ps.Gram, boundaries: Sequence[int | None]) -> dict[str, Any]:
    """Where a path turns more than walks do, and which boundaries have a turn.

    Args:
        path: Gram matrix of the points, rows in order.
        boundaries: Steps; None for one that was not found.
    """
    found = ps.turning_test(path, window=WINDOW, n_draws=_N_DRAWS)
    gap = int(path.steps.diff().median())
    met = [
        step is not None
        and any(abs(turn - step) <= max(WINDOW * gap, NEAR * step) for turn in found.turns)
        for step in boundaries
    ]
    # Boundaries at any other inner step: what so many turns meet by chance.
    inner = path.steps[WINDOW:-WINDOW].double()
    turns = torch.tensor(found.turns, dtype=torch.float64)
    reach = torch.maximum(torch.tensor(float(WINDOW * gap)), NEAR * inner)
    near = (inner[:, None] - turns).abs() <= reach[:, None]
    thin = max(1, len(path.steps) // 200)
    band = found.null_bends.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return {
        "turns": list(found.turns),
        "p": found.p,
        "boundaries": list(boundaries),
        "met": met,
        "chance": float(near.any(1).double().mean()),
        "shares": found.shares.tolist(),
        "null_shares": found.null_shares.median(0).values.tolist(),
        "points": found.points[::thin].tolist(),
        "null_points": found.null_points[::thin].tolist(),
        "steps": path.steps[::thin].tolist(),
        "bends": _finite(found.bends[::thin]),
        "bends_low": _finite(band[0, ::thin]),
        "bends_high": _finite(band[1, ::thin]),
    }


def places_of(
    coordinates: Coordinates, pairs: Int64[Tensor, "m 2"], labels: Int64[Tensor, " m"], n: int
) -> Int64[Tensor, "m 3"]:
    """Places of both operands and of the result of every pair; -1 where there is none.

    Args:
        coordinates: Order of the tokens.
        pairs: Tokens of the operands.
        labels: Tokens of the results.
        n: Number of tokens.
    """
    left, right, result = (coordinates.places(side, n) for side in ("left", "right", "result"))
    return torch.stack([left[pairs[:, 0]], right[pairs[:, 1]], result[labels]], 1)


def known_directions(
    basis: FourierBasis,
    places: Int64[Tensor, "m 3"],
    trained: Tensor,
    keys: Sequence[int],
) -> dict[str, Float64[Tensor, "_ mn"]]:
    """Directions of the logits of some pairs whose meaning is known, as unit rows.

    - ``"keys"``: cos w_k(i + j - l) of every key frequency.
    - ``"others"``: the same of all other frequencies, the control.
    - ``"memory"``: the right answers of the training pairs, and no others, less what cosines of
      all frequencies say of them.

    Args:
        basis: Basis of the group.
        places: Places of operands and results; pairs without place are left out.
        trained: Which pairs were trained on.
        keys: Key frequencies.
    """
    regular = (places >= 0).all(1)
    i, j, right = places[regular].unbind(1)
    d = basis.differences[basis.sums[i, j]]  # [m, n]: i + j - l
    cosines = {}
    for k in range(1, basis.n_frequencies + 1):
        wave = basis.rows[basis.rows_of([k])[0]][d].flatten()
        cosines[k] = wave / wave.norm()
    waves = torch.stack(list(cosines.values()))
    answers = torch.nn.functional.one_hot(right, len(basis)).double() - 1 / len(basis)
    memory = (answers * trained[regular][:, None]).flatten()
    Q = torch.linalg.qr(waves.T).Q
    memory = memory - Q @ (Q.T @ memory)
    is_key = torch.tensor([k in keys for k in cosines])
    return {
        "keys": waves[is_key],
        "others": waves[~is_key],
        "memory": (memory / memory.norm())[None],
    }


def held_by_components(
    logits: Float[Tensor, "T mn"], k: int, truth: dict[str, Float64[Tensor, "_ mn"]]
) -> dict[str, Any]:
    """Share of each known direction that lies in the span of the first k principal components.

    Args:
        logits: A row for every step.
        k: Components.
        truth: Known directions, as unit rows.
    """
    spectrum = ps.spectrum(ps.gram(logits, dtype=torch.float64), center="steps")
    k = min(k, int((spectrum.resolution < spectrum.S).sum()))
    V = ps.parameter_vectors(logits, spectrum, k).double()
    shares = {name: (rows.double() @ V.T).square() for name, rows in truth.items()}
    held = {name: share.sum(1) for name, share in shares.items()}
    return {
        "n_components": k,
        "keys": held["keys"].tolist(),
        "others": float(held["others"].mean()) if len(held["others"]) else None,
        "memory": float(held["memory"][0]),
        "memory_by_component": shares["memory"][0].tolist(),
        "random": k / logits.shape[1],
    }


def _finite(values: Float64[Tensor, " n"]) -> list[float | None]:
    return [x if math.isfinite(x) else None for x in values.tolist()]


def _some(rows: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " m"]:
    chosen = torch.randperm(len(rows), generator=generator)[:N_PAIRS]
    return rows[chosen.sort().values]
