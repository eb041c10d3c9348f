"""The numbers of a published model, and of a network whose weights are known in closed form.

The first is Model A of Zhong et al. (addition modulo 59, constant attention); the numbers were
computed independently, in float64.
"""

import math
import os
from pathlib import Path

import pytest
import torch

from phasescope.analysis.grokking import (
    Observation,
    ProgressMeasures,
    algorithm_templates,
    cube_fit,
    distance_irrelevance,
    excluded_logits,
    excluded_neuron_logits,
    explained,
    format_effect,
    fourier_basis,
    gradient_symmetricity,
    inverse_participation,
    isolate_circle,
    keys_by_neuron_argmax,
    logit_map_residual,
    logits_from_embeddings,
    measure,
    neuron_purity,
    observe,
    pair_losses,
    restricted_logits,
    restricted_neuron_logits,
)
from phasescope.datasets import modular_task, split_pairs
from phasescope.models import PairTransformer, load_grokking_checkpoint

KEYS = (3, 15, 17)


@pytest.fixture(scope="module")
def model() -> PairTransformer:
    data = os.environ.get("PHASESCOPE_DATA")
    path = Path(data or ".") / "grokked_pizza_a" / "model_p99zdpze5l.pt"
    if not data or not path.is_file():
        pytest.skip("needs the published model: PHASESCOPE_DATA/grokked_pizza_a is not there")
    return load_grokking_checkpoint(path)


@pytest.fixture(scope="module")
def seen(model: PairTransformer) -> Observation:
    return observe(model)


@pytest.fixture(scope="module")
def row(seen: Observation) -> ProgressMeasures:
    task = modular_task("add", 59)
    return measure(seen, task, split_pairs(len(task.pairs), 0.8, seed=0))


def test_losses(row: ProgressMeasures, seen: Observation):
    basis = fourier_basis((59,))
    everywhere = {"all": basis.sums >= 0}
    whole = pair_losses(seen.logits, basis.sums, everywhere)["all"]
    assert whole.loss == pytest.approx(1.38433e-7, rel=1e-5)
    assert whole.accuracy == 1.0
    assert math.sqrt(row.squared_norms["all"]) == pytest.approx(22.8538, abs=5e-5)
    assert row.restricted_keys == KEYS
    assert row.restricted["all"].loss == pytest.approx(7.407e-8, rel=1e-4)
    excluded = pair_losses(excluded_logits(basis, seen.logits, KEYS), basis.sums, everywhere)
    assert excluded["all"].loss == pytest.approx(4.880, abs=5e-4)


def test_frequencies(row: ProgressMeasures, seen: Observation):
    found = row.neurons["post"]
    assert (found.n, found.counts, found.n_constant) == (512, {3: 149, 15: 190, 17: 173}, 0)
    assert row.keys["neuron_clusters"].found == row.keys["W_L"].found == KEYS
    assert row.keys["W_E"].found == (3, 6, 15, 17, 25, 29)
    assert row.keys["W_E"].base == KEYS
    basis = fourier_basis((59,))
    assert keys_by_neuron_argmax(basis, neuron_purity(basis, seen.post)).found == KEYS


def test_sparsity_and_logits(row: ProgressMeasures, seen: Observation):
    assert row.sparsity.nanda_W_E == pytest.approx(0.684, abs=5e-4)
    assert row.sparsity.nanda_W_L == pytest.approx(0.879, abs=5e-4)
    assert row.sparsity.power_W_E == pytest.approx(0.840, abs=5e-4)
    assert row.sparsity.power_W_L == pytest.approx(0.906, abs=5e-4)
    assert row.cube_fve == pytest.approx(0.99477, abs=5e-6)
    assert row.cube_coefficients[2] == pytest.approx(5227.737, abs=5e-4)
    assert row.sum_share == pytest.approx(0.995, abs=5e-4)
    assert logit_map_residual(fourier_basis((59,)), seen.W_L, KEYS) == pytest.approx(
        0.0108, abs=5e-5
    )


def test_single_frequencies_excluded(seen: Observation):
    basis = fourier_basis((59,))
    for k, loss in zip(KEYS, (0.1395, 0.2827, 0.5491), strict=True):
        found = pair_losses(
            excluded_logits(basis, seen.logits, [k]), basis.sums, {"all": basis.sums >= 0}
        )
        assert found["all"].loss == pytest.approx(loss, abs=5e-5)


def test_the_pizza(row: ProgressMeasures, seen: Observation, model: PairTransformer):
    basis = fourier_basis((59,))
    symmetricity = gradient_symmetricity(logits_from_embeddings(model), seen.W_E)
    assert symmetricity == pytest.approx(0.99367, abs=5e-6)
    assert row.distance_irrelevance == pytest.approx(0.1717, abs=5e-5)
    wrong = distance_irrelevance(basis, seen.logits, basis.sums, "top_wrong")
    assert wrong == pytest.approx(0.2218, abs=5e-5)
    assert row.circularity == pytest.approx(0.99782, abs=5e-6)


