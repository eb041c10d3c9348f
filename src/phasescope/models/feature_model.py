"""The feature model of the monosemanticity paper, many at once, with gradients written out.

Axes: model, row of a batch, feature (N), d of the embedding, neuron (k), output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.models.feature_neurons import FeatureActivation, Neurons, feature_activation

FeatureTask = Literal["decoder", "reprojector", "absolute"]


def initial_feature_model(
    seeds: Sequence[int],
    *,
    d: int,
    n_neurons: int,
    n_outputs: int,
    bias_offset: float | Float[Tensor, " model"] = 0.0,
    n_groups: int | None = None,
) -> dict[str, Tensor]:
    r"""Parameters of many models: "W_in", "b_in" and "W_out" as `torch.nn.Linear` draws them.

    Uniform in $\pm 1/\sqrt{\text{fan-in}}$; then `bias_offset` is added to the biases, so that it
    is their mean. A seed draws the same numbers whatever the offset.

    Args:
        seeds: One model each.
        d: Dimensions of the embedding.
        n_neurons: k.
        n_outputs: N for the decoder and the absolute value, d for the re-projector.
        bias_offset: Added to every bias, one number or one per model.
        n_groups: Groups of neurons that gates switch on and off; see `feature_outputs`.

    Returns:
        Weights, float32: W_in model × neuron × d, b_in model × neuron, W_out model × output ×
        neuron; with groups also W_gate model × group × d.

    Raises:
        ValueError: There is no seed, or the neurons do not divide into the groups.

    Example:
        >>> params = initial_feature_model([0, 1], d=3, n_neurons=4, n_outputs=6, bias_offset=-1.0)
        >>> {name: tuple(p.shape) for name, p in params.items()}
        {'W_in': (2, 4, 3), 'b_in': (2, 4), 'W_out': (2, 6, 4)}

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    if not seeds:
        raise ValueError("at least one seed is needed, but there is none. Pass seeds=[0, 1, ...].")
    shapes = {
        "W_in": (n_neurons, d),
        "b_in": (n_neurons,),
        "W_out": (n_outputs, n_neurons),
    }
    bounds = {"W_in": d**-0.5, "b_in": d**-0.5, "W_out": n_neurons**-0.5}
    if n_groups is not None:
        if n_groups < 1 or n_neurons % n_groups:
            raise ValueError(
                f"the {n_neurons} neurons must divide into groups of equal size, but n_groups is "
                f"{n_groups}. Pass a divisor."
            )
        shapes["W_gate"], bounds["W_gate"] = (n_groups, d), d**-0.5
    drawn: dict[str, list[Tensor]] = {name: [] for name in shapes}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, shape in shapes.items():
            uniform = torch.rand(shape, generator=generator)
            drawn[name].append((2 * uniform - 1) * bounds[name])
    params = {name: torch.stack(values) for name, values in drawn.items()}
    offset = torch.as_tensor(bias_offset, dtype=torch.float32).expand(len(seeds))
    params["b_in"] += offset[:, None]
    return params


def feature_outputs(
    params: Mapping[str, Float[Tensor, "model *shape"]],
    x: Float[Tensor, "model row d"],
    *,
    activation: FeatureActivation = "relu",
    top_k: int | None = None,
    n_active_groups: int | None = None,
) -> Float[Tensor, "model row output"]:
    r"""Outputs $W_\text{out}\,\phi(W_\text{in} x + b_\text{in})$ of every model; no output bias.

    Args:
        params: From `initial_feature_model`.
        x: Embedded inputs.
        activation: $\phi$.
        top_k: Only so many neurons per row, those of the largest activations, act; all by default.
        n_active_groups: Of the groups of "W_gate" only so many act on a row, those of the largest
            gates $\sigma(W_\text{gate} x)$, by which their activations are multiplied.

    Returns:
        Outputs.

    Example:
        >>> params = initial_feature_model([0], d=3, n_neurons=4, n_outputs=6)
        >>> feature_outputs(params, torch.zeros(1, 2, 3)).shape
        torch.Size([1, 2, 6])
    """
    neurons = Neurons(activation, top_k, n_active_groups)
    return neurons.forward(params, x, _preactivations(params, x)).h @ params["W_out"].mT


def single_feature_activations(
    params: Mapping[str, Float[Tensor, "model *shape"]],
    P: Float[Tensor, "model d feature"],
    *,
    activation: FeatureActivation = "relu",
    top_k: int | None = None,
    n_active_groups: int | None = None,
) -> Float[Tensor, "model neuron feature"]:
    r"""What every neuron makes of each feature alone at value 1: $\phi(W_\text{in} P e_i + b)_j$.

    Args:
        params: From `initial_feature_model`.
        P: The embedding of each model.
        activation: $\phi$.
        top_k: As in `feature_outputs`; neurons that do not act on a feature have 0 there.
        n_active_groups: The same.

    Returns:
        S, from which `neuron_selectivity` and `mono_fraction` are computed.

    Example:
        >>> params = initial_feature_model([0], d=3, n_neurons=4, n_outputs=6)
        >>> single_feature_activations(params, torch.ones(1, 3, 6)).shape
        torch.Size([1, 4, 6])

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """
    neurons = Neurons(activation, top_k, n_active_groups)
    return neurons.forward(params, P.mT, _preactivations(params, P.mT)).h.mT


