import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from phasescope.datasets import ShuffledBatches, as_inputs, load_digits_images
from phasescope.models import MLP, ConvNet, seeded
from phasescope.training import accuracy, train

Event = tuple[str, int, Mapping[str, float]]


class FakeRecorder:
    """Counts optimizer steps by the public hook, and keeps what it is told in order."""

    def __init__(self, optimizer: torch.optim.Optimizer, step: int = 0) -> None:
        self.step = step
        self.events: list[Event] = []
        optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, optimizer: object, args: object, kwargs: object) -> None:
        self.step += 1
        self.events.append(("step", self.step, {}))

    def log(self, *, step: int | None = None, **metrics: float | Tensor) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        self.events.append(("log", self.step - 1 if step is None else step, values))

    def end_step(self) -> None:
        self.events.append(("end", self.step, {}))


def small() -> tuple[ConvNet, torch.optim.Optimizer, ShuffledBatches]:
    """A network with dropout, its optimizer, and six batches."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 1, 6, 6, generator=generator)
    y = torch.randint(0, 3, (12,), generator=generator)
    model = seeded(lambda: ConvNet(image_size=6, width=2, n_classes=3), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, ShuffledBatches(x, y, 4, seed=0, n_epochs=2)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_the_loop_equals_the_one_written_out():
    model, optimizer, batches = small()
    torch.manual_seed(3)
    losses: list[float] = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    expected = weights(model)

    model, optimizer, batches = small()
    seen: list[tuple[int, float]] = []
    torch.manual_seed(3)
    steps = train(
        model, optimizer, batches, on_step=lambda step, loss: seen.append((step, loss.item()))
    )
    assert steps == 6
    assert torch.equal(weights(model), expected)
    assert seen == list(enumerate(losses, start=1))


def test_linear_regression_reaches_the_least_squares_solution(float64_default: None):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randn(20, 1, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    train(model, optimizer, [(x, y)] * 500, loss_fn=nn.functional.mse_loss)
    torch.testing.assert_close(model.weight.detach().T, torch.linalg.lstsq(x, y).solution)


def test_a_recorder_hears_loss_evaluation_and_the_end_of_each_step_in_this_order():
    model, optimizer, batches = small()
    recorder = FakeRecorder(optimizer)
    on_step: Callable[[int, Tensor], None] = lambda step, loss: recorder.events.append(  # noqa: E731
        ("on_step", step, {})
    )
    values = iter([10.0, 11.0, 12.0, 13.0])
    train(
        model,
        optimizer,
        batches,
        recorder=recorder,
        evaluate=lambda model: {"test_accuracy": next(values)},
        evaluate_every=4,
        on_step=on_step,
    )
    kinds = [(kind, step, tuple(metrics)) for kind, step, metrics in recorder.events]
    measured = ("test_accuracy",)
    expected: list[tuple[str, int, tuple[str, ...]]] = [("log", 0, measured)]
    for step in range(1, 7):
        expected += [("step", step, ()), ("log", step - 1, ("train_loss",))]
        expected += [("log", step, measured)] if step == 4 else []
        expected += [("on_step", step, ()), ("end", step, ())]
    expected += [("log", 6, measured)]
    assert kinds == expected


def test_the_last_evaluation_is_not_made_twice():
    model, optimizer, batches = small()
    recorder = FakeRecorder(optimizer)
    train(
        model,
        optimizer,
        batches,
        recorder=recorder,
        evaluate=lambda model: {"test_accuracy": 0.0},
        evaluate_every=3,
    )
    steps = [step for kind, step, metrics in recorder.events if "test_accuracy" in metrics]
    assert steps == [0, 3, 6]


def test_a_resumed_loop_counts_and_evaluates_as_the_original():
    model, optimizer, batches = small()
    next(iter(batches))
    next(iter(batches))
    recorder = FakeRecorder(optimizer, step=2)
    steps = train(
        model,
        optimizer,
        batches,
        recorder=recorder,
        evaluate=lambda model: {"test_accuracy": 0.0},
        evaluate_every=4,
    )
    assert steps == 6
    evaluated = [step for kind, step, metrics in recorder.events if "test_accuracy" in metrics]
    assert evaluated == [4, 6]


def test_recording_and_evaluating_leave_training_bit_identical():
    model, optimizer, batches = small()
    torch.manual_seed(3)
    train(model, optimizer, batches)
    expected, state = weights(model), torch.get_rng_state()

    model, optimizer, batches = small()

    def careless(model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        model.train()
        return {"noise": float(model(torch.rand(1, 1, 6, 6)).sum())}

    torch.manual_seed(3)
    train(
        model,
        optimizer,
        batches,
        recorder=FakeRecorder(optimizer),
        evaluate=careless,
        evaluate_every=1,
    )
    assert torch.equal(weights(model), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_logged_loss_keeps_no_graph():
    model, optimizer, batches = small()
    losses: list[Tensor] = []
    train(model, optimizer, batches, on_step=lambda step, loss: losses.append(loss))
    assert not any(loss.requires_grad for loss in losses)


def test_training_puts_the_model_into_training_mode():
    model, optimizer, batches = small()
    train(model.eval(), optimizer, batches)
    assert all(module.training for module in model.modules())


def test_no_batches_change_nothing_but_are_evaluated():
    model, optimizer, _ = small()
    before = weights(model)
    calls: list[nn.Module] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        calls.append(model)
        return {}

    assert train(model, optimizer, [], evaluate=evaluate) == 0
    assert torch.equal(weights(model), before)
    assert calls == [model]


def test_evaluations_that_are_never_due_are_refused():
    model, optimizer, batches = small()
    with pytest.raises(ValueError, match="evaluate_every must be at least 1 step, but it is 0"):
        train(model, optimizer, batches, evaluate_every=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_accuracy_is_the_share_of_right_answers_whatever_the_batch_size(batch_size: int):
    outputs = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0])]
    labels = torch.tensor([0, 1, 2, 0, 1])
    assert accuracy(nn.Identity(), outputs, labels, batch_size=batch_size) == 3 / 5


def test_accuracy_ignores_dropout():
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.eye(10), torch.randperm(10, generator=generator)
    model = nn.Sequential(nn.Dropout(0.9))
    assert accuracy(model, outputs[labels], labels) == 1
    assert model.training


@pytest.mark.parametrize(("n", "batch_size"), [(0, 1), (1, 0)])
def test_accuracy_of_nothing_is_refused(n: int, batch_size: int):
    with pytest.raises(ValueError, match=f"there are {n} samples and batch_size is {batch_size}"):
        accuracy(
            nn.Identity(),
            torch.zeros(n, 2),
            torch.zeros(n, dtype=torch.int64),
            batch_size=batch_size,
        )


def test_accuracy_needs_one_label_for_each_sample(unchecked_types: None):
    with pytest.raises(ValueError, match=r"shape \(4, 4\) and the labels \(4, 1\)"):
        accuracy(nn.Identity(), torch.eye(4), torch.arange(4)[:, None])


def test_an_mlp_learns_the_real_digits():
    digits, held_out = load_digits_images("train"), load_digits_images("test")
    model = seeded(lambda: MLP((64, 32, 10)), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = ShuffledBatches(as_inputs(digits), digits.labels, 32, seed=0, n_epochs=4)
    losses: list[float] = []
    train(model, optimizer, batches, on_step=lambda step, loss: losses.append(loss.item()))
    assert losses[0] == pytest.approx(math.log(10), abs=0.3)
    assert accuracy(model, as_inputs(held_out), held_out.labels) > 0.93
