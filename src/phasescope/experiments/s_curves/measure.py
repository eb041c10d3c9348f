"""Every statistic of every seed, from what was recorded of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import phasescope as ps
from phasescope.experiments.s_curves.config import Config
from phasescope.experiments.s_curves.observer import Observer

PLATEAU_END = 0.1  # share of the target that is learned when the decay on the plateau is judged
FEWEST = 8  # records from which a decay is judged


def measure(
    config: Config, observer: Observer, params: dict[str, Tensor], loss: Tensor
) -> dict[str, Tensor]:
    """Statistics by name, one value per seed; NaN where a seed has none."""
    steps = torch.arange(loss.shape[1], dtype=torch.float64, device=loss.device)
    relative = (loss / loss[:, :1]).double()
    finite = loss.isfinite().all(1)
    found = {
        f"t{name}": ps.first_crossing(relative.nan_to_num(math.inf), steps, level, falling=True)
        for name, level in (("50", 0.5), ("10", 0.1), ("1", 0.01))
    }
    curves = ps.s_curves(loss.nan_to_num(math.inf), steps, window=config.window, floor=config.floor)
    found |= {
        "end": torch.where(finite, relative[:, -1], math.nan),
        "s_ratio": curves.s_ratio,
        "plateau_length": curves.plateau_length,
        "n_rises": curves.n_rises.double(),
        "diverged": (~finite).double(),
        "conserved_drift": observer.conserved_drift(params),
    }
    used = (~curves.rates.isnan()).double().sum(1)
    found["plateau_share"] = curves.plateau.double().sum(1) / used
    found |= _bumps(config, observer, curves.plateau, finite)
    if observer.largest_angle is not None:
        found["largest_angle"] = observer.largest_angle
    if config.rank > 1:
        found["spread"] = _spread(observer, found["t1"])
    if config.rank == 2:
        found |= _modes(observer)
    if config.rank == 1 and config.loss == "squared_error":
        found |= _rank_one(config, observer, finite)
    return {name: value.double().cpu() for name, value in found.items()}


def _bumps(
    config: Config, observer: Observer, plateau: Tensor, finite: Tensor
) -> dict[str, Tensor]:
    """Number of bumps, and how many are contested, contested by chance, and on a plateau."""
    cosines = observer.alignments.nan_to_num(0.0)
    bumps = ps.find_bumps(cosines, prominence=config.prominence)
    kinds = {"bumps": torch.ones_like(bumps.seed, dtype=torch.bool)}
    if config.rank > 1:
        generator = torch.Generator().manual_seed(config.seed)
        others = ps.other_targets(bumps, config.rank, generator=generator)
        kinds["contested"] = ps.contested(cosines, bumps, gain=config.prominence)
        kinds["contested_null"] = ps.contested(
            cosines, bumps, gain=config.prominence, target=others
        )
    steps = torch.tensor(observer.steps, device=plateau.device)
    kinds["on_plateau"] = plateau[bumps.seed, steps[bumps.peak]]
    counts = {name: bumps.count(kind).double() for name, kind in kinds.items()}
    heights = torch.zeros_like(counts["bumps"]).index_add_(0, bumps.seed, bumps.prominence.double())
    counts["prominence"] = heights / counts["bumps"]  # mean; NaN without a bump
    counts["plateau_share"] = plateau.double().sum(1) / torch.where(plateau.any(1), 1.0, 1.0)
    return {name: torch.where(finite, value, math.nan) for name, value in counts.items()}


def _spread(observer: Observer, t1: Tensor) -> Tensor:
    """Relative spread of the columns' path lengths until the loss is at 1%, or the end."""
    steps = torch.tensor(observer.steps, dtype=torch.float64, device=t1.device)
    before = steps <= t1.nan_to_num(math.inf).unsqueeze(1)
    return ps.relative_spread((observer.moved * before.unsqueeze(-1)).sum(1).double())


