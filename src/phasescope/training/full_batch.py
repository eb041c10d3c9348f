"""Training on all examples at every step, with every step's losses on both sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phasescope.training.loop import TrainingLog
from phasescope.training.rates import LearningRate

# Pairs [n, 2] and labels [n], or both with an axis of seeds in front.
Examples = tuple[Tensor, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]
METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
# Examples of all seeds together that are computed at once (what stays in the cache), and of each at
# least.
_BLOCK, _SMALLEST_BLOCK = 2048, 128


def cross_entropy_float64(
    logits: Float[Tensor, "*seeds n classes"], labels: Int64[Tensor, "*own n"]
) -> Float[Tensor, "*seeds n"]:
    """Cross-entropy of every example, computed in float64 from the logits as they are.

    In float32 it could not fall below 1.2e-7 but to 0, and its gradient would vanish. Entries of
    the gradient with respect to the logits that are below 2⁴⁰ times the smallest normal number
    (1.3e-26 in float32) are zero: no optimizer notices them, since their squares are zero, but
    products with them are subnormal numbers, which processors multiply a hundred times slower.

    Args:
        logits: In nats.
        labels: Classes, the same for all seeds or one set per seed.

    Returns:
        In nats.

    Example:
        >>> logits = torch.tensor([[20.0, 0.0]])
        >>> round(cross_entropy_float64(logits, torch.tensor([0])).item() * 1e9, 4)
        2.0612
    """
    return _cross_entropy(_without_tiny_gradients(logits).double(), labels)


def cross_entropy_float32(
    logits: Float[Tensor, "*seeds n classes"], labels: Int64[Tensor, "*own n"]
) -> Float[Tensor, "*seeds n"]:
    """Cross-entropy of every example in float32, to see what its rounding does to a training.

    Tiny entries of its gradient are zero, as in `cross_entropy_float64`.

    Args:
        logits: In nats.
        labels: Classes, the same for all seeds or one set per seed.

    Returns:
        In nats.

    Example:
        >>> cross_entropy_float32(torch.tensor([[20.0, 0.0]]), torch.tensor([0])).item()
        0.0
    """
    return _cross_entropy(_without_tiny_gradients(logits).float(), labels)


def squared_error(
    outputs: Float[Tensor, "*seeds n classes"], labels: Int64[Tensor, "*own n"]
) -> Float[Tensor, "*seeds n"]:
    """Mean over the classes of the squared difference to the one-hot label, of every example.

    Args:
        outputs: One per class.
        labels: Classes, the same for all seeds or one set per seed.

    Returns:
        Without unit.

    Example:
        >>> squared_error(torch.tensor([[1.0, 1.0]]), torch.tensor([0])).item()
        0.5
    """
    # (o − y)² summed = Σo² − 2 o_y + 1: no one-hot matrix.
    picked = _picked(outputs, labels)
    return (outputs.square().sum(-1) - 2 * picked + 1) / outputs.shape[-1]


@dataclass(frozen=True, eq=False)
class TrainingCurves:
    """Losses and accuracies at every step, each at the weights before the update of that step.

    With an ensemble every curve has the axis of seeds behind the steps.
    """

    steps: Int64[Tensor, " steps"]
    """Updates applied; the last one is the state at the end."""
    train_loss: Float[Tensor, "steps *seeds"]
    train_accuracy: Float[Tensor, "steps *seeds"]
    test_loss: Float[Tensor, "steps *seeds"]
    test_accuracy: Float[Tensor, "steps *seeds"]


def train_full_batch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Examples,
    test: Examples,
    n_steps: int,
    *,
    loss_fn: LossFunction = cross_entropy_float64,
    rate: LearningRate | None = None,
    recorder: TrainingLog | None = None,
    on_step: Callable[[int, dict[str, Tensor]], Any] | None = None,
    compiled: bool = False,
) -> TrainingCurves:
    """Train on all examples at every step, and measure both sets at the weights of every step.

    A step is an epoch. At step t, loss and accuracy on the training set come from the pass whose
    gradient makes update t, and the test set is evaluated at the same weights, in evaluation mode;
    after the last update both are measured once more. With a recorder all four are logged under
    their step, and a resumed run goes on where it was.

    An ensemble is trained in the same way: a model whose outputs have an axis of seeds in front,
    with its own examples per seed or the same for all. The gradient is that of the sum over seeds
    of each seed's mean loss, so every seed learns as it would alone.

    Args:
        model: Logits of pairs; trained in place.
        optimizer: Over its parameters.
        train: Pairs and labels to train on.
        test: Pairs and labels to test on.
        n_steps: Updates in all, those before a resume included.
        loss_fn: Loss of every example.
        rate: Sets the learning rate before every update.
        recorder: A `Recorder` attached to the same model and optimizer, already entered:
            ``with ps.Recorder(...) as recorder:``.
        on_step: Called at every step before its update, and after the last, with the number of
            updates applied and the four metrics.
        compiled: Whether model and loss go through `torch.compile`, which needs a C++ compiler and
            pays off after some thousand steps of a large network.

    Returns:
        The curves from the step on where this call began.

    Raises:
        ValueError: A set of examples is empty, or `n_steps` is not positive.

    Example:
        >>> from phasescope.datasets import modular_task, split_pairs
        >>> from phasescope.models import PairTransformer
        >>> task = modular_task("add", 7)
        >>> split = split_pairs(len(task.labels), 0.5, seed=0)
        >>> model = PairTransformer(7, d_model=16, n_heads=2, d_mlp=32)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        >>> train, test = task.examples(split.train), task.examples(split.test)
        >>> curves = train_full_batch(model, optimizer, train, test, 100)
        >>> len(curves.steps), bool(curves.train_loss[-1] < 0.1)
        (101, True)
    """
    _check(train, test, n_steps)
    measure = torch.compile(_measure) if compiled else _measure
    first = recorder.step if recorder is not None else 0
    # One tensor for each: many small ones that are kept would lie between the large ones of every
    # step, and the memory of these could not be used again.
    curves: dict[str, Tensor] = {}

    def note(step: int, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            if name not in curves:
                curves[name] = value.new_empty(max(0, n_steps - first) + 1, *value.shape)
            curves[name][step - first] = value
        if recorder is not None:
            recorder.log(step=step, **metrics)
        if on_step is not None:
            on_step(step, metrics)

    model.train()
    modules = [module for module in model.modules() if module.training]
    for step in range(first, n_steps):
        optimizer.zero_grad(set_to_none=True)
        losses, accuracy = _backward(model, train, loss_fn, measure)
        note(step, _metrics(losses, accuracy, model, modules, test, loss_fn, measure))
        if rate is not None:
            rate.before_update(step, losses)
        optimizer.step()
        if recorder is not None:
            recorder.end_step()
    n_seeds = curves["train_loss"][0].numel() if curves else 1
    losses, accuracy = _evaluated(model, train, loss_fn, _measure, n_seeds)
    note(max(first, n_steps), _metrics(losses, accuracy, model, modules, test, loss_fn, measure))
    steps = torch.arange(first, max(first, n_steps) + 1)
    return TrainingCurves(steps, **{name: curve.cpu() for name, curve in curves.items()})


class _WithoutTinyGradients(torch.autograd.Function):
    """The identity; what is next to subnormal in a gradient becomes zero on the way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (gradient,) = grad_outputs
        return nn.functional.hardshrink(gradient, 2.0**40 * torch.finfo(gradient.dtype).tiny)

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Tensor) -> Tensor:
        return grad_inputs[0].view_as(grad_inputs[0])


