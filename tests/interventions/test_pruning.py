"""Masks have exact counts and stay, whatever the optimizer does; the defects of other code."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from phasescope.interventions import (
    MaskedEnsemble,
    SparseTraining,
    density,
    prune_iteratively,
    pruned_masks,
    random_masks,
    regrown_mask,
    shuffled_masks,
    train_masked,
)
from phasescope.models import MLP, seeded
from phasescope.training import DecayingBiases, EnsembleAdam, EnsembleSGD

OPTIMIZERS = {
    "momentum and decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def backward(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(X), Y).backward()


def half_masks(model: nn.Module, seed: int = 0):
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n.endswith("weight")}
    return random_masks(shapes, 0.5, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_are_zero_after_every_step_and_so_is_the_state(name: str):
    model = seeded(lambda: MLP((6, 8, 2)), 0)
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(3):  # momentum before there are masks
        backward(model, optimizer)
        optimizer.step()
    masks = half_masks(model)
    sparse = SparseTraining(model, optimizer, masks)
    parameters = dict(model.named_parameters())
    for _ in range(5):
        backward(model, optimizer)
        before = {n: p.detach().clone() for n, p in parameters.items()}
        sparse.step()
        for n, mask in masks.items():
            assert not parameters[n][~mask].any()
            assert (parameters[n] != before[n])[mask].any()
            for value in optimizer.state[parameters[n]].values():
                if value.shape == mask.shape:
                    assert not value[~mask].any()
                    assert value[mask].any()
    assert density(masks) == 0.5


def test_negative_weights_are_trained():
    """Freezing gradients where the weight is below a small number froze all of these."""
    model = seeded(lambda: MLP((6, 8, 2)), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = half_masks(model)
    sparse = SparseTraining(model, optimizer, masks)
    before = model.fc1.weight.detach().clone()
    backward(model, optimizer)
    sparse.step()
    negative = masks["fc1.weight"] & (before < 0)
    moved = (model.fc1.weight != before)[negative].double().mean()
    assert moved > 0.5  # the others belong to neurons that are off


def test_without_masks_it_is_the_optimizer_bit_for_bit():
    states = []
    for masked in (True, False):
        model = seeded(lambda: MLP((6, 8, 2)), 0)
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        full = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
        sparse = SparseTraining(model, optimizer, full)
        for _ in range(4):
            backward(model, optimizer)
            sparse.step() if masked else optimizer.step()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_counts_are_exact_with_ties():
    weights = {"a": torch.ones(5), "b": torch.ones(2, 5)}
    full = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    masks = full
    for left in (12, 9, 7, 5):  # minus ceil(.2 n)
        masks = pruned_masks(weights, masks, 0.2)
        assert sum(int(m.sum()) for m in masks.values()) == left
    layerwise = pruned_masks(weights, full, 0.2, scope="tensor")
    assert [int(m.sum()) for m in layerwise.values()] == [4, 8]
    assert density(pruned_masks(weights, full, 0.0)) == 1
    assert density(pruned_masks(weights, full, 1.0)) == 0


def test_the_smallest_magnitudes_go_and_what_is_gone_stays():
    weights = {"w": torch.tensor([-5.0, 4.0, -3.0, 2.0, -1.0])}
    masks = {"w": torch.tensor([False, True, True, True, True])}
    assert pruned_masks(weights, masks, 0.5)["w"].tolist() == [False, True, True, False, False]
    scores = {"w": torch.tensor([9.0, -9.0, 1.0, 2.0, 3.0])}
    found = pruned_masks(weights, masks, 0.5, scores=scores)["w"]
    assert found.tolist() == [False, False, False, True, True]


def test_rounds_rewind_bit_for_bit_and_masks_only_shrink():
    state = {n: v.clone() for n, v in seeded(lambda: MLP((6, 8, 2)), 0).state_dict().items()}
    optimizers = []

    def train(start: dict[str, Tensor], masks) -> dict[str, Tensor]:
        model = MLP((6, 8, 2))
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-3)
        assert not optimizer.state
        optimizers.append(optimizer)
        sparse = SparseTraining(model, optimizer, masks)
        for _ in range(10):
            backward(model, optimizer)
            sparse.step()
        return model.state_dict()

    names = ["fc1.weight", "fc2.weight"]
    rounds = prune_iteratively(train, state, names, n_levels=3, fraction=0.2)
    assert [round.density for round in rounds] == [1.0, 51 / 64, 40 / 64, 32 / 64]
    for before, after in itertools.pairwise(rounds):
        for n in names:
            assert not (after.masks[n] & ~before.masks[n]).any()
            assert torch.equal(after.start[n], state[n] * after.masks[n])
            assert not after.trained[n][~after.masks[n]].any()
        assert torch.equal(after.start["fc1.bias"], state["fc1.bias"])
    again = train_masked(train, state, rounds[2].masks)
    assert all(torch.equal(again.trained[n], rounds[2].trained[n]) for n in state)


def test_a_training_that_only_masks_forward_is_caught():
    state = {"w": torch.ones(4)}
    masks = {"w": torch.tensor([True, True, False, False])}
    with pytest.raises(ValueError, match="must stay zero, but training moved 2 of 2 in 'w'"):
        train_masked(lambda s, m: {"w": s["w"] - 0.1}, state, masks)


@pytest.mark.parametrize("grow", ["gradient", "random"])
def test_regrowth_keeps_the_count_and_begins_at_zero(grow):
    model = seeded(lambda: MLP((6, 8, 2)), 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    masks = half_masks(model)
    counts = {n: int(m.sum()) for n, m in masks.items()}
    sparse = SparseTraining(
        model,
        optimizer,
        masks,
        grow=grow,
        every=3,
        until=12,
        fraction=0.5,
        generator=torch.Generator().manual_seed(0),
    )
    changed = []
    for step in range(1, 16):
        backward(model, optimizer)
        before = {n: m.clone() for n, m in sparse.masks.items()}
        weights = {n: p.detach().clone() for n, p in sparse.parameters.items()}
        if sparse.step():
            changed.append(step)
            for n, p in sparse.parameters.items():
                new = sparse.masks[n] & ~before[n]
                assert not p[new].any()
                for value in optimizer.state[p].values():
                    if value.shape == p.shape:
                        assert not value[new].any()
                stayed = (p != 0) & before[n]
                assert torch.equal(p[stayed], weights[n][stayed])
        assert {n: int(m.sum()) for n, m in sparse.masks.items()} == counts
        for n, p in sparse.parameters.items():
            assert not p[~sparse.masks[n]].any()
    assert changed == [3, 6, 9]


def test_the_callers_masks_stay_and_gradients_of_grown_masks_are_sparse():
    def fit(masks) -> tuple[list[Tensor], SparseTraining]:
        model = seeded(lambda: MLP((6, 8, 2)), 0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        sparse = SparseTraining(model, optimizer, masks, grow="gradient", every=2, until=9)
        for _ in range(10):
            sparse.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            sparse.step()
            for n, p in sparse.parameters.items():
                assert p.grad is not None
                assert not p.grad[~sparse.masks[n]].any()
        return list(model.parameters()), sparse

    masks = half_masks(MLP((6, 8, 2)))
    before = {n: m.clone() for n, m in masks.items()}
    first, sparse = fit(masks)
    again, _ = fit(masks)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(m, before[n]) for n, m in masks.items())
    assert any(not torch.equal(m, before[n]) for n, m in sparse.masks.items())


def test_what_is_dropped_and_grown_at_once_loses_its_value():
    """Published code lets such a weight keep it."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, 2.0, 3.0, 0.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = {"weight": torch.tensor([[True, True, True, False]])}
    sparse = SparseTraining(model, optimizer, masks, grow="gradient", every=1, until=2)
    sparse.fraction = 1.0
    model(torch.tensor([[9.0, 1.0, 1.0, 0.0]])).sum().backward()
    assert sparse.step()
    assert sparse.masks["weight"].tolist() == [[True, True, True, False]]
    assert model.weight.tolist() == [[0.0, 2.0, 3.0, 0.0]]


