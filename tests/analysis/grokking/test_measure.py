"""The row of one checkpoint: bases, zero and other units, updates, errors."""

import dataclasses
import json
import math

import pytest
import torch

from phasescope.analysis.grokking import (
    measure,
    observe,
    pair_losses,
    pair_masks,
    result_places,
)
from phasescope.datasets import modular_task, split_pairs
from phasescope.models import PairTransformer, QuadraticMLP


def network(n: int, activation: str = "relu", seed: int = 0) -> PairTransformer:
    generator = torch.Generator().manual_seed(seed)
    return PairTransformer(
        n, d_model=8, n_heads=2, d_mlp=16, activation=activation, generator=generator
    )


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("basis", ["additive", "multiplicative"])
def test_a_row_in_every_basis(operation: str, basis: str):
    task = modular_task(operation, 7)  # pyright: ignore[reportArgumentType]
    split = split_pairs(len(task.pairs), 0.5, seed=0)
    seen = observe(network(7))
    row = measure(seen, task, split, basis=basis)
    assert row.orders == ((7,) if basis == "additive" else (6,))
    assert row.train.n_pairs + row.test.n_pairs == len(task.pairs)
    assert len(row.excluded_per_frequency) == 3
    json.dumps(row.to_dict())
    logits = torch.nn.functional.cross_entropy(
        seen.logits[task.pairs[split.test, 0], task.pairs[split.test, 1]], task.labels[split.test]
    )
    assert row.test.loss == pytest.approx(logits.item(), rel=1e-12)
    if basis == "multiplicative" and operation in ("add", "subtract"):
        # Tokens without a logarithm are left out of the control, with every pair that gives one.
        assert row.restricted["all"].n_pairs < 36


def test_a_network_that_is_a_table_of_products_is_one_wave_in_its_own_basis_only():
    task = modular_task("multiply", 13)
    split = split_pairs(len(task.pairs), 0.5, seed=0)
    places = result_places(task, task.natural)
    angle = 2 * math.pi / 12 * (places[..., None] - torch.arange(12)).double()
    wave = torch.zeros(13, 13, 13, dtype=torch.float64)
    index = torch.meshgrid(
        task.natural.left, task.natural.right, task.natural.result, indexing="ij"
    )
    wave[index] = 20 * angle.cos()
    model = observe(network(13))
    seen = dataclasses.replace(model, logits=wave)
    own = measure(seen, task, split, keys=[1])
    other = measure(seen, task, split, basis="additive", keys=[1])
    assert own.cube_fve == pytest.approx(1.0)
    assert own.restricted["all"].loss == pytest.approx(
        pair_losses(wave, task.label_table, {"": pair_masks(task, split)["all"]})[""].loss, abs=0.6
    )
    assert own.sum_share == pytest.approx(1.0)
    assert other.cube_fve < 0.2
    assert other.restricted["all"].loss > 1
    assert own.without_place is not None
    assert own.without_place.n_pairs == 25


def test_layer_norm_makes_mid_and_post_differ():
    task = modular_task("add", 7)
    split = split_pairs(49, 0.5, seed=0)
    plain = measure(observe(network(7, "gelu")), task, split)
    normed = measure(observe(network(7, "solu_ln")), task, split)
    assert plain.neurons["mid"] == plain.neurons["post"]
    assert normed.neurons["mid"] != normed.neurons["post"]


def test_the_update_that_led_here_has_its_decay_apart():
    task, model = modular_task("add", 7), network(7)
    split = split_pairs(49, 0.5, seed=0)
    after = observe(model)
    before = {name: w / 0.99 for name, w in after.params.items()}
    row = measure(after, task, split, before=before, decay=0.01)
    assert row.update["all"].optimizer < 1e-12
    assert row.update["all"].total == pytest.approx(row.update["all"].decay)
    assert measure(after, task, split).update == {}


def test_an_observation_in_float32_is_close_to_that_in_float64():
    model = network(7)
    single, double = observe(model, dtype=torch.float32), observe(model)
    torch.testing.assert_close(single.logits.double(), double.logits, atol=1e-5, rtol=1e-5)
    W_L = (model.get_parameter("blocks.0.mlp.W_out") @ model.W_U[:, :7]).detach().double()
    torch.testing.assert_close(double.W_L, W_L, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_network_is_observed_as_what_it_wraps(unchecked_types: None):
    model = network(5)
    seen, expected = observe(torch.compile(model)), observe(model)  # pyright: ignore[reportArgumentType]
    assert list(seen.params) == list(expected.params)
    assert torch.equal(seen.logits, expected.logits)


def test_a_network_whose_weights_have_gone_has_a_row():
    model, task = network(7), modular_task("add", 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    row = measure(observe(model), task, split_pairs(len(task.pairs), 0.5, seed=0))
    assert math.isnan(row.cube_fve)
    assert math.isnan(row.sum_share)
    assert row.test.loss == pytest.approx(math.log(7))


def test_what_cannot_be_observed_is_refused(unchecked_types: None):
    with pytest.raises(TypeError, match="reads a PairTransformer, but QuadraticMLP arrived"):
        observe(QuadraticMLP(5, width=8))  # pyright: ignore[reportArgumentType]
    broken = network(7)
    with torch.no_grad():
        broken.W_U[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"finite, but unembed\.W_U holds NaN"):
        observe(broken)


def test_what_does_not_fit_is_refused():
    task = modular_task("add", 7)
    split = split_pairs(49, 0.5, seed=0)
    with pytest.raises(ValueError, match=r"\(additive, multiplicative\), but 'cyclic' arrived"):
        measure(observe(network(7)), task, split, basis="cyclic")
    with pytest.raises(ValueError, match=r"the 7 tokens of .* but it has 5\. Give the task"):
        measure(observe(network(5)), task, split)
    with pytest.raises(ValueError, match=r"0 to 3, but \[4\] arrived"):
        measure(observe(network(7)), task, split, keys=[4])
    for n in (25, 100):
        with pytest.raises(ValueError, match=f"divide the 49 pairs .* of {n} rows. Make it by spl"):
            measure(observe(network(7)), task, split_pairs(n, 0.5, seed=0))
