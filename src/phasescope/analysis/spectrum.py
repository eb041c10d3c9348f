"""Singular values and vectors of a trajectory, from its Gram matrix.

Letters: T steps (rows), P parameters (columns), k singular values;
A = U diag(S) Vᵀ, where U is the time side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from phasescope.analysis.columns import StepMatrix, source
from phasescope.analysis.gram import SUB_BLOCK, Gram
from phasescope.analysis.selection import Steps, select_steps

Center = Literal["none", "steps", "parameters", "both"]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values and time vectors of a (sub-sampled, centred, normalised) trajectory."""

    S: Float64[Tensor, " k"]
    """Singular values, descending; k = min(T, P)."""
    time_vectors: Float64[Tensor, "T n"]
    """Column i is the unit time profile of `S[i]`; its entry of largest magnitude is positive.
    n = k, or 0 if they were not asked for."""
    steps: Int64[Tensor, " T"]
    """Step of every row."""
    norms: Float64[Tensor, " T"]
    """Row norms before any centring or normalising."""
    centered_norms: Float64[Tensor, " T"]
    """Row norms after centring over parameters (equal to `norms` without it), before the rest."""
    center: Center
    """What was subtracted."""
    normalize: bool
    """Whether rows had unit norm before centring over steps."""
    n_columns: int
    """Number of parameters."""
    resolution: float
    """Singular values at or below this may be rounding noise of the Gram matrix (a safe bound)."""


@dataclass(frozen=True, eq=False)
class NormNull:
    """Singular values that the row norms alone would give."""

    S: Float64[Tensor, " T"]
    """Singular values, descending."""
    steps: Int64[Tensor, " T"]
    """Steps of the spectrum that it belongs to."""
    center: Center
    """Centring of that spectrum."""
    normalize: bool
    """Normalisation of that spectrum."""


def spectrum(
    gram: Gram,
    *,
    center: Center = "none",
    normalize: bool = False,
    steps: Steps | None = None,
    time_vectors: bool = True,
) -> Spectrum:
    r"""Singular values and time vectors of a trajectory, from its Gram matrix alone.

    In this order: steps are selected, each row's mean over the parameters is subtracted
    (`center` "parameters" or "both"), rows are scaled to unit norm (`normalize`), the mean row is
    subtracted ("steps" or "both"). So a normalised row is a unit vector of what is left of it, and
    the mean over steps is that of the selected, normalised rows. With $m$ the row sums, $D$ the
    diagonal of $K - mm^\top/P$ and $H = 1 - \mathbf{1}\mathbf{1}^\top/T$ the squared singular
    values are the eigenvalues of $H D^{-1/2} (K - m m^\top / P) D^{-1/2} H$.

    A count of large singular values is not a dimension: it depends on the norms of the rows, on the
    number of steps and on the centring. Read it beside `norm_null`.

    Args:
        gram: From `gram`, of the whole matrix or of a component.
        center: Subtract the mean over "steps" (as principal component analysis does), each step's
            scalar mean over "parameters", "both" or "none".
        normalize: Scale every row to unit norm, so that loud steps do not count for more.
        steps: Step values to use, not row numbers: a slice (its step keeps the values congruent to
            its start), or a list, array or tensor of values. All by default.
        time_vectors: False computes the singular values alone, in about half the time.

    Returns:
        min(T, P) singular values, descending, time vectors and norms. Values that are zero up to
        float64 rounding are set to zero; `resolution` tells what float32 products cannot resolve.

    Raises:
        ValueError: A step was not recorded, none is left, or a row to normalise has norm zero.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> g = gram(torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> spectrum(g, steps=slice(1, None)).S
        tensor([2., 1.], dtype=torch.float64)
    """
    if not isinstance(gram, Gram):
        raise TypeError(
            f"spectrum takes a Gram matrix, but a {type(gram).__name__} arrived. Make one of steps "
            "× parameters with phasescope.gram(A)."
        )
    rows = select_steps(gram.steps, steps).sort().values
    norms = gram.K.diagonal()[rows].sqrt()
    K = subtract_parameter_means(gram, center)[rows[:, None], rows]
    centered = K.diagonal().clamp(min=0).sqrt()
    noise = norms**2  # rounding of K[s, t] is relative to norms[s] * norms[t]
    if normalize:
        scale = _inverse_norms(centered, norms, gram.steps[rows], gram.eps)
        K = K * scale * scale[:, None]
        noise = noise * scale**2
    zero = len(rows) * torch.finfo(torch.float64).eps * float(K.diagonal().max())
    if center in ("steps", "both"):
        K = K - K.mean(0)
        K = K - K.mean(1, keepdim=True)
    K = (K + K.T) / 2
    k = min(len(rows), gram.n_columns)
    if time_vectors:
        eigenvalues, U = torch.linalg.eigh(K)
        U = U.flip(1)[:, :k]
        U = U * U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    else:
        eigenvalues, U = torch.linalg.eigvalsh(K), K[:, :0]
    eigenvalues = eigenvalues.flip(0)[:k]
    S = torch.where(eigenvalues > zero, eigenvalues, 0.0).sqrt()
    # Independent roundings add up like a random matrix, hence the 2-norm of the squared norms.
    # Products round in their own precision, their sum and the centring after it in float64.
    eps = gram.eps + 2 * torch.finfo(torch.float64).eps
    resolution = max(4 * eps * float(noise.norm()), zero) ** 0.5
    return Spectrum(
        S, U, gram.steps[rows], norms, centered, center, normalize, gram.n_columns, resolution
    )  # fmt: skip


