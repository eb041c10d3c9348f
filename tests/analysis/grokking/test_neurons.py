import math

import pytest
import torch

from analysis.grokking import slow
from phasescope.analysis.grokking import (
    cube_fit,
    fourier_basis,
    keys_by_energy,
    keys_by_neuron_argmax,
    keys_by_neuron_clusters,
    keys_by_norms,
    keys_by_similarity,
    logit_map_residual,
    neuron_purity,
    pair_components,
    read_off,
)


@pytest.mark.parametrize("n", [7, 8])
def test_shares_are_those_of_blocks_written_out(n: int):
    activations = slow.random_values(n, n, 70).relu()  # more than one chunk of neurons
    purity = neuron_purity(fourier_basis((n,)), activations)
    for k in range(1, n // 2 + 1):
        torch.testing.assert_close(purity.shares[k - 1], slow.purity(activations, k))


@pytest.mark.parametrize("n", [7, 8])
def test_the_part_in_the_sum_is_a_projection_onto_its_waves(n: int):
    activations = slow.random_values(n, n, 5)
    purity = neuron_purity(fourier_basis((n,)), activations)
    total = (activations - activations.mean((0, 1))).square().sum((0, 1))
    for k in range(1, n // 2 + 1):
        part = slow.projected(activations, slow.sum_directions(n, [k]))
        torch.testing.assert_close(purity.sum_shares[k - 1], part.square().sum((0, 1)) / total)


@pytest.mark.parametrize("orders", [(4, 3), (2, 2, 2)])
def test_shares_of_a_product_group_sum_to_one_for_products_of_equal_characters(orders):
    basis = fourier_basis(orders)
    k = basis.n_frequencies
    row = int(basis.rows_of([k])[0])
    purity = neuron_purity(basis, basis.rows[row][basis.sums][..., None] + 3)
    assert purity.frequency.tolist() == [k]
    assert purity.fve.item() == pytest.approx(1.0)


def test_the_highest_frequency_is_looked_at():
    wave = slow.waves(113, 56, slow.pair_sums(113))[0][..., None]
    assert neuron_purity(fourier_basis((113,)), wave).frequency.tolist() == [56]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_neurons_have_no_frequency_and_are_counted(dtype: torch.dtype):
    basis = fourier_basis((7,))
    wave = slow.waves(7, 2, slow.pair_sums(7))[0]
    activations = torch.stack([torch.zeros(7, 7), wave, torch.full((7, 7), 0.1)], -1).to(dtype)
    purity = neuron_purity(basis, activations)
    assert purity.frequency.tolist() == [-1, 2, -1]
    assert purity.n_constant == 2
    assert math.isnan(purity.fve[0])
    assert purity.clusters().tolist() == [-1, 2, -1]
    assert purity.counts() == {2: 1}
    assert keys_by_neuron_argmax(basis, purity).found == (2,)


def test_rules_over_neurons_differ_by_their_thresholds():
    basis = fourier_basis((11,))
    waves = {k: slow.waves(11, k, slow.pair_sums(11))[0] for k in range(1, 6)}
    neurons = [waves[2]] * 30 + [waves[5]] + [waves[1] + waves[3] + 1.1 * waves[4]]
    purity = neuron_purity(basis, torch.stack(neurons, -1))
    assert keys_by_neuron_argmax(basis, purity).found == (2, 4, 5)
    assert keys_by_neuron_clusters(basis, purity).found == (2, 5)
    assert keys_by_neuron_clusters(basis, purity, min_share=0.05).found == (2,)


def test_harmonics_are_told_apart_by_strength():
    basis = fourier_basis((59,))
    strengths = {3: 1.0, 15: 1.1, 17: 0.9, 6: 0.4, 29: 0.35, 25: 0.3}
    W_E = torch.zeros(59, 6, dtype=torch.float64)
    for column, (k, strength) in enumerate(strengths.items()):
        W_E[:, column] = strength * slow.waves(59, k, torch.arange(59))[1]
    found = keys_by_norms(basis, W_E + 100)  # the constant decides nothing
    assert found.found == (3, 6, 15, 17, 25, 29)
    assert found.harmonics == (6, 25, 29)
    assert found.base == (3, 15, 17)
    stronger = keys_by_norms(basis, W_E[:, [0, 3]] * torch.tensor([1.0, 4.0]))
    assert stronger.harmonics == ()  # 6 is the stronger one: 3 is not twice 6


def test_rules_over_cubes():
    n, basis = 11, fourier_basis((11,))
    logits = 10 * slow.cube(n, 2) + 3 * slow.cube(n, 4) + 0.03 * slow.cube(n, 1)
    fit = cube_fit(basis, logits)
    assert keys_by_energy(basis, fit).found == (2, 4)
    assert keys_by_energy(basis, fit, threshold=0.9).found == (2,)
    assert keys_by_energy(basis, fit).harmonics == (4,)
    assert keys_by_similarity(basis, fit).found == (2, 4)
    assert keys_by_similarity(basis, fit, threshold=1e-3).found == (1, 2, 4)
    assert keys_by_energy(basis, cube_fit(basis, torch.ones(n, n, n))).found == ()


def test_the_residual_of_the_logit_map_is_in_norms():
    basis = fourier_basis((7,))
    W_L = 3 * basis.rows[1:2] + 4 * basis.rows[0]
    assert logit_map_residual(basis, W_L, [1]) == pytest.approx(0.8)


def test_read_off_of_a_wave_and_of_noise():
    n, basis = 9, fourier_basis((9,))
    wave = slow.waves(n, 2, slow.pair_sums(n))[0][..., None]
    noise = slow.random_values(n, n, 1)
    noise = (noise - noise.mean()) / (noise - noise.mean()).norm()
    W_L = basis.rows[3:4]  # cos 2
    assert read_off(basis, wave, W_L, [2]).fve[0].item() == pytest.approx(1.0)
    assert read_off(basis, noise, W_L, [2]).fve[0].item() < 0.1
    both = read_off(basis, 0.6 * wave + 0.8 * noise, W_L, [2])
    projection = (wave * (0.6 * wave + 0.8 * noise)).sum() ** 2
    assert both.fve[0].item() == pytest.approx(
        (projection / (0.6 * wave + 0.8 * noise).square().sum()).item()
    )


def test_principal_components_are_a_singular_value_decomposition():
    values = slow.random_values(5, 5, 4)
    found = pair_components(values, 3)
    flat = values.flatten(0, 1)
    U, S, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    torch.testing.assert_close(found.S, S)
    overlaps = (found.scores.flatten(0, 1).T @ U[:, :3]).abs()
    torch.testing.assert_close(overlaps, torch.eye(3, dtype=torch.float64), atol=1e-10, rtol=0)
