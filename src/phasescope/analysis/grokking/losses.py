"""Losses of a network that keeps, or loses, some frequencies.

Letters: i, j places of the operands, c places of the results, n of each; k frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from phasescope.analysis.grokking.basis import FourierBasis, check_axes
from phasescope.analysis.grokking.sums import on_sums, project_profile, sum_profile

# Above this range of exponents, exp() of float64 would lose terms that count.
_SAFE_RANGE = 600.0


@dataclass(frozen=True)
class Loss:
    """Loss and accuracy over some pairs."""

    loss: float
    """Mean cross-entropy in nats, computed in float64."""
    accuracy: float
    """Share of pairs whose largest logit is the right one."""
    n_pairs: int
    """Number of pairs."""


def pair_losses(
    logits: Float[Tensor, "a b c"],
    labels: Int64[Tensor, "a b"],
    splits: Mapping[str, Bool[Tensor, "a b"]],
) -> dict[str, Loss]:
    """Loss and accuracy on each of several sets of pairs.

    Args:
        logits: Of every pair. The results that count compete; leave "=" out.
        labels: Position of the right result among the logits; −1 where there is none.
        splits: Which pairs belong to ``"train"``, ``"test"`` and so on; pairs without label are
            left out of every one.

    Returns:
        One loss for every split, in float64; NaN for an empty one.

    Example:
        >>> labels = torch.tensor([[0, 1], [1, 0]])
        >>> logits = 50 * torch.nn.functional.one_hot(labels).double()
        >>> pair_losses(logits, labels, {"all": labels >= 0})["all"].accuracy
        1.0
    """
    values = logits.double()
    labels = labels.to(values.device)
    right = values.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    top, answer = values.max(-1)
    losses = (values - top.unsqueeze(-1)).exp_().sum(-1).log_() + (top - right)
    correct = answer == labels
    found = {}
    for name, mask in splits.items():
        chosen = mask.to(values.device) & (labels >= 0)
        found[name] = Loss(
            losses[chosen].mean().item(),
            correct[chosen].double().mean().item(),
            int(chosen.sum()),
        )
    return found


def restricted_logits(
    basis: FourierBasis,
    logits: Float[Tensor, "n n c"],
    keys: Sequence[int],
    variant: Literal["nanda", "2x2", "3x3"] = "nanda",
) -> Float64[Tensor, "n n c"]:
    r"""Logits of which only the key frequencies remain, and the mean over pairs.

    - ``"nanda"`` (the paper's notebook): the directions $\cos w_k(i+j)$ and $\sin w_k(i+j)$.
    - ``"2x2"``: products of cos k, sin k of one operand with cos k, sin k of the other, so waves
      in i − j too; the paper's "20 terms" for five keys.
    - ``"3x3"``: these and what depends on one operand alone.

    The variants differ as soon as the attention is not constant; say which one a number is.

    Args:
        basis: Basis of the group.
        logits: In the order of the places, or any other values of pairs.
        keys: The key frequencies.
        variant: What remains.

    Returns:
        Logits to put into `pair_losses`; on all pairs, train and test alike.

    Raises:
        ValueError: A frequency does not exist, or the variant is another word.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> logits = basis.rows[1:4].T[basis.sums] + 1
        >>> torch.allclose(restricted_logits(basis, logits, [1, 2]), logits)
        True

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 5.1 and appendix C.2.
    """
    check_axes(basis, logits, 2)
    values = logits.double()
    mean = values.mean((0, 1))
    if variant == "nanda":
        return on_sums(basis, _key_profile(basis, values, keys) + mean)
    if variant not in ("2x2", "3x3"):
        raise ValueError(f"variant must be 'nanda', '2x2' or '3x3', but {variant!r} arrived.")
    rows = basis.rows.to(values.device)
    kept = torch.zeros_like(values)
    for k in sorted(set(keys)):
        block = rows[basis.rows_of([0, k] if variant == "3x3" else [k])]
        inner = torch.einsum("fi,gj,ij...->fg...", block, block, values - mean)
        kept += torch.einsum("fi,gj,fg...->ij...", block, block, inner)
    return kept + mean


def excluded_logits(
    basis: FourierBasis, logits: Float[Tensor, "n n c"], keys: Sequence[int]
) -> Float64[Tensor, "n n c"]:
    r"""Logits without the directions $\cos w_k(i+j)$, $\sin w_k(i+j)$ of some frequencies.

    The mean over pairs stays. With all keys at once it is "excluded loss" of the paper, which is
    evaluated on the training pairs; with one key at a time, that of the released code.

    Args:
        basis: Basis of the group.
        logits: In the order of the places.
        keys: Frequencies to take out.

    Returns:
        Logits to put into `pair_losses`.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> logits = basis.rows[1:4].T[basis.sums]
        >>> excluded_logits(basis, logits, [1, 2]).abs().max().item() < 1e-12
        True

    References:
        Nanda et al. (2023), arXiv:2301.05217, section 5.1.
    """
    check_axes(basis, logits, 2)
    values = logits.double()
    return values - on_sums(basis, _key_profile(basis, values, keys))


def restricted_neuron_logits(
    basis: FourierBasis,
    activations: Float[Tensor, "n n m"],
    W_L: Float[Tensor, "m c"],
    logits: Float[Tensor, "n n c"],
    keys: Sequence[int],
) -> Float64[Tensor, "n n c"]:
    """Logits from neurons of which only the key frequencies remain (TransformerLens's variant).

    The activations' waves in i + j pass through W_L; the mean over pairs is that of the logits.
    The path around the MLP is lost, so this is not `restricted_logits` unless what that path adds
    depends on one operand at a time, as with constant attention.

    Args:
        basis: Basis of the group.
        activations: Behind the nonlinearity, in the order of the places.
        W_L: Neuron-to-logit map, W_out W_U, results in the order of the places.
        logits: Of the whole network, in the order of the places.
        keys: The key frequencies.

    Returns:
        Logits to put into `pair_losses`.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> neurons, W_L = basis.rows[1:3].T[basis.sums], torch.eye(2, 5).double()
        >>> kept = restricted_neuron_logits(basis, neurons, W_L, neurons @ W_L + 1, [1])
        >>> torch.allclose(kept, neurons @ W_L + 1)
        True
    """
    profile = _neuron_profile(basis, activations, W_L, keys)
    return on_sums(basis, profile + logits.double().mean((0, 1)))


def excluded_neuron_logits(
    basis: FourierBasis,
    activations: Float[Tensor, "n n m"],
    W_L: Float[Tensor, "m c"],
    logits: Float[Tensor, "n n c"],
    keys: Sequence[int],
) -> Float64[Tensor, "n n c"]:
    """Logits without the key frequencies of the neurons; the path around the MLP stays.

    Args:
        basis: Basis of the group.
        activations: Behind the nonlinearity, in the order of the places.
        W_L: Neuron-to-logit map, W_out W_U, results in the order of the places.
        logits: Of the whole network, in the order of the places.
        keys: Frequencies to take out.

    Returns:
        Logits to put into `pair_losses`.

    Raises:
        ValueError: A frequency does not exist.

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> neurons, W_L = basis.rows[1:3].T[basis.sums], torch.eye(2, 5).double()
        >>> left = excluded_neuron_logits(basis, neurons, W_L, neurons @ W_L + 1, [1])
        >>> torch.allclose(left, torch.ones_like(left))
        True
    """
    profile = _neuron_profile(basis, activations, W_L, keys)
    return logits.double() - on_sums(basis, profile)


def excluded_loss_per_frequency(
    basis: FourierBasis,
    logits: Float[Tensor, "n n c"],
    labels: Int64[Tensor, "n n"],
    mask: Bool[Tensor, "n n"],
) -> Float64[Tensor, " k"]:
    """Loss on some pairs with one frequency taken out at a time, for all frequencies.

    The same as `excluded_logits` and `pair_losses` for every frequency alone. As a frequency's part
    of the logits depends on i + j only, so do the factors by which it changes every exponential,
    and all frequencies together cost one matrix product for every sum. Where the exponentials would
    leave the range of float64, each loss is computed by itself.

    Its largest value is the variant ``max_any``, for which no keys need to be known.

    Args:
        basis: Basis of the group.
        logits: In the order of the places.
        labels: Place of the right result; −1 where there is none.
        mask: Which pairs, usually the training ones.

    Returns:
        Losses in nats for frequencies 1, 2, ...

    Example:
        >>> from phasescope.analysis.grokking import fourier_basis
        >>> basis = fourier_basis((5,))
        >>> logits = 30 * basis.rows[1][basis.differences[basis.sums]]
        >>> losses = excluded_loss_per_frequency(basis, logits, basis.sums, basis.sums >= 0)
        >>> [round(x, 4) for x in losses.tolist()]  # without frequency 1 nothing is known: ln 5
        [1.6094, 0.0]
    """
    check_axes(basis, logits, 2)
    values, n = logits.double(), len(basis)
    profile = sum_profile(basis, values)
    parts = torch.stack(  # [k, s, c]
        [project_profile(basis, profile, [k]) for k in range(1, basis.n_frequencies + 1)]
    )
    top = values.amax(-1, keepdim=True)
    low = parts.amin(-1, keepdim=True)
    chosen = (mask & (labels >= 0)).to(values.device)
    if (parts.amax(-1, keepdim=True) - low).max() > _SAFE_RANGE:
        return torch.stack([_loss(values - on_sums(basis, p), labels, chosen) for p in parts])
    # Pairs by their sum: [s, n, c], and exp(-part) as [s, c, k].
    partner = basis.differences.T.to(values.device)  # [i, s]: the j with i + j = s
    i = torch.arange(n, device=values.device)
    sums = torch.arange(n, device=values.device)[:, None]
    j = partner[i, sums]  # [s, i]
    factors = (low - parts).exp_().permute(1, 2, 0)
    normalisers = torch.bmm((values - top).exp_()[i, j], factors)  # [s, i, k]
    label = labels.to(values.device).clamp(min=0)[i, j]
    right = values[i, j].gather(-1, label.unsqueeze(-1)) - parts[:, sums, label].permute(1, 2, 0)
    losses = normalisers.log_() + (top[i, j] - low.permute(1, 2, 0) - right)
    return losses[chosen[i, j]].mean(0)


def _loss(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    loss = pair_losses(logits, labels, {"": chosen})[""].loss
    return torch.tensor(loss, dtype=torch.float64, device=logits.device)


def _neuron_profile(
    basis: FourierBasis, activations: Tensor, W_L: Tensor, keys: Sequence[int]
) -> Tensor:
    """What the key frequencies of the neurons add to the logits, by the sum of the operands."""
    check_axes(basis, activations, 2)
    return _key_profile(basis, activations, keys) @ W_L.double()


def _key_profile(basis: FourierBasis, values: Tensor, keys: Sequence[int]) -> Tensor:
    """What the key frequencies add to the mean over pairs, by the sum of the operands."""
    about_mean = sum_profile(basis, values) - values.double().mean((0, 1))
    return project_profile(basis, about_mean, keys)
