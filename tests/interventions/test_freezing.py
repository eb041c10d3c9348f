import copy

import pytest
import torch
from torch import nn

from phasescope.interventions import SequentialFreezing, freezeout_ends, settled


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 4), nn.Linear(4, 2)
    ).double()


STAGES = ("0", "1", "2")


def trained(n_steps: int, *, until: int | None = None, **how) -> tuple:
    model = network()
    optimizer = torch.optim.SGD(
        SequentialFreezing.groups(model, STAGES), lr=0.1, momentum=0.9, weight_decay=0.1
    )
    freezing = SequentialFreezing(model, optimizer, STAGES, n_steps=n_steps, window=2, **how)
    model.train()
    seen = []
    for step in range(n_steps if until is None else until):
        freezing.before_update(step)
        one_step(model, optimizer, step)
        seen.append((copy.deepcopy(model.state_dict()), [g["lr"] for g in optimizer.param_groups]))
    return model, optimizer, freezing, seen


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step)).double()
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_freezeout_ends_are_those_of_the_paper():
    assert freezeout_ends(5, 0.5, 1) == pytest.approx((0.5, 0.625, 0.75, 0.875, 1.0))
    assert freezeout_ends(5, 0.8)[0] == pytest.approx(0.512)
    assert {freezeout_ends(n, t / 100)[-1] for n in range(2, 12) for t in range(1, 101)} == {1.0}
    assert freezeout_ends(5, 0.8)[2] == pytest.approx(0.9**3)
    for arguments in ((1, 0.5), (3, 0.0), (3, 1.2), (3, 0.5, 0)):
        with pytest.raises(ValueError, match="at least two stages"):
            freezeout_ends(*arguments)


def test_a_stage_settles_when_its_movement_stays_and_not_before():
    falling = [2.0**-i for i in range(10)]
    assert settled(falling) is None
    assert settled([*falling, *[0.001] * 5]) == 13
    assert settled([1.0, 1.05, 1.0, 1.5, 1.5, 1.5, 1.5], tolerance=0.1, patience=3) == 6
    assert settled([1.0, 1.05, 1.0], patience=2) == 2
    assert settled([]) is None
    assert settled([0.0, 0.0, 0.0, 0.0]) is None
    with pytest.raises(ValueError, match="must be positive"):
        settled([1.0], tolerance=0.0)


def test_frozen_stages_do_not_change_at_all_and_the_others_go_on():
    _, optimizer, freezing, seen = trained(12, ends=(0.5, 0.75, 1.0))
    assert freezing.frozen_at == [6, 9, None]
    for name in seen[0][0]:
        stage = int(name[0])
        after = [state[name] for state, _ in seen]
        end = (6, 9, 12)[stage]
        # batch statistics too: its norm no longer moves, for all the momentum and decay there was
        assert all(torch.equal(v, after[end - 1]) for v in after[end:])
        if "num_batches" not in name:
            assert not torch.equal(after[end - 1], after[end - 2])
    held = {id(p) for p in optimizer.state}
    assert held == {id(p) for p in optimizer.param_groups[2]["params"]}


def test_rates_follow_freezeout_and_every_stage_has_the_same_sum():
    n, ends = 1000, (0.5, 0.8, 1.0)
    model = network()
    optimizer = torch.optim.SGD(SequentialFreezing.groups(model, STAGES), lr=0.1)
    freezing = SequentialFreezing(
        model, optimizer, STAGES, n_steps=n, window=n, ends=ends, cosine=True
    )
    rates = []
    for step in range(n):
        freezing.before_update(step)
        rates.append(
            [g["lr"] if freezing.frozen_at[i] is None else 0.0
             for i, g in enumerate(optimizer.param_groups)]
        )  # fmt: skip
    table = torch.tensor(rates)
    assert table[0].tolist() == pytest.approx([0.2, 0.125, 0.1])
    assert table[250, 0].item() == pytest.approx(0.1)  # half of its training
    assert table.sum(0).tolist() == pytest.approx([50.0] * 3, rel=0.01)
    assert table[500:, 0].max() == 0


def test_without_freezing_the_training_is_that_of_the_plain_optimizer():
    model, _, freezing, _ = trained(7)
    plain = network().train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(7):
        one_step(plain, optimizer, step)
    same = zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert [len(row) for row in freezing.movement] == [3, 3, 3]
    assert freezing.n_frozen == 0