def _modes(observer: Observer) -> dict[str, Tensor]:
    """When each of two modes is half learned, which one is first, and which should be."""
    steps = torch.tensor(observer.steps, dtype=torch.float64)
    learned = observer.learned.mT.cpu()
    halves = ps.first_crossing(learned.nan_to_num(0.0).contiguous(), steps, 0.5)
    first = halves.nan_to_num(math.inf).argmin(1).double()
    S, w0 = observer.S.double().cpu(), observer.start_strengths.double().cpu()
    predicted = ((S / w0).log() / (2 * S)).argmin(1).double()
    known = halves.isfinite().any(1)
    return {
        "t_larger": halves[:, 0],
        "t_smaller": halves[:, 1],
        "larger_first": torch.where(known, 1 - first, math.nan),
        "as_predicted": torch.where(known, (first == predicted).double(), math.nan),
        "singular_ratio": S[:, 0] / S[:, 1],
    }


def _rank_one(config: Config, observer: Observer, finite: Tensor) -> dict[str, Tensor]:
    """Aligned and irrelevant parts: when half is learned, and how the rest decays until then."""
    state = observer.rank_one
    assert state is not None
    steps = torch.tensor(observer.steps, dtype=torch.float64, device=state.u.device)
    s = state.s[:, 0]
    product = state.u * state.v
    final = (s - config.weight_decay).clamp(min=0)
    irrelevant = (state.p * state.q).sqrt()
    found = {
        "t_half": ps.first_crossing(product.contiguous(), steps, 0.5 * final),
        "t_tenth": ps.first_crossing(product.contiguous(), steps, 0.1 * final),
        "t_irrelevant": ps.first_crossing(
            irrelevant.contiguous(), steps, 0.1 * irrelevant[:, 0], falling=True
        ),
        "singular_value": s,
        "end_excess": state.loss[:, -1] - (config.weight_decay**2) / 2,
    }
    on_plateau = (product >= PLATEAU_END * s.unsqueeze(1)).int().cummax(1).values == 0
    enough = (on_plateau.sum(1) >= FEWEST) & finite
    exponential, algebraic, rate = _decay_fits(steps, irrelevant, product, on_plateau)
    found |= {
        "exponential_residual": torch.where(enough, exponential, math.nan),
        "algebraic_residual": torch.where(enough, algebraic, math.nan),
        "growth_rate": torch.where(enough, rate / (2 * s * config.learning_rate), math.nan),
    }
    if config.optimizer == "sgd" and config.momentum == 0:
        start = ps.RankOneState(*(getattr(state, name)[:, 0] for name in "uvpqs"))
        flow = ps.rank_one_flow(start, steps * config.learning_rate, decay=config.weight_decay)
        found["t_half_theory"] = ps.first_crossing(
            (flow.u * flow.v).contiguous(), steps, 0.5 * final
        )
        gap = (flow.loss - state.loss).abs().amax(1) / state.loss[:, 0]
        found["theory_gap"] = gap
    return found


def _decay_fits(
    steps: Tensor, irrelevant: Tensor, product: Tensor, used: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Root mean square log residuals of c·exp(-bt) and 1/(a + bt); growth rate of the aligned part.

    Both have two parameters. The algebraic one is fitted with relative weights, so that both
    minimise (nearly) the same residual.
    """
    weight = used.double()
    logs = irrelevant.log()

    def fit(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted least squares line of every row: intercept and slope."""
        total = weights.sum(1)
        x = (weights * steps).sum(1) / total
        y = (weights * values).sum(1) / total
        dx, dy = steps - x.unsqueeze(1), values - y.unsqueeze(1)
        slope = (weights * dx * dy).sum(1) / (weights * dx * dx).sum(1)
        return y - slope * x, slope

    def residual(predicted: Tensor) -> Tensor:
        errors = torch.where(used, predicted - logs, 0.0)
        return (errors.square().sum(1) / weight.sum(1)).sqrt()

    level, slope = fit(logs, weight)
    exponential = residual(level.unsqueeze(1) + slope.unsqueeze(1) * steps)
    level, slope = fit(1 / irrelevant, weight * irrelevant.square())
    line = (level.unsqueeze(1) + slope.unsqueeze(1) * steps).clamp(min=1e-12)
    algebraic = residual(-line.log())
    grown = product.abs().clamp(min=1e-12).log()
    # The second half of the plateau: at its start the aligned part may change its sign.
    half = used.sum(1, keepdim=True) / 2
    late = used & (torch.arange(used.shape[1], device=used.device) >= half)
    _, rate = fit(grown, late.double())
    return exponential, algebraic, rate