def _preactivations(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return torch.baddbmm(params["b_in"].unsqueeze(1), x, params["W_in"].mT)


class FeatureLoss:
    r"""Loss and gradients of many feature models on fresh batches, without autograd.

    $L = \frac1B \sum_b \sum_i w_i (y_{bi} - t_{bi})^2 + \lambda \frac1B \sum_b \sum_j |h_{bj}|$:
    summed over outputs and averaged over rows, not the mean over both. Instances are called by
    `train_ensemble`; the loss that is returned leaves the penalty out, as the source's does.

    - ``"decoder"``: t = v, x = P v.
    - ``"reprojector"``: t = P' v with a second embedding.
    - ``"absolute"``: t = abs(v1 - v2), x = P (v1 - v2) of two draws at half the frequency (give
      `draw` the halved frequencies).

    Args:
        draw: The next batch of features, model × row × feature; such as `SparseFeatures.draw`.
        P: The embedding of each model.
        task: What is to be computed.
        P_out: The second embedding, of the re-projector.
        activation: $\phi$.
        l1: $\lambda$, one number or one per model.
        importance: $w_i$ of every output, 1 by default, the same for all models or for each.
        top_k: As in `feature_outputs`; the choice of neurons has no gradient.
        n_active_groups: As in `feature_outputs`; the choice of groups has no gradient, the gates
            of those that act have one.

    Raises:
        ValueError: The activation is unknown, or the second embedding is missing or not wanted.

    Example:
        >>> from phasescope.datasets import SparseFeatures, feature_directions, feature_frequencies
        >>> features = SparseFeatures(
        ...     feature_frequencies(6, 0.1), n_models=1, batch_size=8, seed=0
        ... )
        >>> loss = FeatureLoss(features.draw, feature_directions(6, 3, seed=0)[None])
        >>> params = initial_feature_model([0], d=3, n_neurons=4, n_outputs=6)
        >>> value, grads = loss(params, 0)
        >>> value.shape, grads["b_in"].shape
        (torch.Size([1]), torch.Size([1, 4]))

    References:
        Jermyn, Schiefer & Hubinger (2022), arXiv:2211.09169, section 2.
    """

    def __init__(
        self,
        draw: Callable[[], Float[Tensor, "model row feature"]],
        P: Float[Tensor, "model d feature"],
        *,
        task: FeatureTask = "decoder",
        P_out: Float[Tensor, "model d feature"] | None = None,
        activation: FeatureActivation = "relu",
        l1: float | Float[Tensor, " model"] = 0.0,
        importance: Float[Tensor, " output"] | Float[Tensor, "model output"] | None = None,
        top_k: int | None = None,
        n_active_groups: int | None = None,
    ) -> None:
        if task not in get_args(FeatureTask):
            raise ValueError(f"task must be one of {get_args(FeatureTask)}, but {task!r} arrived.")
        if (task == "reprojector") != (P_out is not None):
            raise ValueError(
                "the re-projector, and no other task, needs a second embedding P_out, but task="
                f"{task!r} {'without' if P_out is None else 'with'} one arrived."
            )
        self._draw, self._P, self._P_out = draw, P, P_out
        self._task = task
        feature_activation(activation)
        self._neurons = Neurons(activation, top_k, n_active_groups)
        self._importance = None if importance is None else importance.unsqueeze(-2)
        self._l1 = None
        if isinstance(l1, Tensor) or l1 != 0:
            l1 = torch.as_tensor(l1, dtype=P.dtype, device=P.device)
            self._l1 = l1.expand(len(P)).view(-1, 1, 1)
        self._buffers: dict[str, Tensor] = {}

    def batch(self) -> tuple[Float[Tensor, "model row d"], Float[Tensor, "model row output"]]:
        """The next inputs and targets."""
        v = self._draw()
        if self._task == "absolute":
            v = v.clone()  # the next draw may write over this one
            v -= self._draw()
        x = v @ self._P.mT
        if self._P_out is not None:
            return x, v @ self._P_out.mT
        return x, v.abs() if self._task == "absolute" else v

    def __call__(
        self, params: Mapping[str, Tensor], step: int
    ) -> tuple[Float[Tensor, " model"], dict[str, Tensor]]:
        """Loss per model, and the gradients."""
        x, target = self.batch()
        n_rows, W_out = x.shape[1], params["W_out"]
        z = torch.bmm(x, params["W_in"].mT, out=self._buffer("z", x, W_out.shape[2]))
        z += params["b_in"].unsqueeze(1)
        hidden = self._neurons.forward(params, x, z)
        h = hidden.h
        error = torch.bmm(h, W_out.mT, out=self._buffer("error", x, W_out.shape[1]))
        error -= target
        weighted = error if self._importance is None else error * self._importance
        loss = torch.linalg.vecdot(weighted.flatten(1), error.flatten(1)) / n_rows
        grad_h = torch.bmm(weighted, W_out, out=self._buffer("grad_h", x, W_out.shape[2]))
        if self._l1 is not None:
            grad_h += self._l1 / 2 * h.sign()
        grad_z, grad_gate = hidden.backward(grad_h)
        grads = {
            "W_in": grad_z.mT @ x,
            "b_in": grad_z.sum(1),
            "W_out": weighted.mT @ h,
        }
        if grad_gate is not None:
            grads["W_gate"] = grad_gate.mT @ x
        for grad in grads.values():
            grad *= 2 / n_rows
        return loss, grads

    def _buffer(self, name: str, x: Tensor, width: int) -> Tensor:
        """Memory for a result of x's rows, kept between calls: fresh pages cost as much as sums."""
        shape = (*x.shape[:2], width)
        held = self._buffers.get(name)
        if held is None or held.shape != shape or held.dtype != x.dtype or held.device != x.device:
            held = self._buffers[name] = torch.empty(shape, dtype=x.dtype, device=x.device)
        return held