def norm_null(spectrum: Spectrum) -> NormNull:
    r"""Singular values if rows had the recorded norms but nothing else in common.

    The limit of independent rows in infinitely many dimensions: without centring over steps the
    sorted norms $a_t$ (ones, if rows were normalised), with it the roots of the eigenvalues of
    $H \operatorname{diag}(a^2) H$. Print its count beside every threshold count.

    It misleads where the number of parameters, or of effectively independent parameters, is not
    much larger than the number of steps: noise then has a wider spectrum than this. It says nothing
    about correlations of minibatch noise between parameters.

    Args:
        spectrum: The observed one.

    Returns:
        One value per step, descending.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> norm_null(spectrum(gram(torch.tensor([[1.0, 0.0], [2.0, 0.0]])))).S
        tensor([2., 1.], dtype=torch.float64)
    """
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"norm_null takes a Spectrum, but a {type(spectrum).__name__} arrived. Make one with "
            "phasescope.spectrum(phasescope.gram(A))."
        )
    a = spectrum.centered_norms
    if spectrum.normalize:
        a = torch.ones_like(a)
    S = a.sort(descending=True).values
    if spectrum.center in ("steps", "both"):
        K = (a**2).diag()
        K = K - K.mean(0)
        K = K - K.mean(1, keepdim=True)
        S = torch.linalg.eigvalsh((K + K.T) / 2).flip(0).clamp(min=0).sqrt()
        S[-1] = 0.0  # centring removes one dimension exactly
    return NormNull(S, spectrum.steps, spectrum.center, spectrum.normalize)


def parameter_vectors(
    A: StepMatrix, spectrum: Spectrum, k: int, *, memory: int = 400_000_000
) -> Float32[Tensor, "k P"]:
    r"""The first k unit directions in parameter space, in a second pass over the matrix.

    $V_k = S_k^{-1} U_k^\top A'$ with $A'$ centred and normalised as the spectrum says; row i
    belongs to `spectrum.S[i]` and to time vector i, signs included. Rows are orthonormal up to the
    rounding of the Gram matrix, about $(\text{resolution} / s_k)^2$.

    A direction well above the noise in time may still be mostly noise in parameter space, since
    there are many more parameters than steps: compare two runs before interpreting one.

    Args:
        A: The matrix that the spectrum came from; rows of other steps are ignored. For a
            component's spectrum, that component's columns.
        spectrum: From `spectrum`.
        k: How many directions.
        memory: Bytes for the buffers of the pass. The result, 4 k P bytes, comes on top.

    Returns:
        Directions as rows, on the CPU.

    Raises:
        ValueError: The matrix is not the spectrum's, the spectrum has no time vectors, or k exceeds
            the resolved singular values.

    Example:
        >>> from phasescope.analysis.gram import gram
        >>> A = torch.tensor([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
        >>> parameter_vectors(A, spectrum(gram(A)), 1)
        tensor([[0., 1., 0.]])
    """
    check_time_vectors(spectrum)
    matrix = source(A, "cpu")
    rows = _matching_rows(matrix.steps, matrix.n_columns, spectrum)
    check_resolved(spectrum, k)
    U = spectrum.time_vectors[:, :k]
    if spectrum.center in ("steps", "both"):
        U = U - U.mean(0)
    weights = U / spectrum.S[:k]
    if spectrum.normalize:
        weights = weights / spectrum.centered_norms[:, None]
    sub_block = min(SUB_BLOCK, matrix.n_columns)
    reserved = 2 * 8 * (len(rows) + k) * sub_block
    V = torch.empty(k, matrix.n_columns)
    sums = torch.zeros(len(rows), dtype=torch.float64)
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for start, block in matrix.blocks(matrix.width(memory, reserved=reserved)):
        for first in range(0, block.shape[1], sub_block):
            X = block[:, first : first + sub_block][rows].double()
            V[:, start + first : start + first + X.shape[1]] = weights.T @ X
            sums += X.sum(1)
            squares += torch.linalg.vecdot(X, X)
    if not torch.allclose(squares.sqrt(), spectrum.norms, rtol=1e-3, atol=0):
        raise ValueError(
            "A must be the matrix that the spectrum came from, but its row norms differ from "
            "spectrum.norms. Pass the same matrix (for a component, its columns) to both."
        )
    if spectrum.center in ("parameters", "both"):
        V -= (weights.T @ sums / matrix.n_columns)[:, None]
    return V


