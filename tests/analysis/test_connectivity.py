"""Barriers by their definitions, on paths and planes whose losses are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from phasescope.models import MLP, seeded

T = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)


def at(*numbers: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(numbers, dtype=torch.float64)}


def double_well(state: dict[str, Tensor]) -> dict[str, float]:
    w = state["w"]
    return {"loss": ((w[0] ** 2 - 1) ** 2 + w[1:].square().sum()).item()}


def test_a_planted_barrier_is_measured():
    values = ps.path_values(double_well, ps.linear_path(at(-1.0, 0.0), at(1.0, 0.0)))
    assert values.barrier() == 1.0
    assert values.barrier(over="mean") == 1.0
    assert values.distance[-1] == pytest.approx(2)


def test_a_convex_loss_has_no_barrier():
    values = ps.path_values(
        lambda s: {"loss": s["w"].square().sum().item()},
        ps.linear_path(at(3.0, 1.0), at(-1.0, 2.0)),
    )
    assert values.barrier() == 0


def test_unequal_ends_have_a_barrier_over_their_mean_alone():
    values = ps.path_values(lambda s: {"loss": s["w"].item()}, ps.linear_path(at(0.0), at(4.0)))
    assert values.barrier() == pytest.approx(0, abs=1e-15)
    assert values.barrier(over="mean") == 2
    # A valley between unequal ends has none at all, whatever rounding does to the line.
    for last in (0.1, 0.3, 0.7, 1 / 3):
        dips = ps.PathValues(T / 2, {"loss": torch.tensor([1.1, 0, last]).double()}, T)
        assert dips.barrier() == 0


def test_a_barrier_of_accuracy_is_how_far_it_falls():
    hump = {"test accuracy": 0.9, "loss": 0.0}

    def measure(state: dict[str, Tensor]) -> dict[str, float]:
        t = state["w"].item()
        return hump | {"test accuracy": 0.9 - 0.2 * t - 0.4 * t * (1 - t)}

    values = ps.path_values(measure, ps.linear_path(at(0.0), at(1.0)))
    assert values.barrier("test accuracy") == pytest.approx(0.1)
    assert values.barrier("test accuracy", over="mean") == pytest.approx(0.8 - 0.675, abs=1e-12)


def test_the_average_is_over_the_length_of_the_path():
    def bent(t: float) -> dict[str, Tensor]:
        return at(min(2 * t, 1.0) * 3, max(2 * t - 1, 0.0))  # 3 long, then 1

    values = ps.path_values(lambda s: {"loss": s["w"][0].item()}, bent, n_points=101)
    assert values.distance[-1] == pytest.approx(4)
    assert values.average() == pytest.approx((3 * 1.5 + 1 * 3) / 4)


def test_the_ends_of_a_line_are_the_states_and_integers_are_the_first_s():
    first = {"w": torch.randn(5), "n": torch.tensor(3)}
    second = {"w": torch.randn(5), "n": torch.tensor(7)}
    path = ps.linear_path(first, second)
    assert torch.equal(path(0.0)["w"], first["w"])
    assert torch.equal(path(1.0)["w"], second["w"])
    assert path(0.5)["n"] == 3


def test_a_measure_is_the_mean_over_samples_in_any_batches():
    model = MLP((4, 6, 3))
    x, y = torch.randn(50, 4), torch.randint(0, 3, (50,))
    expected = functional.cross_entropy(model(x), y).item()
    right = (model(x).argmax(1) == y).double().mean().item()
    for size in (7, 1000):
        found = ps.StateMeasure(model, {"test": (x, y)}, batch_size=size)(model.state_dict())
        assert found["test loss"] == pytest.approx(expected, rel=1e-6)
        assert found["test accuracy"] == right
    regression = ps.StateMeasure(model, {"test": (x, model(x).detach())}, loss=functional.mse_loss)
    assert regression(model.state_dict()) == {"test loss": 0.0}


def test_batch_norms_are_counted_anew_at_every_state():
    def layers() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))

    model, generator = seeded(layers, 0), torch.Generator().manual_seed(0)
    x, y = 5 + torch.randn(64, 2, generator=generator), torch.arange(64) % 2
    model.train()
    expected = functional.cross_entropy(model(x), y).item()
    stale = ps.StateMeasure(model, {"train": (x, y)})
    fresh = ps.StateMeasure(model, {"train": (x, y)}, statistics=[(x,)])
    reset = model.state_dict() | {"1.running_mean": torch.zeros(3), "1.running_var": torch.ones(3)}
    assert fresh(reset)["train loss"] == pytest.approx(expected, rel=1e-2)
    assert stale(reset)["train loss"] != pytest.approx(expected, rel=1e-2)


def test_random_targets_are_as_far_away_tensor_by_tensor():
    first, second = MLP((4, 6, 3)).state_dict(), MLP((4, 6, 3)).state_dict()
    target = ps.random_target(first, second, torch.Generator().manual_seed(0))
    for name in first:
        wanted, found = (s[name] - first[name] for s in (second, target))
        assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-5)
        assert abs((wanted * found).sum()) < 0.99 * wanted.norm() * found.norm()
    assert ps.state_distance(first, target) == pytest.approx(
        ps.state_distance(first, second), rel=1e-5
    )


def test_a_plane_holds_its_corners_and_projects_what_is_off_it():
    corners = at(1.0, 0.0, 0.0), at(4.0, 4.0, 0.0), at(0.0, 2.0, 1.0)
    plane = ps.Plane.through(*corners)
    for state, place in zip(corners, plane.corners, strict=True):
        torch.testing.assert_close(plane.coordinates(state), place)
        torch.testing.assert_close(plane.state(*place.tolist())["w"], state["w"])
    u, v = (basis["w"] for basis in plane.basis)
    assert torch.stack([u @ u, v @ v, u @ v]).tolist() == pytest.approx([1, 1, 0], abs=1e-12)
    off = {"w": plane.state(1.5, -0.5)["w"] + 7 * torch.linalg.cross(u, v)}
    assert plane.coordinates(off).tolist() == pytest.approx([1.5, -0.5])


def test_values_on_a_plane_are_those_of_its_states():
    plane = ps.Plane.through(at(-1.0, 0.0), at(1.0, 0.0), at(0.0, 1.0))
    grid = ps.plane_values(double_well, plane, n_points=5, margin=0.0)
    np.testing.assert_allclose(grid.values["loss"][0], [0, 0.5625, 1, 0.5625, 0])
    assert grid.values["loss"][4, 2] == 2


def test_random_targets_and_distances_keep_ties():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 4, generator=generator)
    first = {"embed": a, "head": a.clone(), "bias": torch.zeros(4), "other bias": torch.zeros(4)}
    second = {"embed": b, "head": b.clone(), "bias": torch.ones(4), "other bias": torch.ones(4)}
    target = ps.random_target(first, second, generator)
    assert torch.equal(target["embed"], target["head"])
    assert not torch.equal(target["bias"], target["other bias"])  # constants are equal by chance
    expected = ((a - b).double().square().sum() + 8).sqrt().item()
    assert ps.state_distance(first, second) == pytest.approx(expected)
    assert ps.state_distance(first, target) == pytest.approx(expected)


def test_the_mean_output_knows_nothing():
    model = MLP((4, 3, 2))
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    measure = ps.StateMeasure(model, {"test": (x, y)}, batch_size=16)
    with torch.no_grad():
        mean = model(x).mean(0).expand(50, 2)
    found = measure.uninformed(model.state_dict())
    best = min(functional.cross_entropy(a * mean, y).item() for a in (0, 0.25, 0.5, 0.75, 1))
    assert found["test loss"] == pytest.approx(best, rel=1e-5)
    assert found["test accuracy"] == pytest.approx(float((mean.argmax(1) == y).double().mean()))


def test_what_does_not_fit_is_refused():
    line = ps.linear_path(at(0.0), at(1.0))
    with pytest.raises(ValueError, match="at least 3 places"):
        ps.path_values(double_well, line, n_points=2)
    with pytest.raises(ValueError, match="finite numbers at both ends are required"):
        ps.path_values(lambda s: {"loss": 1 / s["w"].item() if s["w"] else float("inf")}, line)
    values = ps.path_values(lambda s: {"loss": 0.0}, line)
    with pytest.raises(ValueError, match="one of 'loss', but 'test loss' arrived"):
        values.barrier("test loss")
    with pytest.raises(ValueError, match="over 'line' or 'mean' can be given, but over='ends'"):
        values.barrier(over="ends")
    two = ps.path_values(lambda s: {"train loss": 0.0, "test loss": 1.0}, line)
    with pytest.raises(ValueError, match="one of 'train loss', 'test loss', but None arrived"):
        two.barrier()
    only = ps.path_values(lambda s: {"test loss": 1.0, "test accuracy": 1.0}, line)
    assert only.barrier() == 0
    assert only.average() == 1
    with pytest.raises(ValueError, match=r"'w' has shape \(1,\) in the first and \(2,\)"):
        ps.linear_path(at(0.0), at(0.0, 1.0))
    with pytest.raises(ValueError, match="do not lie on one line"):
        ps.Plane.through(at(0.0, 0.0), at(1.0, 1.0), at(2.0, 2.0))
    generator = torch.Generator().manual_seed(0)
    ends = [{"w": torch.randn(500, generator=generator)} for _ in range(2)]
    with pytest.raises(ValueError, match="do not lie on one line"):  # but for rounding
        ps.Plane.through(*ends, ps.linear_path(*ends)(0.3))
    with pytest.raises(ValueError, match="as many targets as inputs"):
        ps.StateMeasure(MLP((4, 3, 2)), {"test": (torch.zeros(3, 4), torch.zeros(2))})
