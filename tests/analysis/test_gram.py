"""The one-pass Gram matrix: against single inner products, over sources, memory and components."""

import numpy as np
import pytest
import torch

from analysis import reference
from phasescope.analysis.columns import source
from phasescope.analysis.gram import gram
from phasescope.analysis.products import full_precision
from phasescope.parameters import Component, ParameterTable

SHAPE = (13, 10_000)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class FakeSeries:
    """What a recorded run offers, without a run: float32, steps, direct column reads."""

    def __init__(self, values: np.ndarray, steps: np.ndarray, chunk_columns: int = 4096) -> None:
        self.values, self.steps, self.chunk_columns = values, steps, chunk_columns
        self.parameters = ParameterTable(("weight", "bias"), ((values.shape[1] - 3,), (3,)))
        self.reads: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> type:
        return np.float32

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        assert key[0].stop - key[0].start == 1, "blocks must come through read_columns"
        return self.values[key]

    def read_columns(self, start: int, stop: int, out: np.ndarray) -> None:
        assert out.flags.c_contiguous
        assert out.shape == (self.shape[0], stop - start)
        self.reads.append((start, stop))
        out[:] = self.values[:, start:stop]


class SlicedSeries(FakeSeries):
    """A series whose blocks come by slicing: where float64 is wanted, it has no other way."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__(values, np.arange(len(values)))

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        return self.values[key]

    def read_columns(self, start: int, stop: int, out: np.ndarray) -> None:
        assert out.dtype == np.float32
        super().read_columns(start, stop, out)


def test_gram_equals_single_inner_products_in_float64():
    A = noise(*SHAPE, dtype=torch.float64)
    result = gram(A)
    torch.testing.assert_close(result.K, reference.gram_matrix(A), rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(result.row_sums, A.sum(1), rtol=1e-12, atol=1e-11)
    assert result.n_columns == SHAPE[1]
    assert result.steps.tolist() == list(range(13))
    assert result.eps == torch.finfo(torch.float64).eps


def test_float32_products_are_accurate_to_their_rounding_and_float64_shrinks_the_gap():
    A = noise(*SHAPE)
    exact = reference.gram_matrix(A)
    scale = exact.diagonal().sqrt()
    error = lambda K: ((K - exact) / (scale * scale[:, None])).abs().max().item()  # noqa: E731
    assert 1e-12 < error(gram(A).K) < 4e-7
    assert error(gram(A.double()).K) < 1e-14


def test_float64_products_of_float32_data_are_exact_wherever_the_data_lie(tmp_path):
    import zarr

    A = noise(*SHAPE)
    exact = gram(A.double())
    stored = zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=(5, 1000), dtype="f4")
    stored[:] = A.numpy()
    for data in (A, A.numpy(), stored, SlicedSeries(A.numpy())):
        found = gram(data, dtype=torch.float64)
        torch.testing.assert_close(found.K, exact.K, rtol=1e-13, atol=1e-11)
        torch.testing.assert_close(found.row_sums, exact.row_sums, rtol=1e-13, atol=1e-11)
        assert found.eps == torch.finfo(torch.float64).eps


def test_float32_products_of_float64_data_are_those_of_the_rounded_data():
    A = noise(*SHAPE, dtype=torch.float64)
    found = gram(A, dtype=torch.float32)
    assert torch.equal(found.K, gram(A.float()).K)
    assert found.eps == torch.finfo(torch.float32).eps


def test_buffers_of_float64_products_count_twice_and_a_series_needs_a_copy():
    series = SlicedSeries(noise(10, 30_000).numpy())
    narrow, wide = source(series), source(series, dtype=torch.float64)
    memory = 10 * 4 * 2 * 12_288
    assert (narrow.width(memory), wide.width(memory)) == (12_288, 4096)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_products_of_another_dtype_are_refused(dtype: torch.dtype):
    with pytest.raises(ValueError, match=rf"torch.float32 or torch.float64, but dtype={dtype}"):
        gram(torch.ones(2, 3), dtype=dtype)


@pytest.mark.parametrize("n_steps", [1, 199, 200, 201, 433])
def test_stripes_of_the_lower_triangle_give_the_whole_symmetric_matrix(n_steps: int):
    A = noise(n_steps, 37, dtype=torch.float64)
    K = gram(A).K
    torch.testing.assert_close(K, A @ A.T, rtol=1e-13, atol=1e-12)
    assert torch.equal(K, K.T)


def test_tensor_numpy_memmap_zarr_and_series_agree(tmp_path):
    import zarr

    A = noise(*SHAPE).numpy()
    mapped = np.memmap(tmp_path / "a", np.float32, "w+", shape=SHAPE)
    mapped[:] = A
    stored = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, chunks=(5, 1000), dtype="f4")
    stored[:] = A
    frozen = A.copy()
    frozen.flags.writeable = False
    whole = gram(torch.from_numpy(A)).K
    series = FakeSeries(A, np.arange(13))
    for other in (A, frozen, A.astype(">f4"), np.asfortranarray(A), mapped, stored, series):
        torch.testing.assert_close(gram(other).K, whole, rtol=0, atol=4e-7 * SHAPE[1])
    assert series.reads == [(0, 10_000)]


def test_steps_come_from_the_series():
    series = FakeSeries(noise(3, 20).numpy(), np.array([0, 10, 70]))
    assert gram(series).steps.tolist() == [0, 10, 70]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_tensors_are_multiplied_as_float32(dtype: torch.dtype):
    A = noise(4, 5000).to(dtype)
    torch.testing.assert_close(gram(A).K, gram(A.float()).K, rtol=0, atol=0)


def test_tensors_that_require_gradients_and_transposed_ones_are_fine():
    A = noise(50, 3).requires_grad_()
    torch.testing.assert_close(gram(A.T).K, (A.T @ A).detach().double(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("memory", [16_000, 60_000, 10**9])
def test_memory_changes_blocks_but_not_the_result(memory: int):
    A = noise(13, 30_000, dtype=torch.float64).numpy()
    A.flags.writeable = False  # read in blocks rather than viewed
    torch.testing.assert_close(
        gram(A, memory=memory).K, gram(torch.tensor(A)).K, rtol=1e-13, atol=1e-11
    )


def test_memory_bounds_the_width_and_chunks_are_read_whole_where_they_fit():
    series = FakeSeries(noise(10, 30_000).numpy(), np.arange(10), chunk_columns=1000)
    view = source(series)
    for memory, width in ((10**9, 16_000), (10 * 4 * 2 * 2500, 2000), (10 * 4 * 2 * 700, 700)):
        assert view.width(memory) == width
    assert view.width(10 * 4 * 2 * 2500, reserved=10 * 4 * 2 * 1500) == 1000
    with pytest.raises(ValueError, match=r"needs memory >= 5,120 bytes.*memory=5,119 arrived"):
        view.width(5119)


def test_column_order_does_not_matter():
    A = noise(6, 9000, dtype=torch.float64)
    order = torch.randperm(9000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(gram(A[:, order]).K, gram(A).K, rtol=1e-12, atol=1e-11)


def test_progress_rises_to_one():
    seen: list[float] = []
    gram(noise(2, 40_000), progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) == 3
    assert seen[-1] == 1.0


def test_components_equal_explicit_slices_also_when_they_overlap_or_leave_gaps():
    A = noise(7, 20_000, dtype=torch.float64)
    head = tuple((i, i + 3) for i in range(50, 18_000, 40))
    components = {
        "first": Component("first", ((0, 9000),)),
        "middle": Component("middle", ((5000, 17_001),)),
        "head": Component("head", head),
        "bias": Component("bias", ((19_996, 20_000),)),
    }
    result = gram(A, components=components)
    assert list(result.components) == list(components)
    for name, component in components.items():
        part = torch.cat([A[:, a:b] for a, b in component.intervals], dim=1)
        found = result.components[name]
        torch.testing.assert_close(found.K, part @ part.T, rtol=1e-12, atol=1e-11)
        torch.testing.assert_close(found.row_sums, part.sum(1), rtol=1e-11, atol=1e-11)
        assert found.n_columns == component.size
    torch.testing.assert_close(result.K, A @ A.T, rtol=1e-12, atol=1e-11)
    assert result.n_columns == 20_000


def test_components_of_a_stream_equal_those_of_a_tensor():
    A = noise(7, 20_000, dtype=torch.float64).numpy()
    component = {"c": Component("c", ((3, 5), (1000, 15_000)))}
    expected = gram(torch.tensor(A), components=component).components["c"].K
    A.flags.writeable = False
    streamed = gram(A, components=component, memory=600_000).components["c"].K
    torch.testing.assert_close(streamed, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("component", [Component("far", ((5, 11),)), Component("empty", ())])
def test_impossible_components_are_refused(component: Component):
    with pytest.raises(ValueError, match=r"within 0 ... 9 of the matrix, but 'c'"):
        gram(torch.ones(2, 10), components={"c": component})


def test_reduced_precision_of_the_training_does_not_reach_the_products():
    A = noise(20, 5000)
    expected = gram(A).K
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(gram(A).K, expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_full_precision_is_undone_after_an_error():
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), full_precision():
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_gives_the_same_products():
    A = noise(30, 20_000)
    torch.testing.assert_close(gram(A, device="cuda").K, gram(A).K, rtol=1e-6, atol=1e-2)
    assert gram(A.cuda()).K.device.type == "cpu"


def test_an_error_of_the_reader_reaches_the_caller():
    series = FakeSeries(noise(3, 20_000).numpy(), np.arange(3))

    def fail(start: int, stop: int, out: np.ndarray) -> None:
        raise OSError(f"columns {start} to {stop} are gone")

    series.read_columns = fail
    with pytest.raises(OSError, match="columns 0 to 16384 are gone"):
        gram(series)


@pytest.mark.parametrize("shape", [(5,), (0, 4), (4, 0), (2, 3, 4)])
def test_shapes_that_are_not_a_filled_matrix_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"at least one step and one parameter.*arrived"):
        gram(torch.ones(shape))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_possible_bfloat16_codes_are_refused(dtype: type):
    with pytest.raises(TypeError, match=r"raw bfloat16 codes.*open_run\(path\).gradients"):
        gram(np.ones((2, 3), dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_values_that_are_not_real_floats_are_refused(dtype: torch.dtype):
    with pytest.raises(TypeError, match=f"dtype {dtype} arrived. Convert it"):
        gram(torch.ones(2, 3, dtype=dtype))


def test_steps_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match=r"3 strictly increasing steps.*begins \[0, 2, 2\]"):
        gram(FakeSeries(noise(3, 20).numpy(), np.array([0, 2, 2])))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_step_and_parameter(value: float):
    A = noise(3, 20_000).numpy()
    A[1, 19_998] = value
    message = rf"step 10 \(row 1\) holds {value} in column 19998 of parameter 'bias'; 1 of 3 steps"
    with pytest.raises(ValueError, match=message):
        gram(FakeSeries(A, np.array([0, 10, 20])))
    with pytest.raises(ValueError, match=r"step 1 \(row 1\).* in column 19998; 1 of 3"):
        gram(torch.tensor(A))


def test_overflow_of_finite_values_is_not_called_nan():
    A = noise(3, 100)
    A[2] *= 1e25
    with pytest.raises(ValueError, match=r"squares of step 2 \(row 2\) overflow.*pass float64"):
        gram(A)
    assert gram(A.double()).K.isfinite().all()
