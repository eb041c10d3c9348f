"""Gram matrices of flipped copies: against explicit flips, however the matrix is read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phasescope.analysis.gram import gram
from phasescope.analysis.signs import RandomSigns
from phasescope.analysis.surrogates import flipped_grams


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flipped(A: torch.Tensor, steps: list[int], surrogate: int, seed: int) -> torch.Tensor:
    """The copy itself, tile by tile."""
    made = RandomSigns(torch.tensor(steps), seed=seed)
    parts = [
        made.flip(part, start, surrogate=surrogate, out=torch.empty_like(part))
        for start in range(0, A.shape[1], 4096)
        for part in [A[:, start : start + 4096].contiguous()]
    ]
    return torch.cat(parts, dim=1)


def test_the_first_is_the_data_and_the_others_are_explicit_flips():
    A = noise(6, 9000)
    data, *copies = flipped_grams(A, 2, seed=3)
    torch.testing.assert_close(data.K, gram(A).K, rtol=1e-13, atol=1e-10)
    torch.testing.assert_close(data.row_sums, A.sum(1), rtol=1e-12, atol=1e-10)
    assert data.n_columns == 9000
    for number, copy in enumerate(copies):
        R = flipped(A, list(range(6)), number, 3)
        torch.testing.assert_close(copy.K, R @ R.T, rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(copy.row_sums, R.sum(1), rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(copy.K.diagonal(), data.K.diagonal())


@pytest.mark.parametrize("memory", [9_500_000, 11_000_000, 400_000_000])
def test_the_memory_changes_the_reading_and_not_the_copies(memory: int, tmp_path):
    A = noise(200, 9000, dtype=torch.float32)  # a pass of 9.5 MB holds two Gram matrices
    np.save(tmp_path / "A.npy", A.numpy())
    mapped = np.load(tmp_path / "A.npy", mmap_mode="r")
    expected = list(flipped_grams(A, 4, seed=1))
    found = list(flipped_grams(mapped, 4, seed=1, memory=memory))
    for a, b in zip(expected, found, strict=True):
        # Sums over the same tiles in the same order, cut elsewhere: rounding of float32 products.
        torch.testing.assert_close(a.K, b.K, rtol=0, atol=2e-6 * float(a.K.max()))


def test_a_selection_of_steps_is_a_part_of_the_whole_copy():
    A = noise(10, 5000)
    whole = list(flipped_grams(A, 2))
    part = list(flipped_grams(A, 2, steps=[7, 1, 4]))
    rows = torch.tensor([1, 4, 7])
    for a, b in zip(whole, part, strict=True):
        torch.testing.assert_close(a.K[rows[:, None], rows], b.K, rtol=1e-12, atol=1e-10)
        assert b.steps.tolist() == [1, 4, 7]


def test_progress_reaches_one_over_all_passes():
    seen: list[float] = []
    list(flipped_grams(noise(4, 10_000), 3, progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_too_little_memory_is_refused_with_the_amount_that_is_needed():
    A = noise(30, 20_000, dtype=torch.float32).numpy()
    A.flags.writeable = False
    with pytest.raises(ValueError, match=r"needs memory >= [\d,]+ bytes"):
        list(flipped_grams(A, 2, memory=1_000_000))


def test_values_that_are_not_finite_are_named_with_their_step():
    A = noise(5, 200)
    A[3, 17] = float("nan")
    with pytest.raises(ValueError, match=r"step 3 \(row 3\) holds nan in column 17"):
        list(flipped_grams(A, 1, steps=[1, 3]))


def test_a_negative_number_of_copies_is_refused():
    with pytest.raises(ValueError, match="n_surrogates must be at least 0, but -1"):
        list(flipped_grams(noise(4, 10), -1))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc of Linux")
def test_a_pass_needs_no_more_memory_than_it_was_given(tmp_path):
    """Measured in a process of its own, above what imports and a first small pass leave."""
    import subprocess
    import sys

    np.save(tmp_path / "A.npy", noise(300, 60_000, dtype=torch.float32).numpy())
    program = """
import sys
from pathlib import Path
import numpy as np
from phasescope.analysis.flips import flip_rank_test

def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(x for x in status if x.startswith("VmHWM")).split()[1])

A = np.load(sys.argv[1], mmap_mode="r")
flip_rank_test(A[:, :5000], memory=30_000_000, n_surrogates=2)
before = peak()
flip_rank_test(A, memory=60_000_000, max_deflations=0)
print(peak() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "A.npy")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # The file itself is mapped: its 72 MB may count as resident, and T x T matrices come on top.
    assert int(run.stdout) < 60e6 + 72e6 + 20e6
