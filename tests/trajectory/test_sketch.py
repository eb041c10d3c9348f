"""CountSketch: against its definition in NumPy, its exact mean and variance, and planted spectra.

Letters: P parameters, m buckets, T steps.
"""

import itertools
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import phasescope as ps
from phasescope.trajectory import signs as signs_module
from phasescope.trajectory import sketch as sketch_module

N_SIGNS = 2**20
Matrix = np.ndarray


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(*shape: int) -> torch.Tensor:
    """Small whole numbers: float32 adds them up without rounding, in any order."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-9, 10, shape, generator=generator).float()


PAGE = (Path(__file__).parents[2] / "docs" / "sketches.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def definition(size: int, seed: int, positions: Matrix) -> tuple[Matrix, Matrix]:
    """Bucket and sign of every position, by the NumPy code that docs/sketches.md gives."""
    names: dict[str, Any] = {}
    exec(BLOCKS[-1], names)
    return names["buckets_and_signs"](size, seed, positions)


# --- the definition -------------------------------------------------------------------------------


def sketched(vector: Matrix, size: int, seed: int) -> Matrix:
    buckets, signs = definition(size, seed, np.arange(len(vector)))
    return np.bincount(buckets, weights=signs * vector, minlength=size)


@pytest.mark.parametrize("seed", [0, 1, 2**61 - 1])
@pytest.mark.parametrize(
    ("size", "n"),
    [(1, 300), (7, 7), (10, 3), (1000, 70_001), (65_536, 200_000), (2**17, 300_000)],
)
def test_a_sketch_is_what_its_definition_says(size, n, seed):
    vector = integers(n)
    row = ps.CountSketch(size, seed).apply([vector])
    assert row.dtype == torch.float32
    np.testing.assert_array_equal(row.numpy(), sketched(vector.numpy(), size, seed))


def test_the_format_stays():
    # Literals: whoever changes them must raise VERSION, or stored sketches are misread.
    row = ps.CountSketch(size=8, seed=7).apply([torch.arange(40.0)])
    assert row.tolist() == [42.0, -1.0, 8.0, 95.0, 16.0, 7.0, -20.0, -41.0]


def test_the_page_about_sketches_runs_as_written(tmp_path, monkeypatch, unchecked_types):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        names: dict[str, Any] = {}
        for block in BLOCKS:
            exec(block, names)
    K, error = names["gram"].K, names["error"]
    assert error.shape == K.shape == (40, 40)
    assert names["sketch"] == ps.CountSketch(size=4096, seed=0)


@pytest.mark.parametrize("device_is_a_processor", [True, False])
def test_words_that_are_hashed_again_give_the_same_signs(monkeypatch, device_is_a_processor):
    vector = integers(5 * 65_536 + 17)
    expected = ps.CountSketch(3000, 4).apply([vector])
    sketch = ps.CountSketch(3000, 4)
    monkeypatch.setattr(signs_module, "_GROUP", 2 * 65_536)
    monkeypatch.setattr(signs_module, "_KEPT_GROUPS", 1)
    if not device_is_a_processor:
        monkeypatch.setattr(signs_module, "_chunks_at_once", lambda device: 2)
    for _ in range(2):
        assert torch.equal(
            sketch.apply([vector[:1000]]), ps.CountSketch(3000, 4).apply([vector[:1000]])
        )
        assert torch.equal(sketch.apply([vector]), expected)
    assert len(sketch._signs._kept) == 1


# --- what the result does not depend on -----------------------------------------------------------


@given(st.lists(st.integers(0, 150_000), max_size=8), st.sampled_from([300, 65_536, 70_000]))
def test_cuts_into_tensors_change_nothing(cuts, size):
    vector = normal(150_000)
    edges = [0, *sorted(cuts), 150_000]
    parts = [vector[a:b] for a, b in itertools.pairwise(edges)]
    sketch = ps.CountSketch(size, 3)
    assert torch.equal(sketch.apply(parts), sketch.apply([vector]))


LAYOUTS = {
    "transposed": lambda: normal(400, 300).T,
    "long rows transposed": lambda: normal(100_000, 3).T,
    "long columns transposed": lambda: normal(3, 100_000).T,
    "every second": lambda: normal(200_000)[::2],
    "a column": lambda: normal(90_000, 2)[:, 1],
    "expanded": lambda: normal(300, 1).expand(300, 500),
    "channels last": lambda: normal(8, 16, 40, 40).to(memory_format=torch.channels_last),
    "one number": lambda: torch.tensor(2.5),
    "empty": lambda: torch.empty(0, 5),
    "a parameter": lambda: torch.nn.Parameter(normal(20, 30).T),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_nothing(layout):
    tensor = LAYOUTS[layout]()
    sketch = ps.CountSketch(5000, 3)
    before = normal(70)
    row = sketch.apply([before, tensor, before])
    assert torch.equal(row, sketch.apply([before, tensor.detach().contiguous(), before]))
    assert not row.requires_grad


def test_runs_of_tensors_on_several_devices_continue_at_their_columns(monkeypatch):
    parts = [normal(n, seed=n) for n in (10, 65_536, 70_000, 0, 3)]
    expected = ps.CountSketch(1000).apply(parts)
    monkeypatch.setattr(sketch_module, "_runs", lambda tensors: [[tensor] for tensor in tensors])
    assert torch.equal(ps.CountSketch(1000).apply(parts), expected)


def test_the_number_of_threads_changes_nothing():
    vector, sketch = normal(1_000_000), ps.CountSketch(65_536)
    before = torch.get_num_threads()
    rows = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            rows.append(sketch.apply([vector]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits_and_several_devices_the_same_numbers():
    parts = [normal(70_000), normal(1_500_000, seed=1), normal(300, 500, seed=2).T]
    sketch = ps.CountSketch(10_000)
    row = sketch.apply(parts)
    on_gpu = [part.cuda() for part in parts]
    assert torch.equal(sketch.apply(on_gpu).cpu(), row)
    mixed = sketch.apply([parts[0], on_gpu[1], parts[2]])
    assert mixed.device.type == "cpu"
    torch.testing.assert_close(mixed, row, rtol=1e-5, atol=1e-4)


# The checks of annotations draw from Python's generator themselves.
def test_no_generator_is_touched(unchecked_types):
    states = torch.get_rng_state(), random.getstate()
    sketch = ps.CountSketch(100)
    sketch.estimate(sketch.apply([normal(1000)]), torch.arange(5))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_is_rounded_to_float32_once(dtype):
    vector = normal(150_000).to(dtype)
    sketch = ps.CountSketch(20_000)
    row = sketch.apply([vector[:7], vector[7:]])
    assert row.dtype == torch.float32
    assert torch.equal(row, sketch.apply([vector.to(torch.float32)]))


def test_the_default_dtype_changes_nothing(float64_default):
    vector = normal(3000).double()
    row = ps.CountSketch(100).apply([vector])
    assert row.dtype == torch.float32
    torch.testing.assert_close(row.double(), torch.from_numpy(sketched(vector.numpy(), 100, 0)),
                               rtol=0, atol=30 * 2.0**-24 * 30 * 5)  # fmt: skip


def test_sums_are_linear_up_to_the_rounding_of_float32():
    a, b, sketch = normal(100_000), 1e3 * normal(100_000, seed=1), ps.CountSketch(1000)
    gap = sketch.apply([a + b]) - (sketch.apply([a]) + sketch.apply([b]))
    # 100 entries in a bucket, each sum of up to 100 terms rounded at every addition.
    largest = float(a.abs().max() + b.abs().max())
    assert gap.abs().max() <= 3 * 100 * 2.0**-24 * 100 * largest
    # Whole numbers are not rounded, and nothing is left.
    whole, other = integers(100_000), integers(2, 50_000).flatten()
    exact = sketch.apply([whole]) + sketch.apply([other])
    assert torch.equal(sketch.apply([whole + other]), exact)
    assert torch.equal(sketch.apply([-4 * whole]), -4 * sketch.apply([whole]))


def test_what_is_not_finite_stays_in_its_bucket():
    vector = normal(1000)
    sketch = ps.CountSketch(64, 5)
    clean = sketch.apply([vector])
    vector[[100, 900]] = torch.tensor([math.nan, math.inf])
    row = sketch.apply([vector])
    buckets, signs = definition(64, 5, np.array([100, 900]))
    assert buckets[0] != buckets[1]
    assert math.isnan(row[buckets[0]])
    assert row[buckets[1]] == signs[1] * math.inf
    others = [k for k in range(64) if k not in buckets]
    assert torch.equal(row[others], clean[others])


def test_scratch_memory_does_not_grow_with_the_model():
    largest = []
    for n in (2**20, 2**22):
        tensors = [normal(n // 4, 2).bfloat16().T, normal(n // 2)]
        sketch = ps.CountSketch(4096)
        sketch.apply(tensors)
        with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
            sketch.apply(tensors)
        largest.append(max(event.self_cpu_memory_usage for event in profile.events()))
    assert largest[0] == largest[1]
    assert 0 < largest[0] <= 300_000


# --- mean and variance ----------------------------------------------------------------------------


def variance(a: Matrix, b: Matrix, size: int) -> float:
    """The variance of <Sa, Sb> over signs and shifts, as the docstring of CountSketch gives it."""
    blocks = [slice(start, start + size) for start in range(0, len(a), size)]
    inner = [a[B] @ b[B] for B in blocks]
    squares = [(a[B] @ a[B]) * (b[B] @ b[B]) for B in blocks]
    total = (a @ a) * (b @ b) + (a @ b) ** 2
    return (total - sum(squares) - sum(i**2 for i in inner)) / size


def test_mean_and_variance_are_exact_over_all_signs_and_shifts():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 7))
    size = 3
    found = []
    for shifts in itertools.product(range(size), repeat=3):
        buckets = np.array([(i + shifts[i // size]) % size for i in range(7)])
        for signs in itertools.product((-1, 1), repeat=7):
            Sa = np.bincount(buckets, a * signs, size)
            found.append(Sa @ np.bincount(buckets, b * signs, size))
    assert np.mean(found) == pytest.approx(a @ b, rel=1e-12)
    assert np.var(found) == pytest.approx(variance(a, b, size), rel=1e-12)
    classic = ((a @ a) * (b @ b) + (a @ b) ** 2 - 2 * (a**2 @ b**2)) / size
    assert np.var(found) < classic


# Without the checks of annotations, which would take most of the time.
def test_inner_products_over_seeds_have_this_mean_and_variance(unchecked_types):
    n_seeds, size = 1500, 16
    generator = np.random.default_rng(1)
    # Blocks of unequal weight, and vectors that have something in common.
    weights = np.repeat([3.0, 1.0, 0.5, 1.0], size)
    a, b = generator.normal(size=(2, 64)) * weights
    b += a / 2
    rows = [ps.CountSketch(size, seed).apply for seed in range(n_seeds)]
    both = [(f([torch.from_numpy(a)]), f([torch.from_numpy(b)])) for f in rows]
    products = np.array([float(x @ y) for x, y in both])
    expected = variance(a, b, size)
    assert abs(products.mean() - a @ b) < 4 * math.sqrt(expected / n_seeds)
    squares = (products - a @ b) ** 2
    assert abs(squares.mean() - expected) < 4 * squares.std() / math.sqrt(n_seeds)
    bound = ps.CountSketch(size).standard_error(*(float(np.linalg.norm(v)) for v in (a, b)), a @ b)
    # Far enough apart that the test above tells the one from the other.
    assert bound**2 - expected > 8 * squares.std() / math.sqrt(n_seeds)


def test_a_vector_of_at_most_size_entries_is_only_shifted_and_signed():
    vector, sketch = normal(1000), ps.CountSketch(1000, 2)
    row = sketch.apply([vector])
    assert torch.equal(row.abs().sort().values, vector.abs().sort().values)
    assert torch.equal(sketch.estimate(row, torch.arange(1000)), vector)


def test_standard_error_takes_numbers_and_tensors():
    sketch = ps.CountSketch(100)
    assert sketch.standard_error(2, 3, 0) == pytest.approx(0.6)
    assert sketch.standard_error(2.0, 2.0, 4.0) == pytest.approx(4 * math.sqrt(2 / 100))
    norms, K = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    table = sketch.standard_error(norms[:, None], norms, K)
    torch.testing.assert_close(table, torch.tensor([[2.0, 4.0], [4.0, 32.0]]).sqrt() / 10)


# --- single entries -------------------------------------------------------------------------------


def test_estimates_read_the_bucket_of_an_entry_with_its_sign():
    indices = torch.tensor([0, 1, 2047, 2048, 65_535, 65_536, 10**6, 2**31 + 5, 10**12])
    row = normal(3, 777)
    sketch = ps.CountSketch(777, 9)
    buckets, signs = definition(777, 9, indices.numpy())
    expected = row[:, buckets] * torch.from_numpy(signs)
    assert torch.equal(sketch.estimate(row, indices), expected)
    assert torch.equal(sketch.estimate(row[0], indices), expected[0])


def test_estimates_are_unbiased_with_the_variance_of_the_other_blocks(unchecked_types):
    n_seeds, size = 600, 32
    vector = normal(128)
    vector[:32] *= 5
    indices = torch.tensor([3, 100])
    sketches = [ps.CountSketch(size, seed) for seed in range(n_seeds)]
    found = torch.stack([s.estimate(s.apply([vector]), indices) for s in sketches]).double()
    squared = vector.double() ** 2
    for column, index in enumerate(indices.tolist()):
        start = index // size * size
        expected = float(squared.sum() - squared[start : start + size].sum()) / size
        errors = found[:, column] - vector[index]
        assert abs(errors.mean()) < 4 * math.sqrt(expected / n_seeds)
        assert abs((errors**2).mean() - expected) < 4 * (errors**2).std() / math.sqrt(n_seeds)


# --- singular values ------------------------------------------------------------------------------


def orthogonal(*shape: int) -> torch.Tensor:
    return torch.linalg.qr(normal(*shape).double()).Q


def test_a_gram_of_sketches_is_within_its_standard_error():
    A, sketch = normal(12, 40_000), ps.CountSketch(4096)
    A += 0.3 * normal(40_000, seed=1)
    K = ps.gram(A).K
    found = ps.gram(torch.stack([sketch.apply([a]) for a in A])).K
    norms = K.diagonal().sqrt()
    z = ((found - K) / sketch.standard_error(norms[:, None], norms, K))[*torch.triu_indices(12, 12)]
    assert z.abs().max() < 4.5
    assert 0.5 < z.square().mean() < 1.7


def test_squared_singular_values_are_repelled_from_each_other(unchecked_types):
    """The bias of docs/sketches.md, in second order of the error of the Gram matrix."""
    size, n_seeds, n_blocks = 4096, 40, 8
    S = torch.cat([torch.tensor([12.0, 4.0, 2.5]), torch.linspace(1.2, 0.4, 37)]).double()
    U = orthogonal(40, 40)
    A = ((U * S) @ orthogonal(n_blocks * size, 40).T).float()
    excess = []
    for seed in range(n_seeds):
        sketch = ps.CountSketch(size, seed)
        K = ps.gram(torch.stack([sketch.apply([a]) for a in A])).K
        # Without the error of first order, which has mean zero and would hide the second.
        excess.append(torch.linalg.eigvalsh(K).flip(0) - (U * (K @ U)).sum(0))
    found, spread = torch.stack(excess).mean(0), torch.stack(excess).std(0) / math.sqrt(n_seeds)
    squared = S**2
    gaps = squared[:, None] - squared
    gaps.fill_diagonal_(math.inf)
    each = (squared[:, None] * squared / gaps / size * (1 - 1 / n_blocks)).sum(1)
    # The next order is smaller by about the largest relative error of an eigenvalue.
    allowed = 4 * spread + 0.15 * each.abs()
    assert (found - each).abs()[:3].le(allowed[:3]).all()
    energy = float(squared.sum() - squared[0]) / size * (1 - 1 / n_blocks)
    assert found[0] == pytest.approx(energy, rel=0.25)
    assert found[:3].min() > 0 > found[-5:].max()
    assert found.sum().abs() < 1e-4 * found[0]


# --- the quality of signs and shifts --------------------------------------------------------------


@pytest.fixture(scope="module")
def signs() -> list[Matrix]:
    """Signs of the first million entries, for four seeds."""
    found = []
    for seed in range(4):
        sketch = ps.CountSketch(N_SIGNS, seed)
        row = sketch.apply([torch.ones(N_SIGNS)])
        found.append(row.roll(-sketch._shifts[0]).numpy())
    return found


def threshold(n: int) -> float:
    """What the largest of n standard normal values exceeds in size with a probability of 1e-6."""
    return -torch.special.ndtri(torch.tensor(1e-6 / (2 * n), dtype=torch.float64)).item()


def walsh(values: Matrix) -> Matrix:
    """Products with all Walsh functions, each scaled to variance 1."""
    n = len(values)
    width = 1
    while width < n:
        pairs = values.reshape(-1, 2, width)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        width *= 2
    return values / math.sqrt(n)


def test_signs_are_balanced_and_no_parity_of_position_bits_predicts_them(signs):
    for values in signs:
        assert set(np.unique(values)) == {-1.0, 1.0}
        found = walsh(values)
        assert np.abs(found).max() < threshold(N_SIGNS)
        assert abs((found**2).mean() - 1) < 1e-5  # Parseval


def test_signs_at_any_distance_are_uncorrelated(signs):
    for values in signs:
        transform = np.fft.rfft(values, 2 * N_SIGNS)
        lags = np.arange(1, N_SIGNS // 2)
        found = np.fft.irfft(np.abs(transform) ** 2)[1 : N_SIGNS // 2] / np.sqrt(N_SIGNS - lags)
        assert np.abs(found).max() < threshold(len(lags))
        power = np.abs(transform[2:-2:2]) ** 2 / N_SIGNS
        assert power.max() < math.log(len(power) / 1e-6)  # exponential with mean 1


DISTANCES = [2**i for i in range(19)] + [10, 128 * 3, 784, 2048 * 3, 2048 * 31, 65_536 - 2048]


def test_products_of_four_signs_are_balanced(signs):
    pairs = [(d, e) for i, d in enumerate(DISTANCES) for e in DISTANCES[:i]]
    for values in signs[:2]:
        found = []
        for d, e in pairs:
            n = N_SIGNS - d - e
            products = values[:n] * values[d : d + n] * values[e : e + n] * values[d + e :]
            found.append(products.sum(dtype=np.float64) / math.sqrt(n))
        assert np.abs(found).max() < threshold(len(pairs))


@pytest.mark.parametrize("distance", [1, 64, 784, 2048, 65_536])
def test_products_of_two_signs_hold_no_parity_of_position_bits(signs, distance):
    products = signs[0] * np.roll(signs[0], distance)
    assert np.abs(walsh(products)).max() < threshold(N_SIGNS)


def test_seeds_are_independent_also_when_shifted(signs):
    for a, b in itertools.combinations(signs, 2):
        found = np.fft.irfft(np.fft.rfft(a) * np.fft.rfft(b).conj()) / math.sqrt(N_SIGNS)
        assert np.abs(found).max() < threshold(N_SIGNS)


def test_shifts_are_uniform_and_neighbours_independent():
    size, n = 12, 60_000
    sketch = ps.CountSketch(size, 1)
    shifts = sketch._shift(torch.arange(n))
    for distance in (1, 2, 64):
        counts = torch.bincount(shifts[:-distance] * size + shifts[distance:], minlength=size**2)
        expected = (n - distance) / size**2
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        # Mean 143, variance 286: six standard deviations.
        assert abs(chi2 - (size**2 - 1)) < 6 * math.sqrt(2 * (size**2 - 1))


# --- keeping and refusing -------------------------------------------------------------------------


def test_a_sketch_is_rebuilt_from_its_json(unchecked_types):
    sketch = ps.CountSketch(np.int64(300), seed=np.int32(8))
    content = json.loads(json.dumps(sketch.to_json()))
    assert content == {"method": "blocked CountSketch", "version": 1, "size": 300, "seed": 8}
    again = ps.CountSketch.from_json(content)
    vector = normal(1000)
    row = sketch.apply([vector])
    assert torch.equal(again.apply([vector]), row)
    assert again == sketch
    assert hash(again) == hash(sketch)
    assert repr(again) == "CountSketch(size=300, seed=8)"
    with pytest.raises(ValueError, match=r"version 1, but 'blocked CountSketch', version 2, arr"):
        ps.CountSketch.from_json({**content, "version": 2})
    with pytest.raises(ValueError, match=r"but None, version None, arrived\. Use the vers"):
        ps.CountSketch.from_json({"size": 300, "seed": 8})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "requires a size of at least 1, but 0 arrived"),
        ({"size": 2.5}, TypeError, "requires an integer size, but 2.5 arrived"),
        ({"seed": -1}, ValueError, r"requires a seed within 0 \.\.\. 2305843009213693951, but -1"),
        ({"seed": 2**61}, ValueError, "but 2305843009213693952 arrived"),
        ({"seed": None}, TypeError, "requires an integer seed, but None arrived"),
    ],
)
def test_bad_sizes_and_seeds_are_refused(unchecked_types, arguments, error, message):
    with pytest.raises(error, match=message):
        ps.CountSketch(**arguments)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ([], ValueError, "at least one tensor is required, but the list is empty"),
        (torch.ones(3), TypeError, r"a single tensor arrived. For one flat vector write apply\(\["),
        ([torch.ones(3), None], TypeError, "number 1 is NoneType"),
        ([torch.ones(3, dtype=torch.int64)], TypeError, r"number 0 is one of torch.int64. Conv"),
        ([torch.ones(3, dtype=torch.cfloat)], TypeError, "number 0 is one of torch.complex64"),
        ([torch.ones(3).to_sparse()], TypeError, "number 0 is one of layout torch.sparse_coo"),
    ],
)
def test_what_cannot_be_sketched_is_refused(unchecked_types, tensors, error, message):
    with pytest.raises(error, match=message):
        ps.CountSketch(4).apply(tensors)


def test_rows_of_another_sketch_and_negative_indices_are_refused(unchecked_types):
    sketch = ps.CountSketch(4)
    with pytest.raises(ValueError, match=r"sketches of 4 buckets .* rows of shape \(2, 5\)"):
        sketch.estimate(torch.ones(2, 5), torch.tensor([0]))
    with pytest.raises(ValueError, match="columns of the flat vector from 0, but -1 arrived"):
        sketch.estimate(torch.ones(4), torch.tensor([3, -1]))
