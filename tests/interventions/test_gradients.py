import pytest
import torch
from torch import nn

import phasescope as ps
from phasescope.interventions import add_noise, chain, flat_weights, keep, random_subspace, remove
from phasescope.models import MLP, seeded
from phasescope.training import train, transform_gradients, transformed_updates


def network() -> nn.Module:
    return seeded(lambda: MLP((6, 5, 3), nn.Tanh), 0).double()


def batches(n: int = 8):
    generator = torch.Generator().manual_seed(3)
    for _ in range(n):
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        yield x, (x[:, 0] > 0).long()


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def after_backward() -> nn.Module:
    model = network()
    x, y = next(batches())
    nn.functional.cross_entropy(model(x), y).backward()
    return model


def test_what_is_kept_and_what_is_removed_sum_to_the_gradient():
    subspace = random_subspace(53, 5, seed=0, dtype=torch.float64)
    g = gradient(after_backward())
    kept, rest = after_backward(), after_backward()
    transform_gradients(kept, keep(subspace))
    transform_gradients(rest, remove(subspace))
    B = subspace.basis
    torch.testing.assert_close(gradient(kept), B.T @ (B @ g))
    torch.testing.assert_close(gradient(kept) + gradient(rest), g)
    transform_gradients(rest, keep(subspace))
    assert gradient(rest).abs().max() < 1e-15


def test_a_component_is_a_mask():
    table = ps.ParameterTable.from_module(network())
    model = after_backward()
    transform_gradients(model, keep(table.component("fc1.bias")))
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    assert norms.pop("fc1.bias") > 0
    assert set(norms.values()) == {0.0}


def test_the_identity_and_a_chain_of_nothing_keep_every_bit():
    trained = []
    for transform in (None, chain(), lambda grads: grads):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        with transformed_updates(model, optimizer, transform or chain()):
            train(model, optimizer, batches(), transform=transform)
        trained.append(flat_weights(model))
    assert torch.equal(trained[0], trained[1])
    assert torch.equal(trained[0], trained[2])


def test_the_whole_space_changes_nothing_but_rounding():
    model, plain = network(), network()
    everything = random_subspace(53, 53, seed=0, dtype=torch.float64)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), batches(), transform=keep(everything))
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches())
    assert (flat_weights(model) - flat_weights(plain)).abs().max() < 1e-13


def test_a_frozen_parameter_stays_without_gradient():
    model = network()
    model.get_parameter("fc1.weight").requires_grad_(False)
    x, y = next(batches())
    nn.functional.cross_entropy(model(x), y).backward()
    subspace = random_subspace(53, 5, seed=0, dtype=torch.float64)
    whole = torch.cat([torch.zeros(30).double(), gradient(model)])
    transform_gradients(model, keep(subspace))
    assert model.get_parameter("fc1.weight").grad is None
    torch.testing.assert_close(gradient(model), (subspace.basis.T @ (subspace.basis @ whole))[30:])


def test_a_projected_update_of_adam_stays_in_the_subspace_and_is_recorded(tmp_path):
    model = network().float()
    start = flat_weights(model)
    subspace = random_subspace(53, 4, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    save = {"updates": ps.every(1)}
    with (
        transformed_updates(model, optimizer, keep(subspace)),
        ps.Recorder(tmp_path / "run", model, optimizer, save=save) as recorder,
    ):
        train(model, optimizer, ((x.float(), y) for x, y in batches()), recorder=recorder)
    moved = flat_weights(model) - start
    outside = moved - (moved @ subspace.basis.T) @ subspace.basis
    assert float(outside.norm()) < 1e-5 < float(moved.norm())
    updates = torch.from_numpy(ps.open_run(tmp_path / "run").updates[:])
    torch.testing.assert_close(updates.sum(0), moved, rtol=1e-4, atol=1e-6)
    # The hooks are gone: the next update is Adam's own, which leaves the subspace.
    before = flat_weights(model)
    optimizer.step()
    free = flat_weights(model) - before
    assert float((free - (free @ subspace.basis.T) @ subspace.basis).norm()) > 0.5 * float(
        free.norm()
    )


def test_updates_of_what_is_not_trained_are_ignored():
    model = network().float()
    model.fc1.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([model.fc1.weight, *model.fc2.parameters()], lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with transformed_updates(model, optimizer, add_noise(0.1, seed=0)):
        model(torch.ones(1, 6)).sum().backward()
        optimizer.step()
    stay = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    assert stay == {"fc1.weight", "fc1.bias"}


def test_noise_has_its_standard_deviation_and_draws_anew():
    noise = add_noise(0.5, seed=1)
    first, second = (noise({"w": torch.zeros(20_000)})["w"] for _ in range(2))
    assert abs(float(first.std()) - 0.5) < 0.01
    assert abs(float((first * second).mean())) < 0.01
    assert torch.equal(add_noise(0.5, seed=1)({"w": torch.zeros(20_000)})["w"], first)
    with pytest.raises(ValueError, match=r"standard deviation of 0 or more, but std=-1"):
        add_noise(-1.0, seed=0)


def test_mistakes_are_named():
    with pytest.raises(RuntimeError, match=r"no parameter has one\. Call it after loss.backward"):
        transform_gradients(network(), chain())
    with pytest.raises(ValueError, match=r"for 'fc1.bias' nothing arrived|'fc1.bias' shape \(5,\)"):
        transform_gradients(
            after_backward(), lambda g: {n: v for n, v in g.items() if n != "fc1.bias"}
        )
    with pytest.raises(ValueError, match=r"'fc1.weight' shape \(5, 6\) was required and \(30,\)"):
        transform_gradients(after_backward(), lambda g: {n: v.reshape(-1) for n, v in g.items()})
    masked = ps.Component.from_mask("odd", torch.arange(8) % 2 == 1)
    with pytest.raises(ValueError, match=r"the component 'odd' are required, but .* 53 entries"):
        transform_gradients(after_backward(), keep(masked))
    with pytest.raises(ValueError, match=r"the 54 parameters of the subspace 'random'.*53 entries"):
        transform_gradients(after_backward(), keep(random_subspace(54, 2, seed=0)))