def subtract_parameter_means(gram: Gram, center: Center) -> Float64[Tensor, "T T"]:
    """The Gram matrix of the rows after centring over parameters, if `center` asks for it."""
    check_center(center)
    if center in ("none", "steps"):
        return gram.K
    return gram.K - gram.row_sums[:, None] * gram.row_sums / gram.n_columns


def check_center(center: str) -> None:
    """Raise unless `center` is one of the four ways of centring."""
    if center not in get_args(Center):
        raise ValueError(
            f"center must be one of {get_args(Center)}, but {center!r} arrived. 'steps' subtracts "
            "the mean row, 'parameters' the scalar mean of each row."
        )


def check_time_vectors(spectrum: Spectrum) -> None:
    """Raise unless the spectrum was computed with its time vectors."""
    if spectrum.time_vectors.shape[1] == 0:
        raise ValueError(
            "a spectrum with time vectors is required, but this one holds singular values only. "
            "Compute it without time_vectors=False."
        )


def check_not_constant(spectrum: Spectrum) -> None:
    """Raise unless something above rounding is left of the steps."""
    if not float(spectrum.S[0]) > spectrum.resolution:
        subtracted = "nothing" if spectrum.center == "none" else f"the mean over {spectrum.center}"
        raise ValueError(
            "the steps must differ, but nothing above rounding is left of them "
            f"({subtracted} subtracted, largest singular value {float(spectrum.S[0]):.2g}): they "
            "are constant. Check that every step was recorded and that training went on."
        )


def check_resolved(spectrum: Spectrum, k: int) -> None:
    """Raise unless the first k singular values stand above the rounding of the Gram matrix."""
    resolved = int((spectrum.resolution < spectrum.S).sum())
    check_not_constant(spectrum)
    if k > len(spectrum.S):
        raise ValueError(
            f"k must be between 1 and {resolved}, but k={k} arrived: {len(spectrum.steps)} steps "
            f"of {spectrum.n_columns} parameters have no more than {len(spectrum.S)} components. "
            "Ask for fewer, or record more steps."
        )
    if not 1 <= k <= resolved:
        raise ValueError(
            f"k must be between 1 and {resolved}, the number of singular values above the rounding "
            f"of the Gram matrix ({spectrum.resolution:.2g}), but k={k} arrived. Ask for fewer, or "
            "compute the Gram matrix from float64 values."
        )


def _inverse_norms(
    norms: Float64[Tensor, " T"],
    before: Float64[Tensor, " T"],
    steps: Int64[Tensor, " T"],
    eps: float,
) -> Float64[Tensor, " T"]:
    """One over each norm, refusing rows of which centring over parameters left only rounding."""
    empty = (norms**2 <= 4 * eps * before**2) | (norms == 0)
    if bool(empty.any()):
        raise ValueError(
            f"every step needs a norm above zero to be normalised, but {int(empty.sum())} have "
            "none (or values so small that their squares vanish), the first at step "
            f"{int(steps[empty][0])}. Leave these out by `steps`, or use normalize=False."
        )
    return 1 / norms


def _matching_rows(
    steps: Int64[Tensor, " n"], n_columns: int, spectrum: Spectrum
) -> Int64[Tensor, " T"]:
    found = torch.isin(spectrum.steps, steps)
    if n_columns != spectrum.n_columns or not bool(found.all()):
        raise ValueError(
            f"A must be the matrix that the spectrum came from, with {spectrum.n_columns} columns "
            f"and its {len(found)} steps, but A has {n_columns} columns and lacks "
            f"{int((~found).sum())} of the steps. Pass the same matrix to both."
        )
    return torch.searchsorted(steps, spectrum.steps)
