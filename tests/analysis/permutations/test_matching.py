"""Planted permutations are found again; brute force, laws and published counter-examples."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from analysis.permutations.networks import NETWORKS, gpt2
from phasescope.models import MLP, seeded


def states_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def noisy(state: dict[str, Tensor], sigma: float, seed: int) -> dict[str, Tensor]:
    """Every parameter with noise of so many of its standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    return {
        n: v + sigma * v.std() * torch.randn(v.shape, generator=generator, dtype=v.dtype)
        for n, v in state.items()
    }


def shares_recovered(symmetry: ps.PermutationSymmetry, planted, found) -> float:
    wanted = symmetry.inverse(planted)
    return min((found[n] == wanted[n]).float().mean().item() for n in wanted)


@pytest.mark.parametrize(
    ("sizes", "sigma"),
    [
        ((784, 128, 128, 128, 10), 0.0),
        ((784, 128, 128, 128, 10), 2.0),
        ((20, *[32] * 10, 5), 0.0),
        ((20, *[32] * 10, 5), 1.0),
    ],
)
def test_planted_permutations_are_recovered_at_the_published_noise(sizes, sigma):
    model = seeded(lambda: MLP(sizes), 0)
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, sizes[0]),))
    planted = symmetry.random(torch.Generator().manual_seed(1))
    other = noisy(symmetry.permuted(states_of(model), planted), sigma, 2)
    found = ps.match_weights(symmetry, states_of(model), other)
    assert shares_recovered(symmetry, planted, found.permutations) == 1
    assert found.converged


def test_too_much_noise_is_not_recovered():
    """The control: beyond the published noise the planted answer is lost."""
    model = seeded(lambda: MLP((20, *[32] * 10, 5)), 0)
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 20),))
    planted = symmetry.random(torch.Generator().manual_seed(1))
    other = noisy(symmetry.permuted(states_of(model), planted), 2.0, 2)
    found = ps.match_weights(symmetry, states_of(model), other)
    assert shares_recovered(symmetry, planted, found.permutations) < 0.8


@pytest.mark.parametrize("name", ["convnet", "residual", "grouped", "pair", "encoder", "gpt2"])
def test_planted_permutations_of_every_network_are_recovered(name: str):
    build, inputs = NETWORKS[name]
    model = seeded(build, 0).eval()
    symmetry = ps.permutation_symmetry(model, inputs)
    planted = symmetry.random(torch.Generator().manual_seed(3))
    state = states_of(model)
    found = ps.match_weights(symmetry, state, symmetry.permuted(state, planted), n_starts=4)
    assert found.similarity[-1] == pytest.approx(1, abs=1e-12)
    assert shares_recovered(symmetry, planted, found.permutations) == 1


def test_two_layers_are_matched_exactly():
    """One assignment solves them: the best of all 120 orders, in a single sweep."""
    first, second = (states_of(seeded(lambda: MLP((3, 5, 2)), seed)) for seed in (0, 1))
    symmetry = ps.permutation_symmetry(MLP((3, 5, 2)), (torch.ones(1, 3),))

    def product(order: tuple[int, ...]) -> float:
        other = symmetry.permuted(second, {"fc1": torch.tensor(order)})
        return sum((first[n].double() * other[n].double()).sum().item() for n in first)

    best = max(itertools.permutations(range(5)), key=product)
    found = ps.match_weights(symmetry, first, second)
    assert found.permutations["fc1"].tolist() == list(best)
    assert found.n_sweeps == 2  # the second one finds nothing to do


