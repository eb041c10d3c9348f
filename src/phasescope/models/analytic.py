"""A transformer of pairs whose weights are known in closed form: a planted clock.

Letters: K frequencies, t tokens, i places of a commutative group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from phasescope.datasets import Coordinates
from phasescope.models.pair_transformer import PairTransformer

# Three phases per operand are the fewest with which every term but one cancels.
_N_PHASES = 3
# Attention to another position is exp(-60) = 9e-27: nothing, in float64 too.
_SCORE = 60.0


def analytic_pair_transformer(
    coordinates: Coordinates,
    n_tokens: int,
    frequencies: Sequence[int | tuple[int, ...]],
    *,
    amplitudes: float | Sequence[float] = 10.0,
) -> PairTransformer:
    """A transformer whose logits are Σ_k α_k cos(w_k(i + j − l)), exactly.

    In the places i, j, l that the coordinates give to a, b and c. Two heads, each of which looks at
    one operand, bring cos and sin of both angles to the last position; nine neurons per frequency
    square cos(w i + φ) + cos(w j + ψ) for φ and ψ in thirds of the circle, so that everything but
    the cosine of the sum cancels. Neither path around the MLP reaches a logit.

    So every measure of such networks has a known answer on it: the key frequencies and their
    coefficients, a restricted loss equal to the loss.

    Its neurons are squares of sums of two waves: a fifth of their variance lies at twice the
    frequency, so the best single frequency explains .8 of it (but for n/2, n/3 and n/4). That is
    below the .85 from which rule R2 counts a neuron, so it finds no key frequencies:
    `phasescope.analysis.grokking.measure` needs `keys`, such as those that rule W_L finds, for its
    restricted and excluded loss.

    Args:
        coordinates: Those in which the task is an addition; several cyclic factors are allowed.
        n_tokens: Number of tokens; those without a place have logits and embeddings 0.
        frequencies: The k of the characters, each once, from 1 to ⌊n/2⌋ in a cyclic group of order
            n. Where there are several factors, one number for each, from 0 to its order − 1; of a
            character and its conjugate, the one that comes first in counting.
        amplitudes: The α_k, in nats, one for all or one each.

    Returns:
        The network, in float64, with the activation ``"square"`` and no logit for "=".

    Raises:
        ValueError: There is no frequency, one is trivial, out of range or appears twice, or the
            amplitudes are another number.

    Example:
        >>> from phasescope.datasets import modular_task
        >>> task = modular_task("divide", 13)
        >>> model = analytic_pair_transformer(task.natural, 13, [1, 5], amplitudes=[6.0, 4.0])
        >>> logits = task.natural.on_logits(model.logits_of_all_pairs())
        >>> round(logits[3, 4, 7].item(), 6), round(logits[3, 4, 1].item(), 6)
        (10.0, -10.0)
    """
    keys = [(k,) if isinstance(k, int) else tuple(k) for k in frequencies]
    _check(keys, coordinates)
    alphas = torch.as_tensor(amplitudes, dtype=torch.float64)
    if alphas.shape not in ((), (len(keys),)):
        raise ValueError(
            f"one amplitude for all or one for each of the {len(keys)} frequencies is required, "
            f"but {amplitudes} arrived for {keys}. A single number holds for all."
        )
    alphas = alphas.expand(len(keys))
    K = len(keys)
    # What the residual stream holds: both operands' angles as embedded, the position, both angles
    # at the last position, the answer.
    widths = (2 * K, 2 * K, 3, 2 * K, 2 * K, 2 * K)
    edges = [0, *itertools.accumulate(widths)]
    of_left, of_right, position, a, b, answer = (
        slice(start, stop) for start, stop in itertools.pairwise(edges)
    )
    model = PairTransformer(
        n_tokens,
        d_model=edges[-1],
        n_heads=2,
        d_head=2 * K,
        d_mlp=_N_PHASES**2 * K,
        activation="square",
        n_outputs=n_tokens,
    ).double()
    for parameter in model.parameters():
        parameter.detach().zero_()
    w = {name: parameter.detach() for name, parameter in model.named_parameters()}
    waves = _waves(keys, coordinates.orders)
    w["embed.W_E"][coordinates.left, of_left] = waves
    w["embed.W_E"][coordinates.right, of_right] = waves
    w["pos_embed.W_pos"][:, position] = torch.eye(3, dtype=torch.float64)
    identity = torch.eye(2 * K, dtype=torch.float64)
    for head, (source, target) in enumerate(((of_left, a), (of_right, b))):
        w["blocks.0.attn.W_Q"][head, position.start + 2, 0] = _SCORE * math.sqrt(2 * K)
        w["blocks.0.attn.W_K"][head, position.start + head, 0] = 1.0
        w["blocks.0.attn.W_V"][head, source] = identity
        w["blocks.0.attn.W_O"][head, :, target] = identity
    thirds = [2 * math.pi * i / _N_PHASES for i in range(_N_PHASES)]
    neurons = itertools.product(range(K), thirds, thirds)
    for m, (k, phi, psi) in enumerate(neurons):
        for operand, phase in ((a, phi), (b, psi)):
            into = w["blocks.0.mlp.W_in"][operand.start + 2 * k : operand.start + 2 * k + 2, m]
            into.copy_(_turned(phase))
        out = w["blocks.0.mlp.W_out"][m, answer.start + 2 * k : answer.start + 2 * k + 2]
        out.copy_(2 / _N_PHASES**2 * alphas[k] * _turned(phi + psi))
    w["unembed.W_U"][answer, coordinates.result] = waves.T
    return model.eval()


def _turned(phase: float) -> Float[Tensor, "2"]:
    """The coefficients of cos(x) and sin(x) in cos(x + phase)."""
    return torch.tensor([math.cos(phase), -math.sin(phase)], dtype=torch.float64)


def _waves(keys: Sequence[tuple[int, ...]], orders: tuple[int, ...]) -> Float[Tensor, "n KK"]:
    """Cosine and sine of every character at every place, in pairs."""
    exponents = torch.tensor(list(itertools.product(*map(range, orders))), dtype=torch.float64)
    turns = torch.tensor(keys, dtype=torch.float64) / torch.tensor(orders, dtype=torch.float64)
    angles = 2 * math.pi * exponents @ turns.T
    return torch.stack([angles.cos(), angles.sin()], -1).flatten(1)


def _check(keys: Sequence[tuple[int, ...]], coordinates: Coordinates) -> None:
    orders = coordinates.orders
    if not keys or any(len(key) != len(orders) for key in keys):
        raise ValueError(
            f"at least one frequency is required, each with one number for each of the "
            f"{len(orders)} cyclic factors, but {keys} arrived."
        )
    for key in keys:
        positive = tuple(k % n for k, n in zip(key, orders, strict=True))
        folded = min(positive, tuple(-k % n for k, n in zip(key, orders, strict=True)))
        if not any(folded) or keys.count(key) > 1:
            raise ValueError(
                "every frequency must be there once, and not be trivial, but "
                f"{_shown(key)} is not so among {[_shown(k) for k in keys]} of a group of orders "
                f"{orders}. Leave it out."
            )
        if key != folded:
            allowed = f"numbers from 1 to {orders[0] // 2}"
            if len(orders) > 1:
                allowed = "the exponents of a character or its conjugate, whichever comes first"
            raise ValueError(
                f"the frequencies of a group of orders {orders} must be {allowed}, but "
                f"{_shown(key)} arrived. Its wave is that of {_shown(folded)}: pass this instead."
            )


def _shown(key: tuple[int, ...]) -> int | tuple[int, ...]:
    """A frequency as it is passed."""
    return key[0] if len(key) == 1 else key
