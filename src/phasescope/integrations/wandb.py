"""Forwarding summaries of a recording to Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phasescope.integrations.extras import missing

try:
    import wandb
except ImportError as error:
    raise missing(__name__, "trackers", error) from error

__all__ = ["WandbSink"]

STEP = "phasescope/step"


class WandbSink:
    """Logs every metric and norm of a recording to a run of Weights & Biases.

    Names are ``metrics/NAME``, ``norms/QUANTITY`` (all tensors together) and
    ``norms/QUANTITY/TENSOR``. W&B's own step only counts calls and cannot go back, while metrics
    and norms of one step arrive apart; so each value comes with ``phasescope/step``, which is
    defined as the horizontal axis of all of them. Nothing is sent in W&B's offline mode; ``wandb
    sync`` does it later.

    Args:
        run: A run of W&B to log to; it is not finished here. Without it one is made.
        **settings: Arguments of ``wandb.init`` for a new run, such as ``project="mine"`` and
            ``mode="offline"``.

    Raises:
        ValueError: Both a run and settings were passed.

    Example:
        >>> sink = WandbSink(project="mine", mode="disabled")
        >>> sink.write(3, {"metrics/train_loss": 0.5})
        >>> sink.close()
    """

    def __init__(self, run: Any = None, **settings: Any) -> None:
        if run is not None and settings:
            raise ValueError(
                f"a run of W&B exists already, so {sorted(settings)} would have no effect. Pass "
                "either run= or the arguments of wandb.init."
            )
        self._own = run is None
        self._run = wandb.init(**settings) if run is None else run
        self._defined: set[str] = set()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values together with their step."""
        for name in values.keys() - self._defined:
            self._run.define_metric(name, step_metric=STEP)
            self._defined.add(name)
        self._run.log({**values, STEP: step})

    def close(self) -> None:
        """Finish the run, if it was made here."""
        if self._own:
            self._run.finish()
