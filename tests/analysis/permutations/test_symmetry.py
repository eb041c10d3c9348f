"""Symmetries are found, are symmetries, and nothing else is taken for one."""

import pytest
import torch
from torch import Tensor, nn

import phasescope as ps
from analysis.permutations.networks import NETWORKS, gpt2
from phasescope.models import MLP, feature_outputs, initial_feature_model, seeded


def sizes(symmetry: ps.PermutationSymmetry) -> list[tuple[int, int]]:
    """Of every group: its size, and that of its parent or 0."""
    groups = symmetry.groups
    return sorted((g.size, groups[g.parent].size if g.parent else 0) for g in groups.values())


EXPECTED = {
    "mlp": [(5, 0), (7, 0)],
    "convnet": [(3, 0), (6, 0), (12, 0)],
    "residual": [(6, 0), (10, 0)],
    # Groups of the norm, and the convolution's two within each of them, are one division.
    "grouped": [(2, 0), (2, 2), (2, 4), (2, 4), (4, 0)],
    "pair": [(2, 0), (4, 2), (4, 2), (6, 0), (8, 0)],
    "deep pair": [(2, 0)] * 2 + [(4, 2)] * 4 + [(6, 0)] * 2 + [(8, 0)],
    "encoder": [(2, 0), (4, 2), (6, 0)],
    "gpt2": [(3, 0)] * 2 + [(4, 3)] * 4 + [(12, 0)] + [(48, 0)] * 2,
    "tied": [(5, 0)],
    "recurrent": [(7, 0)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_random_permutations_leave_every_network_as_it_is(name: str):
    build, inputs = NETWORKS[name]
    model = seeded(build, 3).double().eval()
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.uniform_(0.5, 2)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    symmetry = ps.permutation_symmetry(model, inputs)
    if name != "grouped":
        assert sizes(symmetry) == EXPECTED[name]
    state = {n: v.detach() for n, v in model.state_dict().items()}
    with torch.no_grad():
        before = as_tensor(model(*inputs))
        for seed in (1, 2, 3):
            drawn = symmetry.random(torch.Generator().manual_seed(seed))
            other = symmetry.permuted(state, drawn)
            after = as_tensor(torch.func.functional_call(model, other, inputs))
            assert (before - after).abs().max() <= 1e-10
            moved = [n for n in state if not torch.equal(state[n], other[n])]
            assert len(moved) >= len(state) // 3


def as_tensor(output: object) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits  # type: ignore[attr-defined]


def test_a_function_of_plain_tensors_has_its_neurons_permuted():
    params = initial_feature_model([0], d=3, n_neurons=4, n_outputs=6)
    symmetry = ps.permutation_symmetry(feature_outputs, (torch.randn(1, 5, 3),), state=params)
    assert str(symmetry) == "W_in: 4 units, in W_in, b_in, W_out"


def test_one_permutation_alone_would_change_the_function():
    """The control: the test of the function can fail."""
    model = seeded(lambda: MLP((6, 7, 5, 4)), 0).double()
    # Of three inputs that happen to switch both units off, the swap would not show.
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    symmetry = ps.permutation_symmetry(model, (x,))
    state = model.state_dict()
    other = symmetry.permuted(state, {"fc1": torch.tensor([1, 0, 2, 3, 4, 5, 6])})
    other["fc1.bias"] = state["fc1.bias"]
    assert (torch.func.functional_call(model, other, (x,)) - model(x)).abs().max() > 1e-3


def test_classes_pixels_and_vocabulary_keep_their_order():
    symmetry = ps.permutation_symmetry(MLP((6, 7, 4)), (torch.randn(2, 6),))
    assert symmetry.axes["fc2.weight"][0] == ((4,),)
    assert symmetry.axes["fc1.weight"][1] == ((6,),)
    assert symmetry.frozen["fc2.bias[0]"] == "an axis of the outputs"


def test_running_statistics_go_along_with_their_channels():
    build, inputs = NETWORKS["residual"]
    symmetry = ps.permutation_symmetry(build(), inputs)
    assert symmetry.axes["bn1.running_mean"] == symmetry.axes["bn1.running_var"] == ((("stem",),),)


def test_positions_that_the_call_does_not_reach_keep_their_order():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where, self.up, self.down = (
                nn.Parameter(torch.randn(9, 4)),
                nn.Linear(4, 8),
                nn.Linear(8, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x + self.where[: x.shape[1]])))

    symmetry = ps.permutation_symmetry(Positions(), (torch.randn(1, 5, 4),))
    assert sizes(symmetry) == [(8, 0)]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda h: h * torch.arange(8), "an axis of a constant"),
        (lambda h: h.cumsum(-1), "the order along the axis matters"),
        (lambda h: torch.fft.fft(h).real, "_fft_r2c is not known"),
        (lambda h: torch.cat([h[:, ::2], h[:, 1::2]], 1), "an axis is read in steps"),
        (lambda h: nn.functional.pad(h[:, 1:], (0, 1)), "an axis is padded"),
    ],
)
def test_where_the_order_matters_the_axis_is_frozen_and_the_reason_given(act, reason: str):
    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.top = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.top(torch.relu(self.down(act(self.up(x)))))

    symmetry = ps.permutation_symmetry(Ordered(), (torch.randn(2, 4),))
    assert list(symmetry.groups) == ["down"]
    assert symmetry.frozen["up.weight[0]"] == reason


