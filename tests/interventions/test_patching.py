"""Ablation, activation patching and path patching of circuits whose parts are known."""

import math

import pytest
import torch
from torch import nn

from phasescope.analysis.grokking import fourier_basis, pair_waves
from phasescope.datasets import modular_task
from phasescope.interventions import (
    AtWeights,
    Part,
    ablation_effects,
    activations,
    directions,
    entries,
    flat_weights,
    forward_with,
    patch_effects,
    path_effects,
    waves,
)
from phasescope.models import PairTransformer, analytic_pair_transformer

Z, POST, PRE = "blocks.0.attn.hook_z", "blocks.0.mlp.hook_post", "blocks.0.mlp.hook_pre"
OUT = "blocks.0.hook_mlp_out"


def test_a_part_that_is_infinite_is_replaced():
    scores = torch.tensor([[1.0, -math.inf, 2.0]])
    part = entries("scores", [1, 2])
    assert part.put(scores, torch.tensor([0.0, 6.0, 7.0])).tolist() == [[1.0, 6.0, 7.0]]
    masked = part.put(torch.ones(1, 3), torch.tensor([0.0, -math.inf, 0.0]))
    assert masked.tolist() == [[1.0, -math.inf, 0.0]]


def random_network(n_layers: int = 1) -> PairTransformer:
    generator = torch.Generator().manual_seed(0)
    sizes = {"d_model": 8, "n_heads": 2, "d_mlp": 6, "activation": "gelu"}
    return PairTransformer(5, n_layers=n_layers, generator=generator, **sizes).double()


def planted() -> tuple[PairTransformer, torch.Tensor, torch.Tensor]:
    """A network of two frequencies, all pairs, and the labels."""
    task = modular_task("add", 11)
    model = analytic_pair_transformer(task.natural, 11, [2, 5], amplitudes=[6.0, 3.0])
    pairs = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    return model, pairs, pairs.sum(1) % 11


def wave(k: int, n: int = 11) -> torch.Tensor:
    a, b, c = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 3, indexing="ij")
    return (2 * math.pi * k * (a + b - c) / n).cos().flatten(0, 1)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_head_or_neuron_at_zero_is_one_whose_output_weights_are_zero(n_layers: int):
    model = random_network(n_layers)
    pairs = model.all_pairs()
    for layer in range(n_layers):
        head = entries(f"blocks.{layer}.attn.hook_z", 1, axis=-2)
        neuron = entries(f"blocks.{layer}.mlp.hook_post", 3)
        for part, name, index in ((head, "attn.W_O", 1), (neuron, "mlp.W_out", 3)):
            other = random_network(n_layers)
            with torch.no_grad():
                dict(other.named_parameters())[f"blocks.{layer}.{name}"][index] = 0.0
            cut = forward_with(model, pairs, {part.site: lambda v, p=part: v - p.take(v)})
            torch.testing.assert_close(cut, other(pairs), rtol=0, atol=1e-13)
            assert not torch.allclose(cut, model(pairs))


def test_without_a_frequency_the_logits_lose_exactly_its_wave():
    model, pairs, _ = planted()
    basis = fourier_basis((11,))
    whole = model(pairs)
    for k, alpha in ((2, 6.0), (5, 3.0)):
        for which in ("block", "sum"):
            part = waves(POST, pair_waves(basis, k, which))
            cut = forward_with(model, pairs, {POST: lambda v, p=part: v - p.take(v)})
            torch.testing.assert_close(whole - cut, alpha * wave(k), rtol=0, atol=1e-11)
    unused = waves(POST, pair_waves(basis, 3))
    cut = forward_with(model, pairs, {POST: lambda v: v - unused.take(v)})
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-11)


def test_effects_of_frequencies_are_their_amplitudes_and_others_have_none():
    model, pairs, labels = planted()
    basis = fourier_basis((11,))
    parts = [waves(POST, pair_waves(basis, k), name=f"{k}") for k in range(1, 6)]

    def right(logits: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, labels[:, None]).mean()

    found = ablation_effects(model, pairs, parts, right, n_resamples=3)
    assert found.names == ("1", "2", "3", "4", "5")
    assert found.baseline == pytest.approx(9.0)
    expected = [0.0, -6.0, 0.0, 0.0, -3.0]
    for kind in ("zero", "mean"):  # waves have mean zero
        assert found.effects[kind].tolist() == pytest.approx(expected, abs=1e-10)
    # The wave of another pair is as good as none on average, and unrelated in every draw.
    assert found.draws.shape == (3, 5)
    assert found.effects["resample"].tolist() == pytest.approx(expected, abs=1.6)
    assert found.draws[:, [0, 2, 3]].abs().max() < 1e-10


