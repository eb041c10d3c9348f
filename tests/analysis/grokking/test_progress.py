"""Projections, losses and cubes against waves that are written out, and in every basis."""

import math

import pytest
import torch

from analysis.grokking import slow
from phasescope.analysis.grokking import (
    cube_fit,
    difference_profile,
    direction_energy,
    excluded_logits,
    excluded_loss_per_frequency,
    excluded_neuron_logits,
    fourier_basis,
    on_sums,
    pair_losses,
    restricted_logits,
    restricted_neuron_logits,
    result_places,
    sum_profile,
    without_cubes,
)
from phasescope.datasets import (
    commutative_coordinates,
    cyclic_group,
    group_task,
    modular_task,
    product_group,
)

ORDERS = [7, 8]  # odd; even, with a frequency that has no sine
KEYS = {7: [1, 3], 8: [1, 4]}


def planted(n: int, amplitudes: dict[int, float], noise: float = 0.0) -> torch.Tensor:
    """Logits that are waves in a + b - c, and noise."""
    raw = {k: math.sqrt(n**3 if 2 * k == n else n**3 / 2) for k in amplitudes}
    logits = sum(amplitudes[k] * raw[k] * slow.cube(n, k) for k in amplitudes)
    return logits + noise * slow.random_values(n, n, n)


@pytest.mark.parametrize("n", ORDERS)
def test_restricted_and_excluded_logits_are_projections_onto_waves_in_the_sum(n: int):
    basis, logits, keys = fourier_basis((n,)), slow.random_values(n, n, 5), KEYS[n]
    part = slow.projected(logits, slow.sum_directions(n, keys))
    torch.testing.assert_close(restricted_logits(basis, logits, keys), part + logits.mean((0, 1)))
    torch.testing.assert_close(excluded_logits(basis, logits, keys), logits - part)


@pytest.mark.parametrize("n", ORDERS)
def test_the_constant_is_no_key(n: int):
    basis, logits, keys = fourier_basis((n,)), slow.random_values(n, n, 5) + 3, KEYS[n]
    post, W_L = slow.random_values(n, n, 6) + 3, slow.random_values(6, 5)
    for variant in ("nanda", "2x2"):
        wanted = restricted_logits(basis, logits, keys, variant)
        torch.testing.assert_close(restricted_logits(basis, logits, [0, *keys], variant), wanted)
    for function, values in (
        (excluded_logits, (logits,)),
        (restricted_neuron_logits, (post, W_L, logits)),
        (excluded_neuron_logits, (post, W_L, logits)),
    ):
        found, wanted = (function(basis, *values, k) for k in ([0, *keys], keys))
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("variant", ["2x2", "3x3"])
def test_block_variants_keep_products_of_the_operands_waves(n: int, variant: str):
    basis, logits, keys = fourier_basis((n,)), slow.random_values(n, n, 5), KEYS[n]
    centred = logits - logits.mean((0, 1))
    waves = [w for k in keys for w in slow.product_directions(n, k, with_constant=False)]
    if variant == "3x3":  # and what depends on one operand alone, once for every key
        one = torch.full((n,), n**-0.5, dtype=torch.float64)
        for k in keys:
            for wave in slow.waves(n, k, torch.arange(n)):
                waves += [torch.outer(wave, one), torch.outer(one, wave)]
    kept = slow.projected(centred, waves) + logits.mean((0, 1))
    torch.testing.assert_close(restricted_logits(basis, logits, keys, variant), kept)


def test_another_variant_is_refused(unchecked_types: None):
    with pytest.raises(ValueError, match="'nanda', '2x2' or '3x3', but '4x4'"):
        restricted_logits(fourier_basis((5,)), slow.random_values(5, 5, 5), [1], "4x4")