def test_heads_and_what_is_inside_them_are_matched_exactly():
    """Brute force over all orders of two heads, and inside each of two directions and two more."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W_Q, self.W_K, self.W_V, self.W_O = (
                nn.Parameter(torch.randn(2, *s)) for s in [(3, 2), (3, 2), (3, 2), (2, 3)]
            )

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (torch.einsum("bcd,hde->bhce", x, W) for W in (self.W_Q, self.W_K, self.W_V))
            pattern = torch.einsum("bhqe,bhke->bhqk", q, k).softmax(-1)
            return torch.einsum("bhqk,bhke,hed->bqd", pattern, v, self.W_O)

    symmetry = ps.permutation_symmetry(seeded(Heads, 0), (torch.randn(2, 4, 3),))
    first, second = states_of(seeded(Heads, 0)), states_of(seeded(Heads, 1))

    def product(permutations) -> float:
        other = symmetry.permuted(second, permutations)
        return sum((first[n].double() * other[n].double()).sum().item() for n in first)

    (head,) = [g.name for g in symmetry.groups.values() if g.parent is None]
    keys, values = symmetry.children(head)
    both = [torch.tensor(o) for o in itertools.permutations(range(2))]
    rows = [torch.stack(pair) for pair in itertools.product(both, both)]
    choices = itertools.product(both, rows, rows)
    best = max(product({head: h, keys: a, values: b}) for h, a, b in choices)
    assert product(ps.match_weights(symmetry, first, second).permutations) == pytest.approx(best)


def test_similarity_never_falls_and_is_that_of_the_permuted_weights():
    first, second = (states_of(seeded(lambda: MLP((6, 12, 12, 3)), seed)) for seed in (0, 1))
    symmetry = ps.permutation_symmetry(MLP((6, 12, 12, 3)), (torch.ones(1, 6),))
    found = ps.match_weights(symmetry, first, second)
    assert (found.similarity.diff() >= 0).all()
    names = [n for n in first if n != "fc3.bias"]  # which no permutation touches
    other = symmetry.permuted(second, found.permutations)
    a, b = (torch.cat([s[n].double().flatten() for n in names]) for s in (first, other))
    assert found.similarity[-1] == pytest.approx((a @ b / (a.norm() * b.norm())).item(), abs=1e-12)


def test_biases_alone_can_be_matched():
    """A published package adds their product to every entry of the costs, which matches nothing."""
    model = MLP((3, 6, 2))
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 3),))
    state = {n: torch.zeros_like(v) for n, v in states_of(model).items()}
    state["fc1.bias"] = torch.tensor([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    planted = symmetry.random(torch.Generator().manual_seed(0))
    found = ps.match_weights(symmetry, state, symmetry.permuted(state, planted))
    assert shares_recovered(symmetry, planted, found.permutations) == 1


@pytest.mark.parametrize("name", ["tied", "recurrent"])
def test_a_group_on_both_axes_of_a_matrix_is_matched(name: str):
    build, inputs = NETWORKS[name]
    model = seeded(build, 0)
    symmetry = ps.permutation_symmetry(model, inputs)
    planted = symmetry.random(torch.Generator().manual_seed(3))
    state = states_of(model)
    found = ps.match_weights(symmetry, state, symmetry.permuted(state, planted))
    assert (found.similarity.diff() >= 0).all()
    assert shares_recovered(symmetry, planted, found.permutations) == 1


def test_no_permutation_connects_the_published_counter_example():
    def network(weights) -> dict[str, Tensor]:
        (w1, b1), (w2, b2), (w3, b3) = weights
        names = [f"fc{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")]
        values = [w1, b1, w2, b2, w3, b3]
        return {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(names, values, strict=True)}

    first = network([([[-1, 0], [0, -1]], [1, 0]), ([[-1, 0], [0, 1]], [1, 0]), ([[-1, -1]], [0])])
    second = network([([[1, 0], [0, 1]], [0, 1]), ([[1, 0], [0, -1]], [0, 1]), ([[-1, -1]], [0])])
    model = MLP((2, 2, 2, 1), activation=lambda: nn.PReLU(init=0.01)).double()
    slope = {"activation.weight": model.state_dict()["activation.weight"]}
    x = (
        torch.rand(20000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
        - 1
    )
    y = (x[:, 0] <= 0) & (x[:, 1] >= 0)
    symmetry = ps.permutation_symmetry(model, (x[:2],))

    def accuracy(state: dict[str, Tensor]) -> float:
        out = torch.func.functional_call(model, state | slope, (x,))
        return ((out[:, 0] > ACCEPT) == y).double().mean().item()

    halves = []
    for orders in itertools.product([[0, 1], [1, 0]], repeat=2):
        order = {n: torch.tensor(o) for n, o in zip(("fc1", "fc2"), orders, strict=True)}
        other = symmetry.permuted(second | slope, order)
        halves.append(accuracy({n: (first[n] + other[n]) / 2 for n in first}))
    assert accuracy(first) > 0.98
    assert accuracy(second) > 0.98
    assert max(halves) < 0.8


ACCEPT = -0.02  # both networks are 0 inside the quadrant, up to the slope of .01


def test_several_models_are_brought_together():
    model = seeded(lambda: MLP((8, 16, 16, 3)), 0)
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 8),))
    state = states_of(model)
    planted = [symmetry.random(torch.Generator().manual_seed(s)) for s in (1, 2, 3)]
    others = [noisy(symmetry.permuted(state, p), 0.3, s) for s, p in enumerate(planted)]
    found = ps.match_many(symmetry, [state, *others])
    identity = symmetry.identity()
    assert all(torch.equal(found[0][n], identity[n]) for n in identity)
    for p, f in zip(planted, found[1:], strict=True):
        assert shares_recovered(symmetry, p, f) == 1


@pytest.mark.parametrize("similarity", ["correlation", "product"])
@pytest.mark.parametrize("name", ["mlp", "convnet", "residual", "gpt2", "deep pair"])
def test_activations_recover_planted_permutations(name: str, similarity):
    build, inputs = NETWORKS[name]
    model = seeded(build, 0).eval()
    symmetry = ps.permutation_symmetry(model, inputs)
    planted = symmetry.random(torch.Generator().manual_seed(3))
    state = states_of(model)
    other = symmetry.permuted(state, planted)
    found = ps.match_activations(
        symmetry, model, state, other, [more(inputs), more(inputs)], similarity=similarity
    )
    before, after = (call(model, s, more(inputs)) for s in (state, symmetry.permuted(other, found)))
    assert (before - after).abs().max() < 1e-5
    alive = shares_recovered(symmetry, planted, found)
    assert alive > 0.5  # dead units are alike, and may be exchanged


def more(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A larger batch than the traced one."""
    (x,) = inputs
    if x.is_floating_point():
        return (torch.randn(16, *x.shape[1:], generator=torch.Generator().manual_seed(7)),)
    return (torch.randint(0, 5, (16, x.shape[1]), generator=torch.Generator().manual_seed(7)),)