def test_growth_follows_the_dense_gradient():
    weight, mask = torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0]), torch.tensor([1, 1, 1, 0, 0]).bool()
    grown = regrown_mask(weight, mask, torch.tensor([0.0, 0.5, 0.0, 1.0, 2.0]), 2)
    assert grown.tolist() == [True, False, False, True, True]
    assert torch.equal(regrown_mask(weight, mask, weight, 0), mask)


def test_random_masks_have_exact_counts_and_erk_spares_small_tensors():
    shapes = {"big": (100, 100), "small": (10, 10), "bias": (4,)}
    masks = random_masks(shapes, 0.1, torch.Generator().manual_seed(0))
    assert [int(m.sum()) for m in masks.values()] == [1000, 10, 0]
    erk = random_masks(shapes, 0.1, torch.Generator().manual_seed(0), spread="erk")
    shares = {n: int(m.sum()) / m.numel() for n, m in erk.items()}
    # Shares go as (100 + 100) / 100², (10 + 10) / 10² and 1, which is cut: 4 of 1010 are given.
    assert shares["bias"] == 1
    assert shares["small"] == round(1006.4 / 220 * 0.2 * 100) / 100
    assert shares["big"] == round(1006.4 / 220 * 0.02 * 10000) / 10000
    assert density(erk) == pytest.approx(0.1, abs=1e-3)
    shuffled = shuffled_masks(masks, torch.Generator().manual_seed(1))
    assert [int(m.sum()) for m in shuffled.values()] == [1000, 10, 0]
    assert not torch.equal(shuffled["big"], masks["big"])