def test_mean_and_resampled_values_are_those_of_the_reference():
    linear = nn.Linear(3, 1, bias=False).double()
    net = nn.Sequential(nn.Identity(), linear)
    generator = torch.Generator().manual_seed(0)
    x, reference = (torch.randn(n, 3, generator=generator).double() for n in (7, 400))
    w = linear.weight.detach()[0]
    parts = [entries("0", i) for i in range(3)]
    found = ablation_effects(
        net, x, parts, lambda y: y.mean(), reference=reference, n_resamples=60, seed=1
    )
    torch.testing.assert_close(found.effects["zero"], -w * x.mean(0))
    torch.testing.assert_close(found.effects["mean"], w * (reference.mean(0) - x.mean(0)))
    # A draw replaces seven values by seven of the reference, the same rows for every part.
    rows = torch.randint(400, (7,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.draws[0], w * (reference[rows].mean(0) - x.mean(0)))
    error = w.abs() * reference.std(0) / math.sqrt(7 * 60)
    assert bool(((found.effects["resample"] - found.effects["mean"]).abs() < 4 * error).all())


def test_each_head_of_the_planted_network_carries_its_operand():
    model, pairs, labels = planted()
    heads = [entries(Z, h, axis=-2, name=f"head {h}") for h in range(2)]
    generator = torch.Generator().manual_seed(0)
    for side in (0, 1):
        corrupted = pairs.clone()
        corrupted[:, side] = torch.randint(11, (121,), generator=generator)

        def right(logits: torch.Tensor) -> torch.Tensor:
            return logits.gather(1, labels[:, None]).mean()

        for direction in ("restore", "corrupt"):
            found = patch_effects(model, pairs, corrupted, heads, right, direction=direction)
            assert found.clean > found.corrupted
            shares = found.shares.tolist()
            assert shares[side] == pytest.approx(1.0, abs=1e-10)
            assert shares[1 - side] == pytest.approx(0.0, abs=1e-10)
        # All of it goes through the neurons, nothing around them.
        through = path_effects(model, pairs, corrupted, heads, right, receivers=[PRE])
        around = path_effects(model, pairs, corrupted, heads, right, frozen=[OUT])
        assert through.shares[side].item() == pytest.approx(1.0, abs=1e-10)
        assert around.shares.abs().max() < 1e-10


class TwoPaths(nn.Module):
    """An input that reaches the output directly (weight 3) and through a square (weight 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.squared, self.late = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read(x)
        y = self.squared(x.square())
        return self.late(y + 0.0) + 3 * x


def test_paths_of_a_known_graph_add_up_to_the_whole():
    model, part = TwoPaths(), entries("read", 0)
    clean, corrupted = torch.tensor([[2.0]]), torch.tensor([[1.0]])  # 10 against 4
    whole = path_effects(model, clean, corrupted, [part], torch.sum)
    direct = path_effects(model, clean, corrupted, [part], torch.sum, frozen=["squared"])
    through = path_effects(model, clean, corrupted, [part], torch.sum, receivers=["squared"])
    late = path_effects(model, clean, corrupted, [part], torch.sum, receivers=["late"])
    assert (whole.clean, whole.corrupted) == (10.0, 4.0)
    assert whole.shares.tolist() == [1.0]
    assert direct.shares.tolist() == [0.5]
    assert through.shares.tolist() == [0.5]
    assert late.shares.tolist() == [0.5]
    held = path_effects(
        model, clean, corrupted, [part], torch.sum, receivers=["late"], frozen=["squared"]
    )
    assert held.shares.tolist() == [0.0]  # no other way leads there


def test_directions_take_what_lies_along_them():
    basis = torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))[0].T
    part = directions("0", basis)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    taken = part.take(x)
    torch.testing.assert_close(part.take(taken), taken)
    torch.testing.assert_close(taken @ basis.T, x @ basis.T)
    new = part.put(x, torch.zeros(1, 5))
    assert (new @ basis.T).abs().max() < 1e-5


def test_blocks_that_return_tuples_and_models_at_other_weights_can_be_patched():
    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
            return 2 * x, "cache"

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value, rest = self.block(x)
            assert rest == "cache"
            return value

    changed = forward_with(Net(), torch.ones(2, 3), {"block": lambda v: v + 1})
    assert changed.tolist() == [[3.0] * 3] * 2
    model = random_network()
    other = AtWeights(model, 2 * flat_weights(model))
    seen = activations(other, model.all_pairs(), [POST])[POST]
    own = activations(model, model.all_pairs(), [POST])[POST]
    assert seen.shape == own.shape
    assert not torch.allclose(seen, own)


def test_nothing_is_left_behind_when_a_pass_fails():
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 1))

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        forward_with(net, torch.ones(1, 2), {"0": fail})
    assert not net[0]._forward_hooks
    assert forward_with(net, torch.ones(1, 2), {}).shape == (1, 1)


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_meant_is_refused():
    net, x = nn.Sequential(nn.Identity(), nn.Linear(2, 1)), torch.ones(2, 2)
    part = entries("0", 0)
    with pytest.raises(KeyError, match=r"no site 'mlp' in this model; the closest are '0'"):
        activations(net, x, ["mlp"])
    with pytest.raises(KeyError, match=r"no site 'blocks.0.hook_z'.*blocks.0.attn.hook_z"):
        activations(random_network(), torch.tensor([[1, 2]]), ["blocks.0.hook_z"])
    with pytest.raises(ValueError, match=r"keep the shape of the value, but at '0' \(2, 2\)"):
        forward_with(net, x, {"0": lambda v: v[:1]})
    with pytest.raises(ValueError, match="did not come to"):
        unused = nn.Sequential(nn.Identity())
        unused.extra = nn.Identity()
        unused.forward = lambda x: x  # type: ignore[method-assign]
        forward_with(unused, x, {"extra": torch.zeros_like})
    shared = nn.Identity()
    with pytest.raises(ValueError, match="came to '0' twice"):
        activations(nn.Sequential(shared, shared), x, ["0"])
    with pytest.raises(ValueError, match="at least one part is required"):
        ablation_effects(net, x, [], torch.sum)
    with pytest.raises(ValueError, match="kinds must be of 'zero', 'mean', 'resample'"):
        ablation_effects(net, x, [part], torch.sum, kinds=["median"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="direction must be of 'restore', 'corrupt'"):
        patch_effects(net, x, 2 * x, [part], torch.sum, direction="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must differ in the measure, but both give"):
        patch_effects(net, x, x, [part], torch.sum)
    with pytest.raises(ValueError, match="needs a corrupted one, but there are 2 and 1"):
        patch_effects(net, x, x[:1], [part], torch.sum)
    with pytest.raises(ValueError, match=r"must not be frozen, but \['0'\] are"):
        path_effects(net, x, 2 * x, [part], torch.sum, frozen=["0"])
    with pytest.raises(ValueError, match="along an axis behind that of the inputs"):
        entries("0", 0, axis=0)
    with pytest.raises(IndexError, match="'0' has 2 entries along axis -1"):
        entries("0", 5).take(x)
    with pytest.raises(ValueError, match=r"orthonormal rows are required, but .* off by 3"):
        directions("0", torch.tensor([[2.0, 0.0]]))
    with pytest.raises(ValueError, match="waves over 3 inputs need a pass over exactly these"):
        waves("0", torch.eye(3)[:1]).take(x)
    with pytest.raises(TypeError, match="that of '0' is dict"):
        bad = nn.Sequential(Dictionary())
        forward_with(bad, x, {"0": torch.zeros_like})
    with pytest.raises(ValueError, match="'block' or 'sum', but frequency 0"):
        pair_waves(fourier_basis((5,)), 0)


class Dictionary(nn.Module):
    """Returns what cannot be patched."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": x}


def test_a_part_is_whatever_projection_it_is_given():
    part = Part("mean", "0", lambda value: value.mean(-1, keepdim=True).expand_as(value))
    net = nn.Sequential(nn.Identity())
    x = torch.tensor([[1.0, 3.0]])
    found = ablation_effects(net, x, [part], lambda y: y[0, 0], kinds=["zero"])
    assert found.effects["zero"].tolist() == [-2.0]