def call(model: nn.Module, state: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        out = torch.func.functional_call(model, state, inputs, tie_weights=False)
    return out if isinstance(out, Tensor) else out.logits


def test_units_that_never_vary_have_correlation_zero():
    model = seeded(lambda: MLP((4, 6, 2)), 0)
    state = states_of(model)
    state["fc1.bias"][:2] = -100.0
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
    planted = symmetry.random(torch.Generator().manual_seed(3))
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    other = symmetry.permuted(state, planted)
    found = ps.match_activations(symmetry, model, state, other, [(x,)])["fc1"]
    assert torch.equal(found[2:], symmetry.inverse(planted)["fc1"][2:])


def test_activations_are_averaged_over_samples_not_over_batches():
    model = seeded(lambda: MLP((4, 6, 2)), 0)
    first, second = states_of(model), states_of(seeded(lambda: MLP((4, 6, 2)), 1))
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    whole, parts = (
        ps.match_activations(symmetry, model, first, second, batches)["fc1"]
        for batches in ([(x,)], [(x[:3],), (x[3:],)])
    )
    assert torch.equal(whole, parts)


def test_straight_through_begins_at_weight_matching_and_keeps_the_best():
    model = seeded(lambda: MLP((4, 12, 12, 2)), 0)
    first, second = (states_of(seeded(lambda: MLP((4, 12, 12, 2)), seed)) for seed in (0, 1))
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))

    def loss(state: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional.cross_entropy(
            torch.func.functional_call(model, state, (batch,)), (batch[:, 0] > 0).long()
        )

    found = ps.match_straight_through(symmetry, loss, first, second, [x] * 20, lr=0.3)
    matched = ps.match_weights(symmetry, first, second).permutations

    def barrier(permutations) -> float:
        other = symmetry.permuted(second, permutations)
        half = {n: (first[n] + other[n]) / 2 for n in first}
        return (loss(half, x) - (loss(first, x) + loss(other, x)) / 2).item()

    assert found.barriers[0].item() == pytest.approx(barrier(matched), abs=1e-6)
    assert found.barriers[found.best] == found.barriers.min()
    assert barrier(found.permutations) == pytest.approx(found.barriers.min().item(), abs=1e-6)
    assert found.barriers.min() < found.barriers[0]


def test_batch_norm_statistics_are_those_of_the_state():
    build, _ = NETWORKS["residual"]
    model = seeded(build, 0)
    x = torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    before = {n: v.clone() for n, v in model.state_dict().items()}
    new = ps.reestimate_batch_norm(model, before, [(x[:4],), (x[4:],)])
    z = functional.conv2d(x, before["stem.weight"], padding=1)
    torch.testing.assert_close(new["bn.running_mean"], z.mean((0, 2, 3)))
    halves = torch.stack([part.var((0, 2, 3)) for part in z.split(4)]).mean(0)
    torch.testing.assert_close(new["bn.running_var"], halves)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert new["stem.weight"].data_ptr() == before["stem.weight"].data_ptr()
    with pytest.raises(ValueError, match="batch norms that keep running statistics"):
        ps.reestimate_batch_norm(MLP((4, 3, 2)), MLP((4, 3, 2)).state_dict(), [(x,)])


def test_statistics_of_other_norms_are_left_alone():
    model = nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True), nn.BatchNorm1d(2))
    state = model.state_dict() | {"0.running_mean": torch.tensor([5.0, 6.0])}
    new = ps.reestimate_batch_norm(model, state, [(torch.randn(8, 2, 3),)])
    assert new["0.running_mean"].tolist() == [5, 6]
    assert not torch.equal(new["1.running_mean"], state["1.running_mean"])


