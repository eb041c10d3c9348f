"""Sparsity, attention, algorithms, numerics and norms: closed forms and slow versions."""

import math

import pytest
import torch

from analysis.grokking import slow
from phasescope.analysis.grokking import (
    algorithm_templates,
    attention_components,
    circularity,
    distance_irrelevance,
    explained,
    fit_patterns,
    format_effect,
    fourier_basis,
    fourier_components,
    frequency_norms,
    gini,
    gradient_symmetricity,
    inverse_participation,
    isolate_circle,
    logit_scale_sensitivity,
    nanda_gini,
    power_gini,
    scaling_alignment,
    squared_norms,
    symmetricity_triples,
    update_norms,
    value_components,
)


def test_gini_is_the_mean_difference_over_twice_the_mean():
    v = slow.random_values(40).abs()
    expected = (v[:, None] - v).abs().mean() / (2 * v.mean())
    assert gini(v) == pytest.approx(expected.item(), rel=1e-12)
    assert gini(7 * v) == pytest.approx(gini(v))
    assert math.isnan(gini(torch.zeros(3)))


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [math.nan, 1.0], []])
def test_gini_refuses_what_is_no_spectrum(bad: list[float]):
    with pytest.raises(ValueError, match="finite, non-negative numbers"):
        gini(torch.tensor(bad))


def test_sines_alone_look_sparse_to_the_gini_of_components_only():
    basis = fourier_basis((31,))
    sines = torch.stack([slow.waves(31, k, torch.arange(31))[1] for k in range(1, 16)], 1)
    assert nanda_gini(basis, sines) > 0.5
    assert power_gini(basis, sines) == pytest.approx(0.0, abs=1e-12)


def test_participation_is_that_of_the_fast_fourier_transform():
    for n in (9, 10):
        values = slow.random_values(n, 6)
        shares = torch.fft.rfft(values, dim=0).abs().square()
        shares = shares / shares.sum(0)
        torch.testing.assert_close(
            inverse_participation(fourier_basis((n,)), values), shares.square().sum(0)
        )
    waves = torch.stack([slow.waves(10, k, torch.arange(10))[0] for k in (2, 5)], 1)
    torch.testing.assert_close(
        inverse_participation(fourier_basis((10,)), waves, r=3), torch.ones(2).double()
    )


def test_random_weights_have_the_participation_of_the_reference():
    values = slow.random_values(97, 2000)
    found = inverse_participation(fourier_basis((97,)), values).mean().item()
    assert found == pytest.approx(0.041, abs=0.001)


@pytest.mark.parametrize("n", [9, 8])
def test_patterns_are_fitted_as_by_least_squares(n: int):
    basis, i = fourier_basis((n,)), torch.arange(n)
    angle = 2 * math.pi * 3 * i.double() / n
    c, s = angle.cos(), angle.sin()
    planted = 0.5 + 0.2 * (c[:, None] - c) - 0.1 * (s[:, None] - s)
    patterns = torch.stack([planted, planted + 0.05 * slow.random_values(n, n)], -1)
    fit = fit_patterns(basis, patterns)
    assert fit.frequency.tolist() == [3, 3]
    assert fit.cosine[0].item() == pytest.approx(0.2)
    assert fit.sine[0].item() == pytest.approx(-0.1)
    assert fit.intercept[0].item() == pytest.approx(0.5)
    assert fit.fve[0].item() == pytest.approx(1.0)
    design = torch.stack([torch.ones(n, n).double(), c[:, None] - c, s[:, None] - s], -1)
    solved = torch.linalg.lstsq(design.flatten(0, 1), patterns[..., 1].flatten()[:, None])
    assert fit.cosine[1].item() == pytest.approx(solved.solution[1].item())
    residual = patterns[..., 1].flatten() - (design.flatten(0, 1) @ solved.solution)[:, 0]
    centred = patterns[..., 1] - patterns[..., 1].mean()
    fve = 1 - residual.square().sum() / centred.square().sum()
    assert fit.fve[1].item() == pytest.approx(fve.item())


def test_the_highest_frequency_of_an_even_group_has_a_pattern_too():
    signs = torch.tensor([1.0, -1.0]).repeat(4).double()
    fit = fit_patterns(fourier_basis((8,)), (0.5 + 0.1 * (signs[:, None] - signs))[..., None])
    assert fit.frequency.tolist() == [4]
    assert fit.cosine.item() == pytest.approx(0.1)
    assert fit.fve.item() == pytest.approx(1.0)


def test_a_constant_pattern_has_no_fit():
    fit = fit_patterns(fourier_basis((5,)), torch.full((5, 5, 1), 1 / 3))
    assert math.isnan(fit.fve.item())
    assert fit.intercept.item() == pytest.approx(1 / 3)