def test_isolated_circles_follow_the_pizza_and_not_the_clock(
    seen: Observation, model: PairTransformer
):
    basis, function = fourier_basis((59,)), logits_from_embeddings(model)
    a, b = model.all_pairs().unbind(1)
    for circle, k in enumerate((17, 3, 15)):
        W_E = isolate_circle(seen.W_E, circle)
        logits = function(W_E[a], W_E[b]).unflatten(0, (59, 59))
        templates = algorithm_templates(basis, k)
        assert 0.7535 < explained(logits, templates["clock"]) < 0.7565  # published .754 to .756
        assert explained(logits, templates["pizza"]) > 0.98


def test_number_formats(seen: Observation):
    labels = fourier_basis((59,)).sums
    single = format_effect(seen.logits, labels, labels >= 0)
    assert single.loss == pytest.approx(9.33e-8, rel=1e-3)
    assert single.collapse == pytest.approx(0.526, abs=5e-4)
    assert single.zero_loss == pytest.approx(0.559, abs=5e-4)
    for dtype in (torch.float16, torch.bfloat16):
        half = format_effect(seen.logits, labels, labels >= 0, dtype)
        assert (half.collapse, half.loss) == (1.0, 0.0)


def test_constant_attention_makes_logit_and_neuron_variants_equal(seen: Observation):
    basis = fourier_basis((59,))
    kept = restricted_neuron_logits(basis, seen.post, seen.W_L, seen.logits, KEYS)
    left = excluded_neuron_logits(basis, seen.post, seen.W_L, seen.logits, KEYS)
    assert (kept - restricted_logits(basis, seen.logits, KEYS)).abs().max().item() < 1e-12
    assert (left - excluded_logits(basis, seen.logits, KEYS)).abs().max().item() < 1e-12


def test_an_untrained_network_of_the_same_shape_is_half_symmetric_but_has_no_keys():
    untrained = PairTransformer(
        59, init="pizza", attention_rate=0.0, generator=torch.Generator().manual_seed(0)
    )
    task = modular_task("add", 59)
    row = measure(observe(untrained), task, split_pairs(len(task.pairs), 0.8, seed=0))
    symmetricity = gradient_symmetricity(
        logits_from_embeddings(untrained), untrained.W_E.detach().double()
    )
    # Values and outputs together have gain 1: gradients OV g and (1 + OV) g have the cosine 1/√2.
    assert symmetricity == pytest.approx(0.5**0.5, abs=0.07)
    assert row.distance_irrelevance > 0.9
    assert row.circularity < 0.4
    assert row.keys["neuron_clusters"].found == ()
    assert row.cube_fve < 0.05


def analytic(n: int, n_neurons: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gromov's solution W (U_a + V_b)^2 of an addition, with random phases."""
    generator = torch.Generator().manual_seed(seed)
    p1, p2 = (2 * math.pi * torch.rand(2, n_neurons, 1, generator=generator).double()).unbind(0)
    frequency = (torch.arange(n_neurons) % ((n - 1) // 2) + 1)[:, None].double()
    angle = 2 * math.pi * frequency * torch.arange(n).double() / n
    return (angle + p1).cos(), (angle + p2).cos(), (angle + p1 + p2).cos()


@pytest.mark.parametrize(("n_neurons", "accuracy", "margin"), [(200, 1.0, 0.19), (1000, 1.0, 0.63)])
def test_the_analytic_network(n_neurons: int, accuracy: float, margin: float):
    n, basis = 97, fourier_basis((97,))
    U, V, W = analytic(n, n_neurons, seed=0)
    neurons = (U.T[:, None] + V.T).square()
    logits = neurons @ W
    found = pair_losses(logits, basis.sums, {"all": basis.sums >= 0})["all"]
    assert found.accuracy == accuracy
    right = logits.gather(2, basis.sums[..., None])[..., 0]
    wrong = logits.scatter(2, basis.sums[..., None], -torch.inf).amax(2)
    relative = ((right - wrong).min() / right.mean()).item()
    assert relative == pytest.approx(margin, abs=0.12)
    torch.testing.assert_close(
        inverse_participation(basis, U.T), torch.ones(n_neurons, dtype=torch.float64)
    )
    # A square holds twice the frequency too: half of its variance along one operand alone.
    purity = neuron_purity(basis, neurons)
    assert purity.n_constant == 0
    # Every neuron adds cos(w(a + b - c))/2 and what is orthogonal to it.
    per_frequency = torch.bincount(torch.arange(n_neurons) % 48).double()
    torch.testing.assert_close(
        cube_fit(basis, logits).coefficients[1:], per_frequency / 2 * (n**3 / 2) ** 0.5
    )
