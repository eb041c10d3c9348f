"""What is measured of the models of a chunk at every record.

Axes: model, row of the held-out batch, neuron (k), feature (N); records stand beside models.
"""

from __future__ import annotations

import torch
from torch import Tensor

import phasescope as ps
from phasescope.experiments.monosemanticity.config import Config
from phasescope.models import feature_outputs, single_feature_activations

THRESHOLD = 0.9  # of the selectivity that decides; the others are shown beside
THRESHOLDS = {"mono_90": THRESHOLD, "mono_99": 0.99, "mono_999": 0.999}
N_SHOWN = 12  # records at which the activations of the first seed are kept
AT_ONCE = 512  # held-out rows that pass through the models together

Params = dict[str, Tensor]


def choice(config: Config) -> dict[str, int | str | None]:
    """How the neurons of a configuration act, as the model's functions take it."""
    return {
        "activation": config.activation,
        "top_k": config.top_k,
        "n_active_groups": config.n_active_groups,
    }


class Observer:
    """Measures of every model at every record; its state is what has been measured so far."""

    def __init__(self, config: Config, P: Tensor, x: Tensor, target: Tensor) -> None:
        self.config, self.P = config, P
        self.x, self.target = x, target
        self.rows: list[dict[str, Tensor]] = []
        self.kept: dict[str, Tensor] = {}
        self._annealed = config.annealed
        self._before_end = late_record(config)
        self._choice = choice(config)
        self._last: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, params: Params) -> None:
        """Measure the models at the next record."""
        place, last = len(self.rows), len(self.config.record_steps) - 1
        S = single_feature_activations(params, self.P, **self._choice)  # type: ignore[arg-type]
        loss, explained, firing = self._held_out(params)
        selectivity = ps.neuron_selectivity(S)
        row = {"loss": loss, "firing": firing, "dead": ps.dead_neurons(S).float().mean(1)}
        for name, threshold in THRESHOLDS.items():
            row[name] = (selectivity > threshold).float().sum(1) / S.shape[2]
        states = self._states(S, explained)
        row["covered"], row["ignored"] = ((states == s).float().mean(1) for s in (0, 2))
        row |= _biases(params["b_in"], selectivity > THRESHOLD, ps.dead_neurons(S))
        row |= self._movement(place, params)
        self.rows.append(row)
        if place == self._before_end:
            self.kept["states_before"] = states.to(torch.int8)
        if place == last:
            self.kept |= {
                "states": states.to(torch.int8),
                "explained": explained,
                "capacity": ps.feature_dimensionality((params["W_in"] @ self.P).mT),
                "capacity_out": ps.feature_dimensionality(params["W_out"]),
                "interference": ps.interference((params["W_in"] @ self.P).mT),
                "bias": params["b_in"].clone(),
                "selectivity": selectivity,
            }

    def _states(self, S: Tensor, explained: Tensor) -> Tensor:
        """State of every feature; where outputs are no features, none can be called ignored."""
        if explained.shape[1] != S.shape[2]:
            explained = torch.ones_like(S[:, 0])
        return ps.feature_states(S, explained.nan_to_num(0.0), threshold=THRESHOLD).states

    def _held_out(self, params: Params) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, share explained of every output, and share of neurons that fire on some row."""
        loss = torch.zeros(len(self.P), dtype=torch.float64)
        missed = torch.zeros_like(self.target[:, 0])
        active_squares = torch.zeros_like(missed)
        firing = torch.zeros_like(params["b_in"], dtype=torch.bool)
        n_rows = self.x.shape[1]
        for first in range(0, n_rows, AT_ONCE):
            x, target = (t[:, first : first + AT_ONCE] for t in (self.x, self.target))
            y = feature_outputs(params, x, **self._choice)  # type: ignore[arg-type]
            error = (y - target).square()
            loss += error.sum((1, 2)).double().cpu() / n_rows
            missed += torch.where(target != 0, error, 0.0).sum(1)
            active_squares += target.square().sum(1)
            z = torch.baddbmm(params["b_in"].unsqueeze(1), x, params["W_in"].mT)
            firing |= (z > 0).any(1)
        return loss.float(), 1 - missed / active_squares, firing.float().mean(1)

    def _movement(self, place: int, params: Params) -> dict[str, Tensor]:
        """Between annealed records: distance over length, and cosine with the move before."""
        nothing = torch.full((len(self.P),), torch.nan)
        if place not in self._annealed:
            return {"moved": nothing, "turned": nothing}
        now = torch.cat([params[name].flatten(1) for name in sorted(params)], dim=1)
        if self._last is None:
            self._last = now, None
            return {"moved": nothing, "turned": nothing}
        before, move_before = self._last
        move = now - before
        self._last = now, move
        moved = move.norm(dim=1) / now.norm(dim=1)
        if move_before is None:
            return {"moved": moved, "turned": nothing}
        return {"moved": moved, "turned": torch.cosine_similarity(move, move_before, dim=1)}

    def state_dict(self) -> dict[str, Tensor]:
        """What has been measured so far, for a checkpoint."""
        state = {f"kept.{name}": value for name, value in self.kept.items()}
        state |= self.records() if self.rows else {}
        if self._last is not None:
            state["last.weights"] = self._last[0]
            if self._last[1] is not None:
                state["last.move"] = self._last[1]
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "kept":
                self.kept[rest] = value
            elif kind == "record":
                if not self.rows:
                    self.rows = [{} for _ in range(value.shape[1])]
                for row, column in zip(self.rows, value.unbind(1), strict=True):
                    row[rest] = column
        if "last.weights" in state:
            self._last = state["last.weights"], state.get("last.move")

    def records(self) -> dict[str, Tensor]:
        """Every measure: model × record."""
        return {
            f"record.{name}": torch.stack([row[name].cpu() for row in self.rows], dim=1)
            for name in self.rows[0]
        }


def late_record(config: Config) -> int:
    """Place of the last annealed record within the first three quarters of the training."""
    steps = config.record_steps
    early = [i for i in config.annealed if steps[i] <= 0.75 * config.n_steps]
    return early[-1] if early else 0


def shown_records(config: Config) -> list[int]:
    """Places of the records at which activations are kept: annealed ones, evenly spread."""
    places = config.annealed
    n = min(N_SHOWN, len(places))
    rows = {round(i * (len(places) - 1) / max(1, n - 1)) for i in range(n)}
    return [places[i] for i in sorted(rows)]


def _biases(b: Tensor, mono: Tensor, dead: Tensor) -> dict[str, Tensor]:
    """Mean bias of all, of monosemantic, and of polysemantic (neither that nor dead) neurons."""
    poly = ~mono & ~dead

    def mean(kind: Tensor) -> Tensor:
        return (b * kind).sum(1) / kind.sum(1)

    return {"bias": b.mean(1), "bias_mono": mean(mono), "bias_poly": mean(poly)}