def test_layers_that_share_their_weights_are_not_repaired():
    layers = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(6, 2))
    model[4].weight = model[2].weight
    x = torch.randn(8, 4)
    symmetry = ps.permutation_symmetry(model, (x,))
    with pytest.raises(ValueError, match=r"those of '[24]' are another layer's too"):
        ps.repair(symmetry, model, (states_of(model), states_of(model)), [(x,)])


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_repaired_activations_have_the_statistics_between_the_ends(name: str):
    build, inputs = NETWORKS[name]
    model = seeded(build, 0).eval()
    symmetry = ps.permutation_symmetry(model, inputs)
    ends = states_of(model), states_of(seeded(build, 1))
    x = more(inputs)
    middle = ps.repair(symmetry, model, ends, [x], t=0.25)
    seen: dict[str, list[Tensor]] = {}
    hidden = [n for n in ("conv1", "conv2", "fc1", "fc2") if n in symmetry.groups]
    for layer in hidden:
        module = model.get_submodule(layer)
        module.register_forward_hook(lambda m, a, o, n=layer: seen.setdefault(n, []).append(o))
    for state in (*ends, middle):
        call(model, state, x)
    for layer in hidden:
        rows = [out.movedim(1, 0).flatten(1) for out in seen[layer]]
        means, spreads = zip(*[(r.mean(1), r.std(1, correction=0)) for r in rows], strict=True)
        torch.testing.assert_close(
            means[2], 0.75 * means[0] + 0.25 * means[1], atol=1e-4, rtol=1e-3
        )
        torch.testing.assert_close(
            spreads[2], 0.75 * spreads[0] + 0.25 * spreads[1], atol=1e-4, rtol=1e-3
        )


def test_what_cannot_be_matched_is_refused():
    model = MLP((4, 6, 2))
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 4),))
    state = states_of(model)
    broken = state | {"fc1.bias": torch.full((6,), float("nan"))}
    with pytest.raises(ValueError, match=r"'fc1.bias' of the second state is not. Did the"):
        ps.match_weights(symmetry, state, broken)
    with pytest.raises(ValueError, match="in the second state it has"):
        ps.match_weights(symmetry, state, MLP((4, 7, 2)).state_dict())
    with pytest.raises(ValueError, match="at least two models are required to match, but 1"):
        ps.match_many(symmetry, [state])
    with pytest.raises(ValueError, match="at least one batch of inputs is required"):
        ps.match_activations(symmetry, model, state, state, [])
    with pytest.raises(ValueError, match="activations are required, but those of 'fc1'"):
        ps.match_activations(symmetry, model, state, broken, [(torch.ones(2, 4),)])
    with pytest.raises(ValueError, match="at least one batch is required"):
        ps.match_straight_through(symmetry, lambda s, b: s["fc1.bias"].sum(), state, state, [])
    with pytest.raises(ValueError, match="linear layers or convolutions with biases"):
        bare = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2))
        ps.repair(
            ps.permutation_symmetry(bare, (torch.ones(1, 4),)),
            bare,
            (bare.state_dict(), bare.state_dict()),
            [(torch.ones(2, 4),)],
        )


def test_gpt2_of_another_seed_comes_closer_without_changing():
    first, second = (states_of(seeded(gpt2, seed)) for seed in (0, 1))
    x = (torch.tensor([[1, 2, 3, 4]]),)
    model = gpt2().eval()
    symmetry = ps.permutation_symmetry(model, x)
    found = ps.match_weights(symmetry, first, second)
    assert found.similarity[-1] > found.similarity[0]
    moved = symmetry.permuted(second, found.permutations)
    torch.testing.assert_close(call(model, moved, x), call(model, second, x), atol=1e-5, rtol=1e-4)
