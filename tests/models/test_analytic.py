"""Networks whose weights solve the tasks in closed form have the answers that theory gives."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from phasescope.analysis.grokking import fourier_basis, measure, observe
from phasescope.datasets import (
    cyclic_group,
    group_task,
    modular_task,
    product_group,
    split_pairs,
)
from phasescope.models import QuadraticMLP, analytic_pair_transformer, analytic_quadratic_mlp


def relative_margin(outputs: Tensor, labels: Tensor) -> float:
    """Smallest margin of the right answer, relative to its mean output."""
    right = outputs.gather(1, labels[:, None])[:, 0]
    others = outputs.scatter(1, labels[:, None], -torch.inf).amax(1)
    return float((right - others).min() / right.mean())


@pytest.mark.parametrize(
    ("width", "accuracy", "margin"),
    [
        (100, 0.995, -0.15),
        (200, 1.0, 0.02),
        (500, 1.0, 0.35),
        (1000, 1.0, 0.55),
        pytest.param(5000, 1.0, 0.75, marks=pytest.mark.slow),
    ],
)
def test_the_quadratic_network_is_right_from_two_hundred_neurons_on(
    width: int, accuracy: float, margin: float
):
    # Published for p = 97: .9994, then 1 with margins of .19, .50, .63 and .84; phases vary.
    task = modular_task("add", 97)
    model = analytic_quadratic_mlp(task.natural, 97, width, generator=torch.Generator())
    with torch.no_grad():
        outputs = model(task.pairs)
    assert float((outputs.argmax(1) == task.labels).double().mean()) >= accuracy
    assert margin < relative_margin(outputs, task.labels) < margin + 0.2


@pytest.mark.parametrize(("operation", "p"), [("subtract", 31), ("multiply", 97), ("divide", 31)])
def test_every_operation_has_its_quadratic_network(operation: Any, p: int):
    task = modular_task(operation, p, units_only=operation != "subtract")
    model = analytic_quadratic_mlp(task.natural, p, 1000, generator=torch.Generator())
    with torch.no_grad():
        outputs = model(task.pairs)
    assert bool((outputs.argmax(1) == task.labels).all())
    assert 0.55 < relative_margin(outputs, task.labels) < 0.8  # published for multiply: .67


def test_neurons_of_the_quadratic_network_are_pure_waves():
    task = modular_task("add", 97)
    model = analytic_quadratic_mlp(task.natural, 97, 200, generator=torch.Generator())
    for weight in (model.U, model.V, model.W.T):
        power = torch.fft.rfft(weight.detach()).abs().square()
        assert float((power.amax(1) / power.sum(1)).min()) == pytest.approx(1, abs=1e-12)


def test_a_random_quadratic_network_is_the_formula_neuron_by_neuron():
    model = QuadraticMLP(5, 4, generator=torch.Generator().manual_seed(0)).double()
    for a, b in itertools.product(range(5), repeat=2):
        pair = torch.tensor([[a, b]])
        hidden = [(model.U[k, a] + model.V[k, b]) ** 2 for k in range(4)]
        wanted = [sum(model.W[c, k] * hidden[k] for k in range(4)) for c in range(5)]
        torch.testing.assert_close(
            model(pair)[0], torch.stack([torch.as_tensor(w) for w in wanted])
        )
    wide = QuadraticMLP(97, 500, generator=torch.Generator().manual_seed(0))
    assert float(wide.U.detach().std()) == pytest.approx(0.05, rel=0.02)


TASKS = {
    "add": (modular_task("add", 13), [1, 5, 6], [3.0, 2.0, 4.0]),
    "subtract": (modular_task("subtract", 12), [1, 6, 4], [3.0, 2.0, 4.0]),
    "multiply": (modular_task("multiply", 13), [1, 6, 4], [3.0, 2.0, 4.0]),
    "divide by units of 15": (modular_task("divide", 15), [(1, 0), (1, 1)], [3.0, 2.0]),
    "group": (
        group_task(product_group(cyclic_group(2), cyclic_group(6))),
        [(1, 0), (2, 1), (3, 1)],
        [3.0, 2.0, 4.0],
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_logits_of_the_planted_clock_are_its_cosines(name: str):
    task, keys, amplitudes = TASKS[name]
    coordinates = task.natural
    model = analytic_pair_transformer(coordinates, task.n_tokens, keys, amplitudes=amplitudes)
    logits = coordinates.on_logits(model.logits_of_all_pairs())
    orders = coordinates.orders
    exponents = torch.tensor(list(itertools.product(*map(range, orders))), dtype=torch.float64)
    difference = exponents[:, None, None] + exponents[None, :, None] - exponents
    wanted = torch.zeros(logits.shape, dtype=torch.float64)
    for key, amplitude in zip(keys, amplitudes, strict=True):
        key = torch.tensor(key if isinstance(key, tuple) else (key,), dtype=torch.float64)
        wanted += amplitude * (2 * math.pi * difference @ (key / torch.tensor(orders))).cos()
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-12)


def test_the_planted_clock_is_right_everywhere_and_survives_single_precision():
    task = modular_task("add", 113)
    model = analytic_pair_transformer(task.natural, 113, [14, 35, 41, 42, 52])
    for network in (model, model.float()):
        logits = network.logits_of_all_pairs().flatten(0, 1)
        assert bool((logits.argmax(1) == task.labels).all())


def test_no_path_leads_around_the_neurons_of_the_planted_clock():
    task = modular_task("add", 11)
    model = analytic_pair_transformer(task.natural, 11, [2, 3])

    def silence(name: str, value: Tensor) -> Tensor | None:
        return torch.zeros_like(value) if name.endswith("hook_post") else None

    with torch.no_grad():
        assert float(model(task.pairs, silence).abs().max()) == 0.0


def test_tokens_without_a_place_have_logits_and_embeddings_of_zero():
    task = modular_task("multiply", 13)
    model = analytic_pair_transformer(task.natural, 13, [1])
    logits = model.logits_of_all_pairs()
    assert float(logits[..., 0].abs().max()) == 0
    assert float(model.W_E[0].detach().abs().max()) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "at least one frequency is required"),
        ([(1, 2)], "one number for each of the 1 cyclic factors"),
        ([0], "not be trivial, but"),
        ([13], "not be trivial, but"),
        ([3, 5, 3], r"there once, .* but 3 is not so among \[3, 5, 3\]"),
        ([3, 10], r"must be numbers from 1 to 6, but 10 arrived. Its wave is that of 3: pass"),
        ([20], r"orders \(13,\) must be numbers from 1 to 6, but 20 arrived. .* of 6: pass"),
        ([-2], "numbers from 1 to 6, but -2 arrived. Its wave is that of 2: pass"),
    ],
)
def test_frequencies_that_plant_nothing_are_refused(keys: list[Any], message: str):
    with pytest.raises(ValueError, match=message):
        analytic_pair_transformer(modular_task("add", 13).natural, 13, keys)


@pytest.mark.parametrize(("key", "folded"), [((5, 0), (1, 0)), ((1, 3), (1, 1)), ((4, 1), (2, 1))])
def test_of_a_character_of_several_factors_and_its_conjugate_the_first_is_taken(
    key: tuple[int, int], folded: tuple[int, int]
):
    task = group_task(product_group(cyclic_group(2), cyclic_group(6)))
    message = f"whichever comes first, but {key} arrived. Its wave is that of {folded}: pass"
    with pytest.raises(ValueError, match=re.escape(message)):
        analytic_pair_transformer(task.natural, 12, [key])
    assert folded in fourier_basis(task.natural.orders).exponents


@pytest.mark.parametrize("amplitudes", [[1.0, 2.0, 3.0], [1.0], []])
def test_amplitudes_of_another_number_than_the_frequencies_are_refused(amplitudes: list[float]):
    message = "for each of the 2 frequencies is required, but " + re.escape(str(amplitudes))
    with pytest.raises(ValueError, match=message):
        analytic_pair_transformer(
            modular_task("add", 13).natural, 13, [1, 5], amplitudes=amplitudes
        )


def test_measures_of_the_planted_clock_need_its_keys():
    task = modular_task("add", 13)
    model = analytic_pair_transformer(task.natural, 13, [1, 5])
    split = split_pairs(len(task.pairs), 0.5, seed=0)
    row = measure(observe(model), task, split)
    assert row.neurons["post"].median_fve == pytest.approx(0.8)
    assert (row.keys["neuron_clusters"].found, row.keys["W_L"].found) == ((), (1, 5))
    loss = measure(observe(model), task, split, keys=[1, 5]).restricted["all"].loss
    every = cross_entropy(model.logits_of_all_pairs().flatten(0, 1), task.labels)
    assert loss == pytest.approx(float(every), rel=1e-6)


@pytest.mark.usefixtures("unchecked_types")
def test_the_quadratic_network_says_which_pairs_it_needs():
    model = QuadraticMLP(7, 4)
    with pytest.raises(ValueError, match=r"shape \(n, 2\) .* but shape \(2,\) of torch.int64 arr"):
        model(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"from 0 to 6, but 1 of the 2 pairs .* pair 1 with"):
        model(torch.tensor([[0, 6], [0, 7]]))


def test_a_quadratic_network_needs_a_cyclic_group_and_neurons():
    with pytest.raises(ValueError, match=r"a cyclic group .* factors are \(2, 2\)"):
        analytic_quadratic_mlp(modular_task("multiply", 8).natural, 8)
    with pytest.raises(ValueError, match="must be positive, but they are 5 and 0"):
        QuadraticMLP(5, 0)
