"""What the figure with the slider shows of a run: the network at some of its kept steps."""

from __future__ import annotations

import numpy as np
import torch

import phasescope as ps
from phasescope.analysis.grokking import (
    fourier_basis,
    frequency_power,
    neuron_purity,
    observe,
)
from phasescope.experiments.grokking.config import Config
from phasescope.experiments.grokking.training import network_at, task_of
from phasescope.figures import NetworkFrame
from phasescope.models import PairTransformer

N_FRAMES = 24


def frames_of(config: Config, run: ps.Run, n_frames: int = N_FRAMES) -> list[NetworkFrame]:
    """Frames at the first, the last and evenly spaced kept steps, until weights are not finite.

    Args:
        config: The run's configuration.
        run: Its recording.
        n_frames: How many at most.
    """
    task, _ = task_of(config)
    coordinates = task.natural
    basis = fourier_basis(coordinates.orders)
    steps = run["weights"].steps
    wanted = np.linspace(0, steps[-1], n_frames)
    rows = sorted({int(np.abs(steps - step).argmin()) for step in wanted})
    networks = {row: network_at(config, run, row) for row in rows}
    networks = {row: network for row, network in networks.items() if _is_finite(network)}
    last = observe(networks[max(networks)]).post
    strongest = int(last.var((0, 1)).argmax())
    found = []
    for row, network in networks.items():
        seen = observe(network)
        W_E = seen.W_E[coordinates.left]
        readout = frequency_power(basis, seen.W_L[:, coordinates.result].T)[1:].sum(1)
        embedding = frequency_power(basis, W_E)[1:].sum(1)
        S = torch.linalg.svdvals(W_E)
        purity = neuron_purity(basis, coordinates.on_pairs(seen.post)).fve.nan_to_num(0.0)
        found.append(
            NetworkFrame(
                step=int(steps[row]),
                embedding_power=(embedding / embedding.sum()).numpy(),
                readout_power=(readout / readout.sum()).numpy(),
                singular_values=(S / S[0]).numpy(),
                purity=purity.numpy(),
                neuron=coordinates.on_pairs(seen.post[..., strongest]).numpy(),
                attention=coordinates.on_pairs(seen.pattern[..., 0, 0]).numpy(),
            )
        )
    return found


def _is_finite(network: PairTransformer) -> bool:
    return all(bool(p.isfinite().all()) for p in network.parameters())