@pytest.mark.parametrize(
    "build", [lambda: EnsembleAdam(0.05), lambda: EnsembleSGD(0.1, momentum=0.9)]
)
@pytest.mark.parametrize("grow", [None, "gradient", "random"])
def test_an_ensemble_trains_as_its_members_alone(build, grow):
    """Two seeds at once, and each by itself: the same weights, masks and counts."""
    start = {"w": torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))}
    target = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    first = random_masks({"w": (2, 3, 4)}, 0.5, torch.Generator().manual_seed(2))["w"]

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        params = {"w": start["w"][rows].clone()}
        optimizer = MaskedEnsemble(
            build(),
            {"w": first[rows].clone()},
            grow=grow,
            every=2,
            until=6,
            fraction=0.6,
            generator=torch.Generator().manual_seed(3),
        )
        for _ in range(8):
            optimizer.update(params, {"w": params["w"] - target[rows]})
            assert not params["w"][~optimizer.masks["w"]].any()
        return params["w"], optimizer.masks["w"]

    weights, masks = run(slice(0, 2))
    assert masks.sum((1, 2)).tolist() == first.sum((1, 2)).tolist()
    assert torch.equal(masks, first) == (grow is None)
    if grow != "random":  # which draws for all at once
        for i in range(2):
            alone, mask = run(slice(i, i + 1))
            torch.testing.assert_close(alone[0], weights[i])
            assert torch.equal(mask[0], masks[i])


def test_an_ensemble_goes_on_from_its_state():
    target = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    masks = torch.tensor([[True, True, True, False, False, False]])

    def make() -> MaskedEnsemble:
        return MaskedEnsemble(
            EnsembleAdam(0.05),
            {"w": masks.clone()},
            grow="gradient",
            every=3,
            until=9,
            fraction=0.6,
        )

    params = {"w": torch.ones(1, 6)}
    whole, parts = make(), make()
    halves = {"w": torch.ones(1, 6)}
    for _ in range(7):
        whole.update(params, {"w": params["w"] - target})
    for _ in range(4):
        parts.update(halves, {"w": halves["w"] - target})
    again = make()
    again.load_state_dict(parts.state_dict())
    for _ in range(3):
        again.update(halves, {"w": halves["w"] - target})
    assert torch.equal(halves["w"], params["w"])
    assert torch.equal(again.masks["w"], whole.masks["w"])


def test_decaying_biases_go_on_where_they_were_among_masks_that_regrow():
    def make() -> DecayingBiases:
        mask = torch.tensor([[True, True, False, False]])
        inner = EnsembleSGD(0.01)
        masked = MaskedEnsemble(inner, {"w": mask}, grow="gradient", every=2, until=9)
        return DecayingBiases(masked, 0.5, lr=0.1, until=7, name="b")

    def go(optimizer: DecayingBiases, params: dict[str, torch.Tensor], n: int) -> None:
        for _ in range(n):
            optimizer.update(params, {name: torch.ones_like(p) for name, p in params.items()})

    through, stopped = ({"w": torch.ones(1, 4), "b": torch.ones(1, 4)} for _ in range(2))
    go(make(), through, 12)
    first, second = make(), make()
    go(first, stopped, 5)
    second.load_state_dict(first.state_dict())
    go(second, stopped, 7)
    assert torch.equal(stopped["b"], through["b"])


