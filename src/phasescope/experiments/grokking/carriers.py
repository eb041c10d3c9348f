"""Do the waves of the embedding stop once they are learned, while the neurons that read them go on?

Claim B13 for grokking. Axes: interval between kept steps, frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

import phasescope as ps
from phasescope.analysis.grokking import FourierBasis, fourier_basis, neuron_purity, observe
from phasescope.experiments.deciding import decided, positive_beyond, told
from phasescope.experiments.grokking.config import DEFAULT, Config, Results
from phasescope.experiments.grokking.evidence import most_seeds
from phasescope.experiments.grokking.training import task_of
from phasescope.experiments.settings import compact
from phasescope.models import PairTransformer
from phasescope.report import Claim

SOURCE = '"What\'s going on with Per-Component Weight Updates?" (LessWrong)'
MARGIN = 1.25  # on the step of the grok, from which the concept counts as learned
SLACK = 0.1  # log2 that counts as none, as for the heads and the filters of B13
_PARTS = ("carrier", "reader", "matched")


def carriers(
    config: Config,
    steps: Sequence[int],
    network: Callable[[int], PairTransformer],
    keys: Sequence[int],
    events: Mapping[str, int | None],
) -> dict[str, Any] | None:
    """How much the carriers of every key frequency move, their readers, and other frequencies.

    The carrier is the part of the embedding along the frequency, the readers are the input weights
    of the neurons that are pure in it at the end; matched is the frequency that is no key and moved
    most alike during circuit formation. Movement is the change between kept steps over the norm at
    the earlier one.

    Args:
        config: The run's configuration.
        steps: Kept steps; evenly spaced ones are compared.
        network: The network at one of them.
        keys: Key frequencies of the final network.
        events: Steps of ``"circuit formation"``, ``"clean-up"``, ``"grokked"``.

    Returns:
        Movement of the parts over training, and by key what they move behind the grok over what
        they move during circuit formation, as log2. None where there is no grok, no interval in
        one of the two windows, or no pure neuron of a key.
    """
    grokked, formed = events.get("grokked"), events.get("clean-up")
    start = events.get("circuit formation")
    if config.n_layers != 1 or grokked is None or formed is None or start is None:
        return None
    task, _ = task_of(config)
    basis, coordinates = fourier_basis(task.natural.orders), task.natural
    even = [step for step in steps if step % config.weights_every == 0]
    networks = [network(step) for step in even]
    purity = neuron_purity(basis, coordinates.on_pairs(observe(networks[-1]).pre))
    clusters = purity.clusters()
    read = [key for key in keys if bool((clusters == key).any())]
    at = torch.tensor(even[:-1])
    during = (at >= start) & (at < formed)
    after = at >= MARGIN * grokked
    if not read or not bool(during.any()) or not bool(after.any()):
        return None
    embeddings = torch.stack([n.W_E.detach().double()[coordinates.left] for n in networks])
    neurons = torch.stack([n.W_in[0].detach().double() for n in networks])
    carried = movement(_waves(basis, embeddings))
    readers = {key: movement(neurons[:, None, :, clusters == key].flatten(2)) for key in read}
    others = [k - 1 for k in range(1, basis.n_frequencies + 1) if k not in keys]
    if not others:
        return None
    alike = carried[during].mean(0).log2()
    found = {}
    for key in read:
        matched = others[int((alike[others] - alike[key - 1]).abs().argmin())]
        curves = (carried[:, key - 1], readers[key][:, 0], carried[:, matched])
        kept = [float((c[after].mean() / c[during].mean()).log2()) for c in curves]
        if all(map(math.isfinite, kept)):
            row: dict[str, float] = dict(zip(_PARTS, kept, strict=True))
            found[str(key)] = row | {"matched_frequency": matched + 1}
    if not found:
        return None
    chosen = [key - 1 for key in read]
    mean = (
        carried[:, chosen].mean(1),
        torch.stack([readers[key][:, 0] for key in read]).mean(0),
        carried[:, others].mean(1),
    )
    return {
        "steps": even[:-1],
        "movement": {
            name: compact(curve.tolist(), 5) for name, curve in zip(_PARTS, mean, strict=True)
        },
        "kept": found,
    }


def movement(parts: Float64[Tensor, "t f x"]) -> Float64[Tensor, "u f"]:
    """Norm of the change from one time to the next, over the norm at the earlier one.

    Args:
        parts: Weights of every part over time.
    """
    return parts.diff(dim=0).norm(dim=2) / parts[:-1].norm(dim=2)


def _waves(basis: FourierBasis, embeddings: Float64[Tensor, "t n d"]) -> Float64[Tensor, "t f x"]:
    """Coefficients of every frequency 1, 2, …, cosine and sine and all columns in one row."""
    coefficients = basis.rows @ embeddings
    frequencies = range(1, basis.n_frequencies + 1)
    rows = [coefficients[:, basis.rows_of([k])].flatten(1) for k in frequencies]
    width = max(row.shape[1] for row in rows)  # that of n/2 is one row alone
    return torch.stack([torch.nn.functional.pad(r, (0, width - r.shape[1])) for r in rows], 1)


def _of_the_rule(results: Sequence[Results]) -> list[dict[str, Any]]:
    """What was found in recorded runs of addition, at the intervals that the rule names."""
    interval = DEFAULT.weights_every
    chosen = [
        result
        for result in results
        if result.config.operation == "add" and result.config.weights_every == interval
    ]
    return [result.numbers["carriers"] for result in most_seeds(chosen, "carriers")]


def carrier_claim(results: Sequence[Results]) -> Claim:
    """B13, over the recorded runs of addition of the setting with the most seeds.

    Args:
        results: Runs of the experiment, any.
    """
    seeds = [found["kept"] for found in _of_the_rule(results)]

    def less(a: str, b: str) -> list[float]:
        """One part less another, mean over the keys of every seed."""
        return [sum(kept[a] - kept[b] for kept in keys.values()) / len(keys) for keys in seeds]

    beyond = less("matched", "carrier")

    return decided(
        "B13",
        "once a concept is learned its substrate stops changing while what reads it goes on",
        SOURCE,
        "recorded runs of addition that grok. Carrier: the part of the embedding along a key "
        "frequency; readers: input weights of the neurons that it explains to more than 85% at the "
        "end; matched: the frequency that is no key and moved most alike during circuit formation. "
        "log2 of the relative change of weights per interval of 50 steps behind the grok (from "
        f"{MARGIN:g} times its step on) over that during circuit formation, mean over keys, of the "
        "readers less the carrier. Reproduced if the 95% interval lies above 0 and that of matched "
        f"less carrier too; refuted if either lies below {SLACK:g}",
        less("reader", "carrier"),
        "log2",
        f"matched frequencies less carriers: {told(beyond)}",
        positive_beyond(beyond, SLACK),
        lambda found: (
            f"Readers keep {found} (log2) more of their movement than the embedding's waves that "
            f"they read, and frequencies that are no keys {told(beyond)} more."
        ),
    )


def carrier_figures(results: Sequence[Results]) -> dict[str, Any]:
    """Movement of carriers, readers and other frequencies over training, every seed of the claim.

    Args:
        results: Runs of the experiment, any.
    """
    seeds = [found for found in _of_the_rule(results) if "movement" in found]
    if not seeds:
        return {}
    names = dict(zip(_PARTS, ("carriers", "readers", "other frequencies"), strict=True))
    steps = np.array(seeds[0]["steps"])
    return {
        "carriers and readers": ps.figures.curves_beside_nulls(
            [
                ps.figures.Bundle(
                    label,
                    steps,
                    np.array([found["movement"][part] for found in seeds]),
                    is_null=part == "matched",
                )
                for part, label in names.items()
            ],
            x_title="step",
            y_title="relative change per interval",
            title="Waves of the embedding, and the neurons that read them",
            seen="One thin curve for each seed that groks, their median thick; dashed the control.",
            computed=(
                "Norm of the change of weights to the next kept step over the norm before. "
                "Carriers: the embedding along key frequencies; readers: input weights of the "
                "neurons that are pure in one; other frequencies: the embedding along the rest."
            ),
            misleads=(
                "Frequencies that are no keys become small, and what is small changes by a large "
                "share. Seeds grok at different steps, so that their median is blurred."
            ),
            log_y=True,
        )
    }
