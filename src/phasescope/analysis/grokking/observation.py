"""What a network computes for every pair of tokens, as tensors.

Letters: a, b tokens of the operands, c of the results; h heads, x positions of the context,
m neurons, d d_model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.models.pair_forward import Shape, pair_logits
from phasescope.models.pair_transformer import PairTransformer
from phasescope.parameters import without_wrapper_prefixes

PAIRS_AT_ONCE = 1024  # what is not kept stays in the cache: 4 MB of neurons at d_mlp = 512


@dataclass(frozen=True, eq=False)
class Observation:
    """Weights and activations of a one-layer network of pairs, in the order of the tokens."""

    logits: Float[Tensor, "a b c"]
    """Logits of every pair, that of "=" left out."""
    pre: Float[Tensor, "a b m"]
    """Inputs of the neurons at the last position."""
    mid: Float[Tensor, "a b m"]
    """Outputs of the activation."""
    post: Float[Tensor, "a b m"]
    """What W_out reads: behind the MLP's LayerNorm, if it has one."""
    pattern: Float[Tensor, "a b h x"]
    """Attention of the last position to every position."""
    W_E: Float[Tensor, "a d"]
    """Embedding, "=" left out."""
    W_L: Float[Tensor, "m c"]
    """Neuron-to-logit map W_out W_U, "=" left out."""
    params: Mapping[str, Float[Tensor, "..."]]
    """All parameters by name."""


def observe(model: PairTransformer, *, dtype: torch.dtype = torch.float64) -> Observation:
    """Run a transformer of pairs on all pairs, and keep what is measured.

    Args:
        model: The network; it is not changed.
        dtype: What to compute in. The weights are what they are; in float64 their function is known
            to more digits than a loss of 1e-8 needs.

    Returns:
        Weights and activations of the last layer at the last position.

    Raises:
        TypeError: It is another network. What reads logits alone, such as `cube_fit`, takes those
            of any.
        ValueError: A weight is not finite.

    Example:
        >>> from phasescope.models import PairTransformer
        >>> seen = observe(PairTransformer(5, d_model=8, n_heads=2, d_mlp=16))
        >>> seen.logits.shape, seen.post.shape, seen.W_L.shape
        (torch.Size([5, 5, 5]), torch.Size([5, 5, 16]), torch.Size([16, 5]))
    """
    if not isinstance(getattr(model, "shape", None), Shape):  # it may be wrapped, as by a compiler
        raise TypeError(
            f"observe reads a PairTransformer, but {type(model).__name__} arrived. Of another "
            "network measure the logits of all pairs (cube_fit, excluded_loss_per_frequency) and "
            "its neurons by themselves (neuron_purity)."
        )
    bad = [name for name, w in model.named_parameters() if not bool(w.isfinite().all())]
    if bad:
        raise ValueError(
            f"all weights must be finite, but {', '.join(bad)} holds NaN or infinity: the training "
            "diverged. Observe an earlier checkpoint."
        )
    p, last = model.n_tokens, f"blocks.{model.shape.n_layers - 1}"
    weights = without_wrapper_prefixes(dict(model.named_parameters()))
    params = {name: w.detach().to(dtype) for name, w in weights.items()}
    hooks = ("attn.hook_pattern", "mlp.hook_pre", "mlp.hook_mid", "mlp.hook_post")
    pairs = model.all_pairs()
    whole: dict[str, Tensor] = {}
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            logits = pair_logits(params, part, model.shape, seen.__setitem__)
        named = {hook.rpartition("hook_")[2]: seen[f"{last}.{hook}"] for hook in hooks}
        named["logits"] = logits[:, :p]
        if named["mid"].data_ptr() == named["post"].data_ptr():
            del named["mid"]
        for name, values in named.items():
            if start == 0:
                whole[name] = values.new_empty(len(pairs), *values.shape[1:])
            whole[name][start : start + len(part)] = values
    whole.setdefault("mid", whole["post"])
    W_L = params[f"{last}.mlp.W_out"] @ params["unembed.W_U"][:, :p]
    on_pairs = {name: values.unflatten(0, (p, p)) for name, values in whole.items()}
    return Observation(W_E=params["embed.W_E"][:p], W_L=W_L, params=params, **on_pairs)


def logits_from_embeddings(
    model: PairTransformer, *, dtype: torch.dtype = torch.float64
) -> Callable[[Tensor, Tensor], Tensor]:
    """The network as a function of the operands' embeddings, for `gradient_symmetricity`.

    Args:
        model: The network; later changes of its weights do not show.
        dtype: What to compute in.

    Returns:
        A function of embeddings of a and of b, both [pairs, d_model] and before the positional
        embedding; it gives the logits of the pairs, that of "=" left out.

    Example:
        >>> from phasescope.models import PairTransformer
        >>> model = PairTransformer(5, d_model=8, n_heads=2, d_mlp=16)
        >>> W_E = model.W_E.double()
        >>> logits_from_embeddings(model)(W_E[:2], W_E[3:5]).shape
        torch.Size([2, 5])
    """
    weights = without_wrapper_prefixes(dict(model.named_parameters()))
    params = {name: w.detach().to(dtype).clone() for name, w in weights.items()}
    p = model.n_tokens

    def function(E_a: Tensor, E_b: Tensor) -> Tensor:
        n = len(E_a)
        tokens = torch.cat([E_a.to(dtype), E_b.to(dtype), params["embed.W_E"][p:]])
        pairs = torch.stack([torch.arange(n), torch.arange(n) + n], 1).to(tokens.device)
        shape = dataclasses.replace(model.shape, n_tokens=2 * n)
        return pair_logits(params | {"embed.W_E": tokens}, pairs, shape)[:, :p]

    return function
