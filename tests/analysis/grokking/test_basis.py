import math

import pytest
import torch

from analysis.grokking import slow
from phasescope.analysis.grokking import (
    component_norms,
    fourier_basis,
    fourier_components,
    frequency_power,
)

GROUPS = [(1,), (2,), (5,), (6,), (113,), (112,), (2, 2), (4, 3), (2, 2, 3), (6, 4)]


@pytest.mark.parametrize("orders", GROUPS)
def test_the_basis_is_orthonormal_and_complete(orders: tuple[int, ...]):
    basis = fourier_basis(orders)
    n = math.prod(orders)
    torch.testing.assert_close(
        basis.rows @ basis.rows.T, torch.eye(n, dtype=torch.float64), atol=1e-13, rtol=0
    )


@pytest.mark.parametrize("orders", GROUPS)
def test_a_shift_of_the_group_moves_no_power_between_frequencies(orders: tuple[int, ...]):
    basis = fourier_basis(orders)
    values = slow.random_values(len(basis))
    shifted = values[basis.sums[len(basis) // 2]]
    torch.testing.assert_close(frequency_power(basis, shifted), frequency_power(basis, values))


@pytest.mark.parametrize("orders", [(5,), (6,), (4, 3), (2, 2, 3)])
def test_sums_and_differences_undo_each_other(orders: tuple[int, ...]):
    basis = fourier_basis(orders)
    n = len(basis)
    for j in range(n):
        assert torch.equal(basis.differences[basis.sums[:, j], j], torch.arange(n))
    assert torch.equal(basis.sums, basis.sums.T)


def test_a_cyclic_group_counts_places_modulo_its_order():
    basis = fourier_basis((6,))
    assert basis.sums[4].tolist() == [4, 5, 0, 1, 2, 3]
    assert basis.differences[1].tolist() == [1, 0, 5, 4, 3, 2]


def test_even_orders_have_the_alternating_row_and_it_is_alone():
    basis = fourier_basis((112,))
    assert basis.n_frequencies == 56
    rows = basis.rows_of([56])
    assert len(rows) == 1
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(56)
    torch.testing.assert_close(basis.rows[rows[0]], signs / 112**0.5)
    assert fourier_basis((113,)).rows_of([56]).tolist() == [111, 112]


@pytest.mark.parametrize("n", [9, 10])
def test_the_power_of_frequencies_is_that_of_the_fast_fourier_transform(n: int):
    values = slow.random_values(n)
    spectrum = torch.fft.rfft(values).abs().square() / n
    twice = torch.full_like(spectrum, 2.0)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    torch.testing.assert_close(frequency_power(fourier_basis((n,)), values), twice * spectrum)


def test_components_keep_the_sum_of_squares_and_any_further_axes():
    basis, values = fourier_basis((4, 3)), slow.random_values(12, 3, 2)
    components = fourier_components(basis, values)
    assert components.shape == values.shape
    torch.testing.assert_close(components.square().sum(0), values.square().sum(0))
    torch.testing.assert_close(component_norms(basis, values), components.flatten(1).norm(dim=1))


def test_harmonics_fold():
    basis = fourier_basis((59,))
    assert [basis.multiple(k, 2) for k in (3, 15, 17)] == [6, 29, 25]
    assert fourier_basis((6,)).multiple(3, 2) == 0
    product = fourier_basis((4, 3))
    assert product.exponents[product.multiple(1, 2)] == (0, 1)  # (0, 2) is its conjugate
    assert product.label(1) == "0,1"


def test_orders_that_make_no_group_are_refused():
    with pytest.raises(ValueError, match="at least one and each at least 1"):
        fourier_basis(())


def test_a_frequency_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"0 to 2, but \[3\] arrived. Fold"):
        fourier_basis((5,)).rows_of([1, 3])


def test_values_of_another_group_are_refused(unchecked_types: None):
    with pytest.raises(ValueError, match=r"5 places .* shape \(6,\).*on_logits"):
        fourier_components(fourier_basis((5,)), torch.ones(6))