def test_circuits_transform_along_the_tokens():
    basis = fourier_basis((7,))
    W_E, query = slow.random_values(7, 4), slow.random_values(4, seed=1)
    W_Q, W_K, W_V = (slow.random_values(2, 4, 3, seed=s) for s in (2, 3, 4))
    W_O, W_in = slow.random_values(2, 3, 4, seed=5), slow.random_values(4, 6, seed=6)
    scores = torch.stack([W_E @ W_K[h] @ W_Q[h].T @ query for h in range(2)], 1)
    found = attention_components(basis, W_E, query, W_Q, W_K)
    torch.testing.assert_close(found, fourier_components(basis, scores))
    passed = torch.stack([W_E @ W_V[h] @ W_O[h] @ W_in for h in range(2)], 1)
    torch.testing.assert_close(
        value_components(basis, W_E, W_V, W_O, W_in), fourier_components(basis, passed)
    )


def test_gradients_of_sums_are_symmetric_and_of_products_are_not():
    W_E = slow.random_values(9, 5)
    weights = slow.random_values(5, 9, seed=1)
    same = gradient_symmetricity(lambda a, b: (a + b).tanh() @ weights, W_E)
    other = gradient_symmetricity(lambda a, b: (a * b) @ weights, W_E)
    assert same == pytest.approx(1.0)
    assert other < 0.5
    a, b, c = symmetricity_triples(9)[0]
    by_hand = torch.nn.functional.cosine_similarity(
        W_E[b] * weights[:, c], W_E[a] * weights[:, c], dim=0
    )
    found = gradient_symmetricity(lambda a, b: (a * b) @ weights, W_E, [(a, b, c)])
    assert found == pytest.approx(by_hand.item())


@pytest.mark.parametrize("which", ["correct", "top_wrong", "margin"])
def test_distance_irrelevance_on_an_odd_group_is_that_of_the_matrix_of_sums_and_differences(which):
    n = 7
    basis, logits = fourier_basis((n,)), slow.random_values(n, n, n)
    M = torch.zeros(n, n, dtype=torch.float64)
    for a in range(n):
        for b in range(n):
            right = logits[a, b, (a + b) % n]
            wrong = torch.cat([logits[a, b, : (a + b) % n], logits[a, b, (a + b) % n + 1 :]]).max()
            chosen = {"correct": right, "top_wrong": wrong, "margin": right - wrong}[which]
            M[(a + b) % n, (a - b) % n] = chosen
    expected = M.std(0, correction=0).mean() / M.std(correction=0)
    found = distance_irrelevance(basis, logits, basis.sums, which)
    assert found == pytest.approx(expected.item())


def test_pairs_without_a_result_say_nothing_of_the_distance():
    basis, logits = fourier_basis((9,)), slow.random_values(9, 9, 9)
    labels = basis.sums.clone()
    labels[:, [0, 3, 6]] = -1  # as of division by what is no unit
    found = distance_irrelevance(basis, logits, labels)
    other = logits + (labels < 0).unsqueeze(-1) * slow.random_values(9, 9, 1)
    assert distance_irrelevance(basis, other, labels) == found
    rows = [
        torch.stack([logits[(d + j) % 9, j, (d + 2 * j) % 9] for j in range(9) if j % 3])
        for d in range(9)
    ]
    spread = torch.stack([row.std(correction=0) for row in rows]).mean()
    assert found == pytest.approx((spread / torch.cat(rows).std(correction=0)).item())


def test_the_pizza_depends_on_the_distance_and_the_clock_does_not():
    basis = fourier_basis((59,))
    templates = algorithm_templates(basis, 2)
    clock, pizza = templates["clock"], templates["pizza"]
    noise = 0.01 * slow.random_values(59, 59, 59)
    assert distance_irrelevance(basis, pizza, basis.sums) < 0.01
    assert distance_irrelevance(basis, clock + noise, basis.sums) > 0.9
    assert explained(5 * pizza + 1, pizza) == pytest.approx(1.0)
    # The correlation of |cos| with 1 in the mean square, over evenly spread angles: 2√2/π.
    assert explained(pizza, clock) == pytest.approx(4 * 2**0.5 / math.pi - 1, abs=1e-3)


def test_other_words_and_groups_are_refused(unchecked_types: None):
    basis = fourier_basis((5,))
    with pytest.raises(ValueError, match="'correct', 'top_wrong' or 'margin', but 'best'"):
        distance_irrelevance(basis, slow.random_values(5, 5, 5), basis.sums, "best")
    with pytest.raises(ValueError, match=r"one shape, but theirs are \(4, 4\) and \(4,\)"):
        explained(slow.random_values(4, 4), slow.random_values(4))
    with pytest.raises(ValueError, match="needs a cyclic group"):
        algorithm_templates(fourier_basis((2, 3)), 1)
    with pytest.raises(ValueError, match="between 0 and 1, but 2 arrived"):
        isolate_circle(slow.random_values(9, 4), 2)


