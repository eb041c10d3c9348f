"""Skipping the phase in which a feature model's neurons are silent and only its biases move.

Axes: model, row of a batch, neuron (k), d of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor

BiasSkip = Literal["max", "per_neuron", "quantile"]


def skip_bias_phase(
    params: Mapping[str, Float[Tensor, "model *shape"]],
    x: Float[Tensor, "model row d"],
    rule: BiasSkip = "quantile",
    *,
    firing_rate: float = 0.01,
    share: float = 0.999,
) -> dict[str, Tensor]:
    r"""Parameters whose biases are as negative as they can be without silencing the neurons.

    Neuron j fires on the data if $b_j > -B_j$ with $B_j = \max (W_\text{in} x)_j$ over the rows. A
    model that starts from more negative biases waits until their decay has brought them there.

    - ``"max"``: all biases are $-c \max_j B_j$, so that some neuron fires on about one row.
    - ``"per_neuron"``: $b_j = -c B_j$, so that each neuron fires on about one row.
    - ``"quantile"``: $b_j$ is minus the quantile of $(W_\text{in} x)_j$ above which the share
      `firing_rate` of the rows lies.

    The first two leave almost every neuron without gradient on a batch, and a neuron that an early
    step silences stays silent; the quantile is the robust rule.

    Args:
        params: From `initial_feature_model`.
        x: Embedded inputs, as many as tell where the tail of the distribution ends.
        rule: Which of the three.
        firing_rate: Share of the rows on which a neuron fires, of the quantile rule.
        share: c of the other rules, below 1.

    Returns:
        The same tensors, but for new biases.

    Raises:
        ValueError: A share is not in (0, 1), or the rule is another word.

    Example:
        >>> import torch
        >>> params = {"W_in": torch.ones(1, 1, 1), "b_in": torch.tensor([[-9.0]])}
        >>> x = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> skip_bias_phase(params, x, "max", share=0.5)["b_in"]
        tensor([[-2.]])

    References:
        Comments on Jermyn, Schiefer & Hubinger (2022), "Engineering monosemanticity in toy models"
        (LessWrong): biases just below the largest pre-activation.
    """
    for name, value in (("firing_rate", firing_rate), ("share", share)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, but it is {value}.")
    z = x @ params["W_in"].mT
    if rule == "quantile":
        # torch.quantile refuses large inputs; of the rows above it the last is the quantile.
        n_above = max(1, round(firing_rate * z.shape[1]))
        b = -z.topk(min(n_above + 1, z.shape[1]), dim=1).values[:, -1]
    elif rule == "per_neuron":
        b = -share * z.amax(1)
    elif rule == "max":
        b = (-share * z.amax((1, 2))).unsqueeze(1).expand(z.shape[0], z.shape[2])
    else:
        raise ValueError(f"the rule is 'max', 'per_neuron' or 'quantile', but {rule!r} arrived.")
    return {**params, "b_in": b.contiguous()}
