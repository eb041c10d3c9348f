"""Singular values of a gradient-like matrix in memory: time and error, beside other packages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rows import Row, alternate, summary

import phasescope as ps

Values = np.ndarray
ERRORS = ("ours_relative_errors", "other_relative_errors")


@dataclass(frozen=True)
class Sizes:
    n_steps: int = 400
    n_columns: int = 50_890
    k: int = 100
    ranks: tuple[int, ...] = (1, 10, 50, 100)
    turns: int = 3


QUICK = Sizes(n_steps=60, n_columns=1500, k=20, ranks=(1, 10, 20), turns=1)


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    A = gradient_like(sizes.n_steps, sizes.n_columns)
    values: dict[str, Values] = {}
    own, others = ours(A, sizes.k), peers(A, sizes.k)
    calls = {name: keep(values, name, call) for name, call in (own | others).items()}
    alternate({name: calls[name] for name in own}, 1)  # the first calls set things up
    times = alternate(calls, sizes.turns)
    truth = {
        "plain": np.linalg.svd(A.astype(np.float64), compute_uv=False),
        "centred": np.linalg.svd(A.astype(np.float64) - A.mean(0, np.float64), compute_uv=False),
    }
    title = f"Singular values, P = {sizes.n_columns:,}, T = {sizes.n_steps}"
    found = []
    for name in others:
        # IncrementalPCA subtracts the mean over steps and has no way not to.
        kind = "centred" if "PCA(" in name else "plain"
        detail = {
            "ours_s": summary(times[kind]),
            "other_s": summary(times[name]),
            "ours_with_parameter_vectors_s": summary(times["vectors"]),
            ERRORS[0]: errors(values[kind], truth[kind], sizes.ranks),
            ERRORS[1]: errors(values[name], truth[kind], sizes.ranks),
            "center": "steps" if kind == "centred" else "none",
        }
        mine, other = detail["ours_s"]["median"], detail["other_s"]["median"]
        goal = 30.0 if name == "numpy.linalg.svd" else None
        shown = [" ".join(f"{e:.0e}" for e in detail[key].values()) for key in ERRORS]
        note = f"errors at s{', '.join(map(str, sizes.ranks))}: {shown[0]} against {shown[1]}"
        found.append(Row(title, mine, other, name, goal, detail=detail, note=note, quick=quick))
    return found


def keep(values: dict[str, Values], name: str, call: Callable[[], Values]) -> Callable[[], None]:
    """The call, its last result kept under the name."""

    def kept() -> None:
        values[name] = call()

    return kept


def ours(A: np.ndarray, k: int) -> dict[str, Callable[[], Values]]:
    """Values and time vectors, plain and centred over steps; and k parameter vectors as well."""

    def vectors() -> Values:
        spectrum = ps.spectrum(ps.gram(A))
        ps.parameter_vectors(A, spectrum, k)
        return spectrum.S.numpy()

    return {
        "plain": lambda: ps.spectrum(ps.gram(A)).S.numpy(),
        "centred": lambda: ps.spectrum(ps.gram(A), center="steps").S.numpy(),
        "vectors": vectors,
    }


def peers(A: np.ndarray, k: int) -> dict[str, Callable[[], Values]]:
    """The same values from other packages, with their default accuracy."""
    import dask
    import dask.array
    from sklearn.decomposition import IncrementalPCA

    tensor = torch.from_numpy(A)
    blocks = dask.array.from_array(A, chunks=(len(A), 8192))

    def lowrank() -> Values:
        torch.manual_seed(0)
        return torch.pca_lowrank(tensor, q=k, center=False)[1].numpy()

    def compressed() -> Values:
        U, S, _ = dask.array.linalg.svd_compressed(blocks, k, seed=0)
        return dask.compute(S, U)[0]

    return {
        "numpy.linalg.svd": lambda: np.linalg.svd(A, full_matrices=False)[1],
        f"torch.pca_lowrank(q={k})": lowrank,
        f"sklearn IncrementalPCA({k})": lambda: (
            IncrementalPCA(k, batch_size=k).fit(A).singular_values_
        ),
        f"dask svd_compressed({k})": compressed,
    }


def gradient_like(n_steps: int, n_columns: int) -> np.ndarray:
    """Sixty directions of decaying strength, in noise whose norm halves over the steps; float32."""
    generator = np.random.default_rng(0)
    strength = 100 * np.arange(1, 61) ** -0.7
    profiles = generator.standard_normal((n_steps, 60)) / np.sqrt(n_steps)
    directions = generator.standard_normal((60, n_columns)) / np.sqrt(n_columns)
    noise = generator.standard_normal((n_steps, n_columns)) / np.sqrt(n_columns)
    norms = np.linspace(4, 2, n_steps)[:, None]
    return ((profiles * strength) @ directions + norms * noise).astype(np.float32)


def errors(found: Values, truth: Values, ranks: tuple[int, ...]) -> dict[str, float]:
    """Relative error of the singular values of these ranks."""
    return {str(r): float(abs(found[r - 1] / truth[r - 1] - 1)) for r in ranks}