def test_circularity_of_circles_and_of_noise():
    basis = fourier_basis((59,))
    random = slow.random_values(59, 128)
    assert circularity(basis, random) < 0.4
    waves = [w for k in (3, 15) for w in slow.waves(59, k, torch.arange(59))]
    circles = torch.stack(waves, 1) * torch.tensor([2.0, 2.0, 1.0, 1.0])
    assert circularity(basis, circles @ slow.random_values(4, 4)) < 1
    assert circularity(basis, circles) == pytest.approx(1.0)
    # One circle has two principal components, in any coordinates.
    turn = torch.linalg.qr(slow.random_values(6, 6)).Q
    one = torch.nn.functional.pad(torch.stack(waves[:2], 1), (0, 4)) @ turn
    assert circularity(basis, one) == pytest.approx(1.0)
    assert circularity(basis, one.float()) == pytest.approx(1.0)
    assert math.isnan(circularity(basis, torch.ones(59, 6)))


def test_one_circle_remains():
    waves = [w for k in (3, 15) for w in slow.waves(59, k, torch.arange(59))]
    W_E = torch.stack(waves, 1) * torch.tensor([2.0, 2.0, 1.0, 1.0]) + 5
    kept = isolate_circle(W_E, 1)
    expected = W_E.mean(0).expand_as(W_E).clone()
    expected[:, 2:] = W_E[:, 2:]
    torch.testing.assert_close(kept, expected)


def test_collapse_begins_where_the_format_ends():
    labels, mask = torch.tensor([[0, 0, -1]]), torch.tensor([[True, True, True]])
    logits = torch.tensor([[[10.0, 0.0], [20.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    single = format_effect(logits, labels, mask)
    double = format_effect(logits, labels, mask, torch.float64)
    assert (single.collapse, single.zero_loss) == (0.5, 0.5)
    assert (double.collapse, double.zero_loss) == (0.0, 0.0)
    assert double.loss == pytest.approx((math.log1p(math.exp(-10)) + math.log1p(math.exp(-20))) / 2)
    assert format_effect(logits, labels, mask, torch.bfloat16).collapse == 1.0


def test_scale_sensitivity_is_a_derivative():
    logits, labels = slow.random_values(3, 3, 4), torch.tensor([[0, 1, 2]] * 3)
    mask = torch.ones(3, 3, dtype=torch.bool)
    step = 1e-6
    ends = [slow.cross_entropy(math.exp(x) * logits, labels).mean().item() for x in (-step, step)]
    found = logit_scale_sensitivity(logits, labels, mask)
    assert found == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-8)


def test_alignment_with_the_scaling_direction():
    params = {"w": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])}
    grads = {"w": torch.tensor([-4.0, 3.0]), "b": torch.tensor([-2.0])}
    found = scaling_alignment(grads, params)
    assert found["w"] == 0.0
    assert found["b"] == 1.0
    assert found["all"] == pytest.approx(2 / math.sqrt(26 * 29))
    assert math.isnan(scaling_alignment({"b": torch.zeros(1)}, params)["b"])
    with pytest.raises(KeyError, match=r"there is none for \['x'\]"):
        scaling_alignment({"x": torch.zeros(1)}, params)


def test_norms_of_weights_and_of_an_update_with_decay():
    before = {"w": slow.random_values(4, 3), "b": slow.random_values(2, seed=1)}
    u = {"w": slow.random_values(4, 3, seed=2), "b": slow.random_values(2, seed=3)}
    after = {name: w - 0.01 * w + u[name] for name, w in before.items()}
    found = update_norms(before, after, decay=0.01)
    assert found["w"].optimizer == pytest.approx(u["w"].norm().item())
    assert found["w"].decay == pytest.approx(0.01 * before["w"].norm().item())
    assert found["all"].total == pytest.approx(
        math.sqrt(sum((after[k] - before[k]).square().sum().item() for k in before))
    )
    assert found["b"].relative == pytest.approx(
        ((after["b"] - before["b"]).norm() / before["b"].norm()).item()
    )
    assert squared_norms(before)["all"] == pytest.approx(
        sum(w.square().sum().item() for w in before.values())
    )
    with pytest.raises(KeyError, match=r"only one has \['b'\]"):
        update_norms(before, {"w": before["w"]}, decay=0.0)


def test_norms_by_frequency():
    basis = fourier_basis((5,))
    W_E = 3 * basis.rows[1:3].T
    assert frequency_norms(basis, W_E).tolist() == pytest.approx([0, 3 * 2**0.5, 0], abs=1e-12)