@pytest.mark.parametrize("n", ORDERS)
def test_neuron_variants_project_activations_and_keep_the_path_around_them(n: int):
    basis, keys = fourier_basis((n,)), KEYS[n]
    neurons, W_L = slow.random_values(n, n, 6), slow.random_values(6, n, seed=1)
    logits = neurons @ W_L + slow.random_values(n, n, n, seed=2)
    part = slow.projected(neurons, slow.sum_directions(n, keys)) @ W_L
    torch.testing.assert_close(
        restricted_neuron_logits(basis, neurons, W_L, logits, keys), part + logits.mean((0, 1))
    )
    torch.testing.assert_close(
        excluded_neuron_logits(basis, neurons, W_L, logits, keys), logits - part
    )


@pytest.mark.parametrize("n", ORDERS)
def test_a_path_of_one_operand_at_a_time_makes_neuron_and_logit_variants_equal(n: int):
    basis, keys = fourier_basis((n,)), KEYS[n]
    neurons, W_L = slow.random_values(n, n, 6), slow.random_values(6, n, seed=1)
    around = slow.random_values(n, 1, n, seed=2) + slow.random_values(1, n, n, seed=3)
    logits = neurons @ W_L + around
    torch.testing.assert_close(
        restricted_neuron_logits(basis, neurons, W_L, logits, keys),
        restricted_logits(basis, logits, keys),
    )


@pytest.mark.parametrize("n", ORDERS)
def test_losses_are_cross_entropies_of_the_chosen_pairs(n: int):
    logits, labels = 3 * slow.random_values(n, n, n), slow.pair_sums(n) % n
    train = slow.random_values(n, n, seed=4) > 0
    found = pair_losses(logits, labels, {"train": train, "all": labels >= 0})
    expected = slow.cross_entropy(logits, labels)
    assert found["train"].loss == pytest.approx(expected[train].mean().item(), rel=1e-13)
    assert found["all"].loss == pytest.approx(expected.mean().item(), rel=1e-13)
    assert found["train"].n_pairs == int(train.sum())
    correct = (logits.argmax(-1) == labels)[train].double().mean()
    assert found["train"].accuracy == pytest.approx(correct.item())


def test_pairs_without_a_result_count_nowhere_and_an_empty_split_is_nan():
    labels = torch.tensor([[0, -1], [1, 0]])
    found = pair_losses(
        slow.random_values(2, 2, 2), labels, {"all": labels > -2, "none": labels > 5}
    )
    assert found["all"].n_pairs == 3
    assert math.isnan(found["none"].loss)


@pytest.mark.parametrize("n", ORDERS)
@pytest.mark.parametrize("scale", [3.0, 2e3])  # within and beyond the range of exponentials
def test_losses_without_one_frequency_equal_those_computed_one_by_one(n: int, scale: float):
    basis, labels = fourier_basis((n,)), slow.pair_sums(n) % n
    logits = scale * slow.random_values(n, n, n)
    train = slow.random_values(n, n, seed=4) > 0
    labels = labels.masked_fill(slow.random_values(n, n, seed=5) > 1.5, -1)
    found = excluded_loss_per_frequency(basis, logits, labels, train)
    for k in range(1, basis.n_frequencies + 1):
        alone = excluded_logits(basis, logits, [k])
        expected = pair_losses(alone, labels, {"train": train})["train"].loss
        assert found[k - 1].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [7, 8, 12])