def test_movement_is_the_relative_displacement_per_unit_of_rate():
    _, _, freezing, seen = trained(5)

    def flat(state: dict) -> torch.Tensor:
        return torch.cat([state["2.weight"].flatten(), state["2.bias"]])

    a, b = flat(seen[1][0]), flat(seen[3][0])
    expected = float((b - a).norm() / b.norm() / 0.2)
    assert freezing.movement[2][1] == pytest.approx(expected, rel=1e-12)


def test_stages_are_frozen_in_sequence_once_settled():
    _, _, freezing, _ = trained(40, when_settled=True, tolerance=10.0, patience=2)
    # at the end of the third window, whose change is the second: all but the last
    assert freezing.frozen_at == [6, 6, None]
    _, _, never, _ = trained(40, when_settled=True, tolerance=1e-12)
    assert never.frozen_at == [None] * 3
    # the second stage waits for the first
    _, _, freezing, _ = trained(8, until=1, when_settled=True, tolerance=0.1, patience=1)
    freezing.movement = [[1.0, 2.0], [1.0, 1.0], [1.0, 1.0]]
    freezing.before_update(8)
    assert freezing.n_frozen == 0


def test_a_restored_training_goes_on_in_the_same_way():
    whole, _, _, _ = trained(12, ends=(0.5, 0.75, 1.0), cosine=True)
    model, optimizer, freezing, _ = trained(12, until=7, ends=(0.5, 0.75, 1.0), cosine=True)
    other = network(1)
    fresh = torch.optim.SGD(
        SequentialFreezing.groups(other, STAGES), lr=0.1, momentum=0.9, weight_decay=0.1
    )
    again = SequentialFreezing(
        other, fresh, STAGES, n_steps=12, window=2, ends=(0.5, 0.75, 1.0), cosine=True
    )
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    again.load_state_dict(freezing.state_dict())
    other.train()
    for step in range(7, 12):
        again.before_update(step)
        one_step(other, fresh, step)
    same = zip(whole.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert again.frozen_at == [6, 9, None]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"ends": (0.5, 1.0)}, "one share for each of 3 stages"),
        ({"ends": (0.9, 0.5, 1.0)}, "increasing to 1"),
        ({"ends": (0.5, 0.6, 0.9)}, "increasing to 1"),
        ({"ends": (0.5, 0.6, 1.0), "when_settled": True}, "not both"),
        ({"window": 0}, "must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(how: dict, message: str):
    model = network()
    optimizer = torch.optim.SGD(SequentialFreezing.groups(model, STAGES), lr=0.1)
    with pytest.raises(ValueError, match=message):
        SequentialFreezing(model, optimizer, STAGES, **({"n_steps": 10, "window": 2} | how))


def test_groups_must_cover_every_parameter_once():
    model = network()
    assert [len(g["params"]) for g in SequentialFreezing.groups(model, STAGES)] == [4, 2, 2]
    for stages in (("0", "1"), ("0", "1", "1 2")):
        with pytest.raises(ValueError, match="every parameter exactly once"):
            SequentialFreezing.groups(model, stages)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="one group for each of 3 stages, but it has 1"):
        SequentialFreezing(model, optimizer, STAGES, n_steps=10, window=2)


def test_a_stage_is_frozen_at_the_step_that_its_share_says():
    model = network()
    optimizer = torch.optim.SGD(SequentialFreezing.groups(model, STAGES), lr=0.1)
    freezing = SequentialFreezing(
        model, optimizer, STAGES, n_steps=100, window=50, ends=(0.55, 0.7, 1.0)
    )
    for step in range(100):  # .55 * 100 and .7 * 100 are not whole in floating point
        freezing.before_update(step)
    assert freezing.frozen_at == [55, 70, None]


def test_going_back_thaws_what_was_not_frozen_then():
    model, optimizer, freezing, _ = trained(4, until=1, ends=(0.5, 0.75, 1.0))
    early = copy.deepcopy(freezing.state_dict())
    for step in range(1, 4):
        freezing.before_update(step)
        one_step(model, optimizer, step)
    assert freezing.frozen_at == [2, 3, None]
    freezing.load_state_dict(early)
    assert freezing.frozen_at == [None, None, None]
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())
    before = [p.detach().clone() for p in model.parameters()]
    freezing.before_update(1)
    one_step(model, optimizer, 1)
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert all(moved)
