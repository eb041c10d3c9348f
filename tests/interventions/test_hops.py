"""Hops over planted barriers, and fine-tuning that leaves a well."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import phasescope as ps
from phasescope.interventions import fine_tune_away, hop_strength, pulled
from phasescope.training import cosine_cycles


def well(height: float):
    def loss(state: dict[str, Tensor], batch: object = None) -> Tensor:
        return height * (state["w"].square() - 1).square().sum()

    return loss


LEFT, RIGHT = ({"w": torch.tensor([w], dtype=torch.float64)} for w in (-1.0, 1.0))
SETTINGS = {"n_pull": 300, "n_release": 100, "lr": 0.02, "precision": 1.05}


def hop(height: float, start=LEFT, target=RIGHT, **settings):
    side = torch.sign(target["w"])
    return hop_strength(
        well(height),
        start,
        target,
        lambda: [None] * 400,
        lambda state: (state["w"] * side).item() > 0.5,
        **{**SETTINGS, **settings},
    )


def test_the_strength_is_half_the_barrier_and_grows_with_it():
    """From λ = h/2 on, the pull 2λ(1 − w) beats the slope 4h w (w² − 1) everywhere."""
    found = {height: hop(height) for height in (0.5, 1.0, 2.0)}
    for height, strength in found.items():
        assert 0.97 * height / 2 <= strength.value <= 1.15 * height / 2
        assert strength.fails < strength.value < strength.succeeds <= 1.05 * strength.fails
    assert found[0.5].value < found[1.0].value < found[2.0].value
    back = hop(1.0, RIGHT, LEFT)
    assert back.value == pytest.approx(found[1.0].value, rel=1e-9)  # no hysteresis by symmetry


def test_within_one_basin_no_pull_is_needed():
    near = {"w": torch.tensor([0.9], dtype=torch.float64)}
    found = hop(1.0, near, RIGHT)
    assert found.value == 0
    assert [trial.strength for trial in found.trials] == [0.0]


def test_what_cannot_hold_it_is_infinite_and_what_always_does_is_at_most_the_weakest():
    nowhere = hop_strength(
        well(1.0), LEFT, RIGHT, lambda: [None] * 2, lambda s: False, n_pull=1, n_release=1
    )
    assert nowhere.value == math.inf
    moved = hop_strength(
        lambda s, b: 0 * s["w"].sum(),
        LEFT,
        RIGHT,
        lambda: [None] * 40,
        lambda s: s["w"].item() > -1,
        n_pull=40,
        n_release=0,
    )
    assert moved.value == 1e-5


def test_a_pull_is_stable_however_strong():
    end = pulled(well(1.0), LEFT, RIGHT, [None] * 10, strength=1e6, n_pull=10, n_release=0, lr=0.02)
    assert end["w"].item() == pytest.approx(1, abs=1e-3)
    assert LEFT["w"].item() == -1


def test_fine_tuning_leaves_for_a_solution_behind_the_barrier():
    """On a ring of solutions it goes to where the straight way from the start is highest."""

    def ring(state: dict[str, Tensor], batch: Tensor) -> Tensor:
        return ((state["w"] - batch).norm() - 1).square()

    generator = torch.Generator().manual_seed(0)
    batches = 0.3 * torch.randn(3000, 2, generator=generator, dtype=torch.float64)
    start = {"w": torch.tensor([-1.0, 0.0], dtype=torch.float64), "n": torch.tensor(3)}
    found = fine_tune_away(ring, start, batches, level=1.0, lr=0.2, momentum=0.0)
    middle = torch.zeros(2, dtype=torch.float64)
    assert ring(found.state, middle) < 0.05
    path = ps.path_values(
        lambda state: {"loss": ring(state, middle).item()}, ps.linear_path(start, found.state)
    )
    assert path.barrier() > 0.8
    assert found.state["w"][0] > 0.8
    assert start["w"].tolist() == [-1.0, 0.0]
    assert found.t.min() == 0.25
    assert found.t.max() == 0.75


def test_without_a_level_fine_tuning_is_descent_with_the_same_schedule_and_nothing_else():
    def loss(state: dict[str, Tensor], batch: Tensor) -> Tensor:
        return (state["w"] - batch).pow(4).sum()

    batches = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = {"w": torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)}
    factor = cosine_cycles(30)
    found = fine_tune_away(loss, start, batches, level=None, lr=0.01, schedule=factor)
    w = start["w"].clone().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.01, momentum=0.9)
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 0.01 * factor(step)
        optimizer.zero_grad()
        loss({"w": w}, batch).backward()
        optimizer.step()
    torch.testing.assert_close(found.state["w"], w.detach(), rtol=1e-12, atol=1e-12)
    away = fine_tune_away(loss, start, batches, level=50.0, lr=0.01, schedule=factor)
    assert (away.state["w"] - found.state["w"]).norm() > 1e-3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="0 < low < high and a precision above 1"):
        hop(1.0, low=2.0, high=1.0)
    with pytest.raises(ValueError, match="10 batches are required, but there are 3"):
        pulled(well(1.0), LEFT, RIGHT, [None] * 3, strength=1.0, n_pull=5, n_release=5)
    with pytest.raises(ValueError, match=r"at step \d+ of a pull of 0 it is (inf|nan)"):
        pulled(
            well(100.0),
            {"w": torch.tensor([3.0])},
            {"w": torch.tensor([1.0])},
            [None] * 50,
            strength=0.0,
            n_pull=50,
            n_release=0,
            lr=1.0,
        )
    with pytest.raises(ValueError, match="at least one batch is required"):
        fine_tune_away(well(1.0), LEFT, [], level=1.0)


@pytest.mark.usefixtures("unchecked_types")
def test_batches_must_be_a_function():
    with pytest.raises(TypeError, match=r"a function that returns .* a list arrived\. Pass lambda"):
        hop_strength(well(1.0), LEFT, RIGHT, [None] * 9, bool, n_pull=1, n_release=1)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("answer", [0.3, torch.tensor(0.3), float("nan"), None])
def test_a_barrier_in_place_of_an_answer_is_refused(answer: object):
    with pytest.raises(
        TypeError, match="landed must say True or False of a state, but it returned"
    ):
        hop_strength(
            well(1.0), LEFT, RIGHT, lambda: [None] * 9, lambda s: answer, n_pull=1, n_release=1
        )


def test_answers_of_torch_and_numpy_are_answers():
    for yes in (torch.tensor(True), np.bool_(True)):
        found = hop_strength(
            well(1.0),
            LEFT,
            RIGHT,
            lambda: [None] * 9,
            lambda s, yes=yes: yes,
            n_pull=1,
            n_release=1,
        )
        assert found.value == 0


@pytest.mark.usefixtures("unchecked_types")
def test_fine_tuning_needs_losses_of_one_number_and_a_level():
    with pytest.raises(ValueError, match=r"level, the loss .* must not be negative, but it is -1"):
        fine_tune_away(well(1.0), LEFT, [None], level=-1.0)
    with pytest.raises(
        TypeError,
        match=r"one number, .* but between the start and step 0 it is a tensor of shape \(3,\)",
    ):
        fine_tune_away(lambda s, b: s["w"].expand(3), LEFT, [None], level=None)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_what_a_pull_minimises_does_not_depend_on_momentum(momentum: float):
    start, target = ({"w": torch.tensor([w], dtype=torch.float64)} for w in (1.0, 3.0))
    found = pulled(
        lambda s, b: s["w"].square().sum(), start, target, [None] * 2000,
        strength=1.0, n_pull=2000, n_release=0, lr=0.01, momentum=momentum,
    )  # fmt: skip
    # w² + (w − 3)² is smallest at 1.5; a proximal step keeps to it up to the learning rate.
    assert found["w"].item() == pytest.approx(1.5, abs=0.1)