def test_planted_logits_recover_their_coefficients(n: int):
    amplitudes = {1: 2.0, 3: 0.5, n // 2: -1.0}
    fit = cube_fit(fourier_basis((n,)), planted(n, amplitudes) + 5)
    raw = [math.sqrt(n**3 if 2 * k == n else n**3 / 2) for k in range(n // 2 + 1)]
    expected = [amplitudes.get(k, 0.0) * raw[k] for k in range(1, n // 2 + 1)]
    assert fit.coefficients[1:].tolist() == pytest.approx(expected, abs=1e-11)
    assert fit.sine_coefficients.abs().max().item() < 1e-11
    assert fit.fve == pytest.approx(1.0)
    assert fit.coefficients[0].item() == pytest.approx(5 * n**1.5)
    of_one = fit.fve_of([1])
    assert of_one == pytest.approx(fit.coefficients[1].item() ** 2 / sum(x * x for x in expected))


@pytest.mark.parametrize("n", ORDERS)
def test_the_cheap_cube_coefficients_are_those_of_cubes_written_out(n: int):
    logits = slow.random_values(n, n, n) + 2
    fit = cube_fit(fourier_basis((n,)), logits)
    cubes = [slow.cube(n, k) for k in range(1, n // 2 + 1)]
    coefficients = [(logits * cube).sum().item() for cube in cubes]
    assert fit.coefficients[1:].tolist() == pytest.approx(coefficients, abs=1e-11)
    left = logits - sum(x * cube for x, cube in zip(coefficients, cubes, strict=True))
    centred = logits - logits.mean()
    fve = 1 - (left - left.mean()).square().sum() / centred.square().sum()
    assert fit.fve == pytest.approx(fve.item(), abs=1e-13)
    assert fit.residual == pytest.approx((left.norm() / logits.norm()).item())
    one_out = logits - coefficients[0] * cubes[0]
    torch.testing.assert_close(without_cubes(fourier_basis((n,)), logits, [1]), one_out)


def test_shares_of_frequencies_count_each_once_and_refuse_the_constant():
    fit = cube_fit(fourier_basis((7,)), planted(7, {1: 3.0, 2: 4.0}) + 1)
    assert fit.fve_of([1]) == pytest.approx(9 / 25)
    assert fit.fve_of([2, 1, 1]) == pytest.approx(1)
    for wrong in (0, -1, 4):
        with pytest.raises(ValueError, match=rf"from 1 to 3, but \[{wrong}\] arrived"):
            fit.fve_of([wrong])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_of_constant_logits_there_are_no_shares(value: float):
    basis, logits = fourier_basis((5,)), torch.full((5, 5, 5), value)
    energy, fit = direction_energy(basis, logits), cube_fit(basis, logits)
    assert energy.total == 0
    assert math.isnan(energy.sum_share)
    assert math.isnan(energy.difference_share)
    assert math.isnan(fit.fve)
    assert math.isnan(fit.residual) if value == 0 else fit.residual == pytest.approx(1)


def test_restricted_loss_is_the_full_one_as_noise_vanishes_and_excluded_is_chance():
    n, basis = 11, fourier_basis((11,))
    labels = basis.sums
    gaps = []
    for noise in (1e-1, 1e-4):
        logits = planted(n, {2: 8.0, 5: 6.0}, noise)
        full = pair_losses(logits, labels, {"all": labels >= 0})["all"].loss
        kept = restricted_logits(basis, logits, [2, 5])
        gaps.append(abs(pair_losses(kept, labels, {"all": labels >= 0})["all"].loss - full))
    assert gaps[1] < 1e-6 * max(1.0, gaps[0])
    rest = excluded_logits(basis, planted(n, {2: 8.0, 5: 6.0}, 0.0), [2, 5])
    loss = pair_losses(rest, labels, {"all": labels >= 0})["all"].loss
    assert loss == pytest.approx(math.log(n), abs=1e-12)


@pytest.mark.parametrize("n", ORDERS)
def test_profiles_are_means_over_equal_sums_and_differences(n: int):
    values, i = slow.random_values(n, n, 2), torch.arange(n)
    basis = fourier_basis((n,))
    for s in range(n):
        equal_sum = (i[:, None] + i) % n == s
        equal_difference = (i[:, None] - i) % n == s
        torch.testing.assert_close(sum_profile(basis, values)[s], values[equal_sum].mean(0))
        torch.testing.assert_close(
            difference_profile(basis, values)[s], values[equal_difference].mean(0)
        )


@pytest.mark.parametrize("n", ORDERS)
def test_energy_along_sums_and_differences(n: int):
    basis, values = fourier_basis((n,)), slow.random_values(n, n, 3)
    energy = direction_energy(basis, values)
    centred = values - values.mean((0, 1))
    assert energy.total == pytest.approx(centred.square().sum().item())
    i = torch.arange(n)
    for k in range(1, n // 2 + 1):
        sums = slow.projected(values, slow.waves(n, k, i[:, None] + i)).square().sum()
        differences = slow.projected(values, slow.waves(n, k, i[:, None] - i)).square().sum()
        assert energy.sum[k].item() == pytest.approx(sums.item())
        assert energy.difference[k].item() == pytest.approx(differences.item())


def coefficients_in(task_name: str, n: int, root: int | None = None) -> list[float]:
    """Coefficients of ideal logits of a task, one wave for each label, in its own coordinates."""
    from phasescope.datasets import modular_coordinates

    task = modular_task(task_name, n)  # pyright: ignore[reportArgumentType]
    coordinates = modular_coordinates(task_name, n, root=root)  # pyright: ignore[reportArgumentType]
    order = len(coordinates)
    basis = fourier_basis(coordinates.orders)
    reference = modular_coordinates(task_name, n)  # pyright: ignore[reportArgumentType]
    labels = result_places(task, reference)
    wave = slow.waves(order, 2, torch.arange(order))[0]
    places = torch.arange(order)
    natural = wave[(labels[..., None] - places) % order]
    logits = torch.zeros(n, n, n, dtype=torch.float64)
    index = torch.meshgrid(reference.left, reference.right, reference.result, indexing="ij")
    logits[index] = natural
    return cube_fit(basis, coordinates.on_logits(logits)).coefficients.tolist()


def test_subtraction_is_addition_after_reindexing():
    assert coefficients_in("subtract", 13) == pytest.approx(coefficients_in("add", 13), abs=1e-10)


@pytest.mark.parametrize("operation", ["multiply", "divide"])
def test_multiplication_and_division_are_additions_of_logarithms(operation: str):
    found = coefficients_in(operation, 13)
    assert found[2] == pytest.approx(12.0, rel=1e-12)
    assert max(abs(x) for k, x in enumerate(found) if k != 2) < 1e-10


def test_another_primitive_root_permutes_the_frequencies():
    # Modulo 13: 2 is the smallest root; 6 = 2^5 is another, so k turns into 5k modulo 12.
    first, other = coefficients_in("multiply", 13), coefficients_in("multiply", 13, root=6)
    permuted = [0.0] * 7
    for k, value in enumerate(first):
        folded = 5 * k % 12
        permuted[min(folded, 12 - folded)] = value
    assert other == pytest.approx(permuted, abs=1e-10)


def test_renumbered_frequencies_carry_every_measure_with_them():
    n, u = 11, 3
    basis, logits = fourier_basis((n,)), slow.random_values(n, n, n)
    moved = torch.arange(n) * u % n
    renumbered = logits[moved][:, moved][..., moved]
    fold = [min(k * u % n, n - k * u % n) for k in range(n // 2 + 1)]
    before, after = cube_fit(basis, logits), cube_fit(basis, renumbered)
    torch.testing.assert_close(after.coefficients[fold], before.coefficients)
    labels, everywhere = basis.sums, basis.sums >= 0
    losses = excluded_loss_per_frequency(basis, logits, labels, everywhere)
    renumbered_losses = excluded_loss_per_frequency(basis, renumbered, labels, everywhere)
    torch.testing.assert_close(renumbered_losses[[k - 1 for k in fold[1:]]], losses)


def test_a_product_of_cyclic_groups_is_served_by_the_same_code():
    group = product_group(cyclic_group(2), cyclic_group(4))
    task, coordinates = group_task(group), commutative_coordinates(group)
    basis = fourier_basis(coordinates.orders)
    assert torch.equal(result_places(task, coordinates), basis.sums)
    row = int(basis.rows_of([basis.n_frequencies])[0])
    logits = 9 * on_sums(basis, basis.rows[row][basis.differences])  # [s, c] -> [a, b, c]
    fit = cube_fit(basis, logits)
    assert fit.fve == pytest.approx(1.0)
    assert int(fit.coefficients.abs().argmax()) == basis.n_frequencies
    torch.testing.assert_close(restricted_logits(basis, logits, [basis.n_frequencies]), logits)


def test_units_modulo_8_and_15_have_complete_bases():
    for n in (8, 15):
        task = modular_task("multiply", n, units_only=True)
        basis = fourier_basis(task.natural.orders)
        labels = result_places(task, task.natural)
        assert torch.equal(labels, basis.sums)
