"""What a sketch does to singular values and inner products: the tables of docs/sketches.md.

    PHASESCOPE_DATA=... .venv/bin/python benchmarks/sketch_errors.py

Not a timing, so run.py leaves it out. It needs MNIST, 1 GB of memory and some minutes of one core.
Letters: T steps, P parameters, m buckets.
"""

import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

import phasescope as ps
from phasescope.datasets import ShuffledBatches, as_inputs, load_mnist
from phasescope.models import MLP, seeded
from phasescope.training import train

T = 200
SIZES = tuple(2**i for i in range(10, 17))
INDICES = (1, 5, 20, 50, 100, 200)
N_SEEDS = 10
N_SEEDS_OF_FEW_ROWS = 200


def main() -> None:
    for name, A in (("planted", planted()), ("MNIST", mnist())):
        print(f"\n{name}: T = {len(A)}, P = {A.shape[1]:,}, {N_SEEDS} seeds\n")
        for line in singular_values(A):
            print(line, flush=True)
    print("\nroot mean square error of inner products in units of `standard_error`: over all seeds")
    print(f"({N_SEEDS}; one column {N_SEEDS_OF_FEW_ROWS}), and range of the seeds\n")
    for line in inner_products({"MNIST": mnist(), "one column": one_column()}):
        print(line, flush=True)


def planted() -> Tensor:
    """Twenty directions of decaying strength, 100 to 12, in noise of 8 in every direction."""
    generator = torch.Generator().manual_seed(0)
    P, k = 200_000, 20
    strength = 100 * torch.arange(1, k + 1) ** -0.7
    profiles = torch.linalg.qr(torch.randn(T, k, generator=generator)).Q
    directions = torch.randn(k, P, generator=generator) / math.sqrt(P)
    noise = torch.randn(T, P, generator=generator) * (8 / math.sqrt(P))
    return noise.addmm_(profiles * strength, directions)


def mnist() -> Tensor:
    """Recorded gradients of the first 200 updates of an MLP; SGD at 0.1, batches of 64."""
    images = load_mnist("train", download=False)
    model = seeded(MLP, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, labels = as_inputs(images)[: 64 * T], images.labels[: 64 * T]
    batches = ShuffledBatches(inputs, labels, 64, seed=0, n_epochs=1)
    with tempfile.TemporaryDirectory(prefix="sketches-") as folder:
        save = {"gradients": ps.every(1)}
        with ps.Recorder(f"{folder}/run", model, optimizer, save=save, n_steps=T) as recorder:
            train(model, optimizer, batches, recorder=recorder)
        gradients = ps.open_run(f"{folder}/run").gradients
        return torch.from_numpy(gradients[0:T, 0 : gradients.shape[1]].copy())


def one_column() -> Tensor:
    """Two rows with all their mass in one column of a 1,200 x 1,024 matrix: period 1,024."""
    A = torch.zeros(2, 1200, 1024)
    A[:, :, 100] = torch.randn(2, 1200, generator=torch.Generator().manual_seed(0))
    return A.flatten(1)


def blocked(A: Tensor, size: int, seed: int) -> Tensor:
    """Sketches of all rows."""
    sketch = ps.CountSketch(size, seed)
    return torch.stack([sketch.apply([row]) for row in A])


def classic(A: Tensor, size: int, seed: int) -> Tensor:
    """The same with a random bucket for every entry."""
    generator = torch.Generator().manual_seed(seed)
    buckets = torch.randint(0, size, (A.shape[1],), generator=generator)
    signs = torch.randint(0, 2, (A.shape[1],), generator=generator) * 2.0 - 1.0
    return torch.stack([torch.zeros(size).index_add_(0, buckets, row * signs) for row in A])


def singular_values(A: Tensor) -> Iterator[str]:
    """A table: relative errors of singular values in per cent, and the 10 % count, by size."""
    truth = ps.spectrum(ps.gram(A), time_vectors=False).S
    at = torch.tensor(INDICES) - 1
    values = " ".join(f"{v:.3g}" for v in truth[at].tolist())
    yield f"exact: {values}; count {ps.count_above(truth, 0.1)}"
    yield from header(["size m", "T/m", *(f"σ{i}" for i in INDICES), "10 % count"])
    for size in SIZES:
        grams = (ps.gram(blocked(A, size, seed)) for seed in range(N_SEEDS))
        found = torch.stack([ps.spectrum(gram, time_vectors=False).S for gram in grams])
        errors = 100 * (found / truth - 1)[:, at]
        pairs = zip(errors.mean(0).tolist(), errors.std(0).tolist(), strict=True)
        counts = [ps.count_above(S, 0.1) for S in found]
        cells = [f"{mean:+.1f} ± {spread:.1f}" for mean, spread in pairs]
        yield row([f"{size:,}", f"{len(A) / size:.3f}", *cells, f"{min(counts)} … {max(counts)}"])


def inner_products(matrices: dict[str, Tensor]) -> Iterator[str]:
    """A table: how large the errors of inner products are, for both kinds of sketch."""
    yield from header(["vectors", "size m", "P/m", "blocked", "classic"])
    for name, A in matrices.items():
        K = ps.gram(A).K
        norms = K.diagonal().sqrt()
        upper = torch.triu_indices(len(A), len(A))
        n_seeds = N_SEEDS if len(A) > 2 else N_SEEDS_OF_FEW_ROWS
        for size in (2**12, 2**16):
            bound = ps.CountSketch(size).standard_error(norms[:, None], norms, K)
            cells = []
            for sketches in (blocked, classic):
                scores = ((ps.gram(sketches(A, size, s)).K - K) / bound for s in range(n_seeds))
                each = [z[*upper].square().mean().sqrt().item() for z in scores]
                whole = math.sqrt(statistics.mean(e**2 for e in each))
                cells.append(f"{whole:.2f} ({min(each):.2f} … {max(each):.2f})")
            yield row([name, f"{size:,}", f"{A.shape[1] / size:.1f}", *cells])


def header(names: Sequence[str]) -> list[str]:
    """The first lines of a Markdown table."""
    return [row(names), row(["---"] * len(names))]


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