def test_regrowth_forgets_the_moments_of_its_own_tensor_only():
    params = {"w": torch.ones(1, 4), "w.b": torch.ones(1, 4)}
    mask = torch.tensor([[True, True, False, False]])
    both = MaskedEnsemble(
        EnsembleSGD(0.1, momentum=0.9), {"w": mask}, grow="gradient", every=2, until=9
    )
    for _ in range(2):  # the second one regrows
        both.update(params, {name: torch.ones_like(p) for name, p in params.items()})
    kept = {n: v for n, v in both.state_dict().items() if n.startswith("w.b")}
    assert all(bool((v != 0).all()) for v in kept.values())
    assert kept


def test_bad_settings_are_refused(unchecked_types: None):
    model = MLP((6, 8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"for the mask 'fc1.weight', but it has shape \(8, 6\)"):
        SparseTraining(model, optimizer, {"fc1.weight": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"of torch.bool, but 'fc1.weight' is of torch.float32"):
        SparseTraining(model, optimizer, {"fc1.weight": torch.ones(model.fc1.weight.shape)})
    other = torch.optim.SGD(seeded(lambda: MLP((6, 8, 2)), 1).parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"'fc1.weight' is not among its 4 parameters"):
        SparseTraining(model, other, half_masks(model))
    with pytest.raises(ValueError, match="growth at random needs generator="):
        SparseTraining(model, optimizer, half_masks(model), grow="random", until=3)
    with pytest.raises(ValueError, match="the step from which masks stay"):
        SparseTraining(model, optimizer, half_masks(model), grow="gradient")
    with pytest.raises(ValueError, match="grow must be 'gradient', 'random' or None"):
        SparseTraining(model, optimizer, half_masks(model), grow="rigl", until=3)
    sparse = SparseTraining(model, optimizer, half_masks(model), grow="gradient", every=1, until=3)
    with pytest.raises(ValueError, match=r"a dense gradient of 'fc1.weight' is required"):
        sparse.step()
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        pruned_masks({"w": torch.ones(2)}, {"w": torch.ones(2, dtype=torch.bool)}, 1.5)
    full = {"w": torch.ones(2, 3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"of shape \(2, 3\) is required .* has shape \(3, 2\)"):
        pruned_masks({"w": torch.ones(2, 3)}, full, 0.5, scores={"w": torch.ones(3, 2)})
    with pytest.raises(ValueError, match="scope must be 'global' or 'tensor', but 'layer'"):
        pruned_masks({"w": torch.ones(2, 3)}, full, 0.5, scope="layer")
    with pytest.raises(ValueError, match="kept must lie between 0 and 1"):
        random_masks({"w": (2,)}, 20, torch.Generator())
    with pytest.raises(ValueError, match="n must lie between 0 and the 1 weights"):
        regrown_mask(torch.ones(2), torch.tensor([True, False]), torch.ones(2), 2)
    with pytest.raises(ValueError, match=r"prunable holds \['v'\]"):
        prune_iteratively(lambda s, m: s, {"w": torch.ones(2)}, ["v"], n_levels=1)
    with pytest.raises(ValueError, match=r"the text 'weight'\. Pass \['weight'\]"):
        prune_iteratively(lambda s, m: s, {"w": torch.ones(2)}, "weight", n_levels=1)
    with pytest.raises(TypeError, match=r"train must return .* but it returned NoneType"):
        prune_iteratively(lambda s, m: None, {"w": torch.ones(2)}, ["w"], n_levels=1)
    lost = torch.tensor([1.0, float("nan")])
    with pytest.raises(ValueError, match="1 of 2 entries of 'w' are NaN"):
        pruned_masks({"w": lost}, {"w": torch.ones(2, dtype=torch.bool)}, 0.5)
    left = pruned_masks({"w": lost}, {"w": torch.tensor([True, False])}, 0.0)
    assert left["w"].tolist() == [True, False]  # what is masked does not count
    with pytest.raises(ValueError, match=r"a mask of shape \(1, 2\), seeds first"):
        MaskedEnsemble(EnsembleSGD(0.1), {"w": torch.ones(2, dtype=torch.bool)}).update(
            {"w": torch.ones(1, 2)}, {"w": torch.ones(1, 2)}
        )
