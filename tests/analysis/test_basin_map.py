"""Maps of basins with planted components."""

import pytest
import torch
from torch import Tensor, nn

import phasescope as ps
from phasescope.models import MLP, seeded


def double_well(state: dict[str, Tensor]) -> dict[str, float]:
    return {"loss": (state["w"].square() - 1).square().sum().item()}


def test_two_wells_are_two_basins():
    places = [-1.0, 1.0, -0.9, 1.1, -1.05]
    states = [{"w": torch.tensor([w])} for w in places]
    barriers = ps.pairwise_barriers(double_well, states)
    assert torch.equal(barriers, barriers.T)
    found = ps.basin_map(barriers, 0.1)
    assert found.basin.tolist() == [0, 1, 0, 1, 0]
    assert found.n_basins == 2
    assert found.sizes == [3, 2]
    shares = ps.variance_between_basins(
        found, {"side": torch.tensor(places).double(), "same": torch.ones(5).double()}
    )
    assert shares["side"] > 0.99
    assert shares["same"] != shares["same"]


def test_models_joined_through_others_are_in_one_basin():
    barriers = torch.full((4, 4), 9.0, dtype=torch.float64)
    for i, j in ((0, 1), (1, 2)):
        barriers[i, j] = barriers[j, i] = 0.1
    barriers.fill_diagonal_(0)
    found = ps.basin_map(barriers, 0.1)
    assert found.basin.tolist() == [0, 0, 0, 1]
    assert found.joined.sum() == 4
    assert ps.basin_map(barriers, 9.0).n_basins == 1
    assert ps.basin_map(barriers, 0.0).n_basins == 4


def test_permuted_copies_share_a_basin_only_when_aligned():
    model = seeded(lambda: MLP((3, 8, 2)), 0)
    symmetry = ps.permutation_symmetry(model, (torch.ones(1, 3),))
    state = {n: v.detach() * 3 for n, v in model.state_dict().items()}
    drawn = torch.Generator().manual_seed(0)
    states = [state, *(symmetry.permuted(state, symmetry.random(drawn)) for _ in range(2))]
    x = torch.randn(100, 3, generator=drawn)
    y = torch.func.functional_call(model, state, (x,)).argmax(1)
    measure = ps.StateMeasure(model, {"train": (x, y)})

    def align(first, second):
        return symmetry.permuted(second, ps.match_weights(symmetry, first, second).permutations)

    bare, aligned = (
        ps.pairwise_barriers(measure, states, name="train loss", align=a) for a in (None, align)
    )
    assert aligned.max() < 1e-6
    assert bare[0, 1:].min() > 1e-3


def test_what_is_no_map_is_refused():
    with pytest.raises(ValueError, match="at least two models are required for a map"):
        ps.pairwise_barriers(double_well, [nn.Linear(1, 1).state_dict()])
    with pytest.raises(ValueError, match=r"symmetric matrix of finite barriers .* \(2, 2\)"):
        ps.basin_map(torch.tensor([[0.0, 1.0], [2.0, 0.0]]).double(), 1.0)