def test_concatenated_and_gated_layers_are_divided():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.side, self.out = nn.Linear(4, 12), nn.Linear(4, 3), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([nn.functional.glu(self.both(x)), self.side(x)], -1))

    symmetry = ps.permutation_symmetry(Gated(), (torch.randn(2, 4),))
    assert symmetry.axes["both.weight"][0] == (("both",), ("both",))
    assert symmetry.axes["out.weight"][1] == (("both",), ("side",))


def test_inverse_and_composition_are_those_of_permuted_states():
    model = gpt2().double()
    symmetry = ps.permutation_symmetry(model, (torch.tensor([[1, 2, 3]]),))
    state = {n: v.detach() for n, v in model.state_dict().items()}
    first, second = (symmetry.random(torch.Generator().manual_seed(s)) for s in (1, 2))
    there = symmetry.permuted(state, first)
    back = symmetry.permuted(there, symmetry.inverse(first))
    both = symmetry.permuted(state, symmetry.composed(first, second))
    for name in state:
        assert torch.equal(back[name], state[name])
        assert torch.equal(both[name], symmetry.permuted(there, second)[name])


def test_a_group_that_one_of_two_leaves_out_is_as_the_other_has_it():
    model = gpt2().double()
    symmetry = ps.permutation_symmetry(model, (torch.tensor([[1, 2, 3]]),))
    state = {n: v.detach() for n, v in model.state_dict().items()}
    whole = symmetry.random(torch.Generator().manual_seed(1))
    other = symmetry.random(torch.Generator().manual_seed(2))
    for name, group in symmetry.groups.items():
        if group.parent is not None:
            continue
        for first, second in (({name: whole[name]}, other), (other, {name: whole[name]})):
            twice = symmetry.permuted(symmetry.permuted(state, first), second)
            once = symmetry.permuted(state, symmetry.composed(first, second))
            assert all(torch.equal(once[n], twice[n]) for n in state), name


def test_tied_parameters_are_permuted_under_all_their_names():
    model = gpt2()
    symmetry = ps.permutation_symmetry(model, (torch.tensor([[1, 2, 3]]),))
    state = model.state_dict()
    other = symmetry.permuted(state, symmetry.random(torch.Generator().manual_seed(1)))
    assert symmetry.tied == {"lm_head.weight": "transformer.wte.weight"}
    assert torch.equal(other["lm_head.weight"], other["transformer.wte.weight"])
    assert not torch.equal(other["lm_head.weight"], state["lm_head.weight"])


def test_a_model_without_hidden_units_is_refused():
    with pytest.raises(ValueError, match=r"no axis of its 2 parameters .*weight\[0\]: an axis of"):
        ps.permutation_symmetry(nn.Linear(3, 2), (torch.randn(1, 3),))


def test_a_model_that_draws_random_numbers_is_refused():
    class Noisy(MLP):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-3 * torch.randn(4)

    with pytest.raises(
        ValueError, match=r"they change the outputs by .*does the model draw random"
    ):
        ps.permutation_symmetry(Noisy((6, 7, 4)), (torch.randn(2, 6),))


def test_a_function_needs_a_state_and_outputs_need_tensors():
    with pytest.raises(ValueError, match="weights of a function are required in state="):
        ps.permutation_symmetry(feature_outputs, (torch.randn(1, 5, 3),))
    params = initial_feature_model([0], d=3, n_neurons=4, n_outputs=6)
    with pytest.raises(ValueError, match=r"returned str. Wrap it"):
        ps.permutation_symmetry(lambda state: "logits", (), state=params)


def test_states_and_permutations_that_do_not_fit_are_refused():
    model = MLP((6, 7, 4))
    symmetry = ps.permutation_symmetry(model, (torch.randn(2, 6),))
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"'fc1.weight' must have shape \(7, 6\)"):
        symmetry.permuted(MLP((6, 8, 4)).state_dict(), symmetry.identity())
    with pytest.raises(ValueError, match=r"'fc1.weight' is missing. Is it of another architecture"):
        symmetry.permuted({f"module.{n}": v for n, v in state.items()}, symmetry.identity())
    with pytest.raises(ValueError, match="groups fc1 are possible, but 'fc2' arrived"):
        symmetry.permuted(state, {"fc2": torch.arange(4)})
    with pytest.raises(ValueError, match="hold every number from 0 to 6 once"):
        symmetry.permuted(state, {"fc1": torch.zeros(7, dtype=torch.int64)})