def _without_tiny_gradients(logits: Tensor) -> Tensor:
    found = _WithoutTinyGradients.apply(logits) if logits.requires_grad else logits
    assert isinstance(found, Tensor)
    return found


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.logsumexp(logits, -1) - _picked(logits, labels)


def _picked(outputs: Tensor, labels: Tensor) -> Tensor:
    """The output at every example's label."""
    return outputs.gather(-1, labels.expand(outputs.shape[:-1])[..., None]).squeeze(-1)


def _measure(
    model: Callable[[Tensor], Tensor], pairs: Tensor, labels: Tensor, loss_fn: LossFunction
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every seed."""
    outputs = model(pairs)
    correct = _correct(outputs.detach(), labels)
    return loss_fn(outputs, labels).mean(-1), correct.double().mean(-1)


def _correct(outputs: Tensor, labels: Tensor) -> Tensor:
    """Whether the label has the largest output, or is the first of several largest ones."""
    if not outputs.is_cpu or torch.compiler.is_compiling():
        return outputs.argmax(-1) == labels
    # On a CPU the largest value is found several times faster than its place.
    largest = outputs.amax(-1, keepdim=True)
    # A row with NaN equals nothing, and must not make up for a tie in another.
    if int((outputs == largest).count_nonzero()) > int((largest == largest).count_nonzero()):
        return outputs.argmax(-1) == labels
    return _picked(outputs, labels) == largest.squeeze(-1)


@runtime_checkable
class _Tabulated(Protocol):
    """A model that can compute what it needs of its weights alone once for many calls."""

    def tables(self) -> dict[str, Tensor] | None:
        """That, or None if there is no such part."""
        ...

    def from_tables(self, tables: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs."""
        ...


def _backward(
    model: nn.Module, examples: Examples, loss_fn: LossFunction, measure: Any
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every seed, and the gradient of their sum."""
    tables = _tables(model, measure)
    if tables is None:
        losses, accuracy = measure(model, *examples, loss_fn)
        losses.sum().backward()
        return losses, accuracy
    # Blocks of examples, whose intermediates stay in the cache, one after another down to the
    # tables; from these the gradient goes to the weights once.
    leaves = {name: table.detach().requires_grad_() for name, table in tables.items()}

    def add(loss: Tensor, share: float) -> None:
        (share * loss.sum()).backward()

    function = _from(model, leaves)
    n_seeds = len(model) if isinstance(model, Sized) else 1
    found = _in_blocks(function, examples, loss_fn, measure, n_seeds, add)
    made = [name for name, table in tables.items() if table.requires_grad]
    torch.autograd.backward([tables[n] for n in made], [leaves[n].grad for n in made])
    return found


def _tables(model: nn.Module, measure: Any) -> dict[str, Tensor] | None:
    """What the model can compute once for many calls; compiled code computes it along."""
    return model.tables() if measure is _measure and isinstance(model, _Tabulated) else None


def _from(model: Any, tables: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: model.from_tables(tables, inputs)


def _evaluated(
    model: nn.Module, examples: Examples, loss_fn: LossFunction, measure: Any, n_seeds: int
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every seed, without a gradient."""
    with torch.no_grad():
        tables = _tables(model, measure)
        function = model if tables is None else _from(model, tables)
        return _in_blocks(function, examples, loss_fn, measure, n_seeds)


def _in_blocks(
    function: Callable[[Tensor], Tensor],
    examples: Examples,
    loss_fn: LossFunction,
    measure: Any,
    n_seeds: int,
    each: Callable[[Tensor, float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of every seed; `each` gets the loss of a block and its share."""
    pairs, labels = examples
    # Compiled code reads and writes less, and every other number of rows is compiled anew.
    rows = max(_SMALLEST_BLOCK, _BLOCK // n_seeds) if measure is _measure else labels.shape[-1]
    total: tuple[Tensor, Tensor] | None = None
    for inputs, answers in zip(pairs.split(rows, -2), labels.split(rows, -1), strict=True):
        share = answers.shape[-1] / labels.shape[-1]
        loss, right = measure(function, inputs, answers, loss_fn)
        if each is not None:
            each(loss, share)
        part = share * loss.detach(), share * right
        total = part if total is None else (total[0] + part[0], total[1] + part[1])
    assert total is not None
    return total


def _metrics(
    losses: Tensor,
    accuracy: Tensor,
    model: nn.Module,
    modules: Sequence[nn.Module],
    test: Examples,
    loss_fn: LossFunction,
    measure: Any,
) -> dict[str, Tensor]:
    try:
        for module in modules:
            module.training = False
        test_loss, test_accuracy = _evaluated(model, test, loss_fn, measure, losses.numel())
    finally:
        for module in modules:
            module.training = True
    values = (losses.detach().clone(), accuracy, test_loss, test_accuracy)
    return dict(zip(METRICS, values, strict=True))


def _check(train: Examples, test: Examples, n_steps: int) -> None:
    sizes = [examples[1].shape[-1] for examples in (train, test)]
    if min(sizes) < 1 or n_steps < 1:
        raise ValueError(
            "full-batch training needs examples to train and to test on and at least one step, but "
            f"there are {sizes[0]} and {sizes[1]} examples and n_steps is {n_steps}."
        )
