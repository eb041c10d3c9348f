"""The reference training loop."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from phasescope.models.evaluation import evaluating
from phasescope.training.transform import Transform, transform_gradients


@runtime_checkable
class TrainingLog(Protocol):
    """What the loop needs of a recorder."""

    @property
    def step(self) -> int:
        """Optimizer updates applied so far, those before a resume included."""
        ...

    def log(self, *, step: int | None = None, **metrics: float | Tensor) -> None:
        """File values under a step."""
        ...

    def end_step(self) -> None:
        """Be told that everything about the step has been done."""
        ...


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    recorder: TrainingLog | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    evaluate_every: int = 100,
    on_step: Callable[[int, Tensor], None] | None = None,
    transform: Transform | None = None,
) -> int:
    """Number of optimizer updates that the model has behind it after training on all batches.

    One update per batch: zero the gradients, loss, backward, optimizer step. With a recorder, the
    loss is logged as `train_loss` under the step whose weights it was computed with, and
    `recorder.end_step()` comes last in every step: what is saved there (a checkpoint) includes
    everything about the step.

    `evaluate` is called in evaluation mode, without gradients and with the random state put back
    afterwards, before the first update, after every `evaluate_every` updates and after the last
    one. What it returns is logged under the number of updates applied by then. Steps are counted by
    the recorder if there is one, so a resumed training is evaluated at the steps of the original.

    The model is put into training mode and left in it.

    Args:
        model: Trained in place.
        optimizer: Over the model's parameters.
        batches: Pairs of inputs and targets on the model's device.
        loss_fn: Scalar loss of (outputs, targets).
        recorder: A `Recorder` attached to the same model and optimizer, already entered.
        evaluate: Measures the model; names of metrics to values.
        evaluate_every: Steps between evaluations.
        on_step: Called after every update, before `end_step`, with the number of updates applied
            and the loss.
        transform: What the gradients go through between backward and step; see
            `transform_gradients`.

    Returns:
        Updates applied, those before a resume included if there is a recorder.

    Raises:
        ValueError: If `evaluate_every` is not positive.

    Example:
        >>> x = torch.arange(4.0).reshape(4, 1)
        >>> model = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> train(model, optimizer, [(x, 2 * x)] * 50, loss_fn=functional.mse_loss)
        50
        >>> round(model(x)[3].item(), 1)
        6.0
    """
    if evaluate_every < 1:
        raise ValueError(f"evaluate_every must be at least 1 step, but it is {evaluate_every}.")
    step = recorder.step if recorder is not None else 0

    def measure() -> None:
        if evaluate is not None:
            with evaluating(model):
                metrics = evaluate(model)
            if recorder is not None:
                recorder.log(step=step, **metrics)

    model.train()
    if step == 0:
        measure()
    for x, y in batches:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        if transform is not None:
            transform_gradients(model, transform)
        optimizer.step()
        step += 1
        if recorder is not None:
            recorder.log(train_loss=loss.detach())
        if step % evaluate_every == 0:
            measure()
        if on_step is not None:
            on_step(step, loss.detach())
        if recorder is not None:
            recorder.end_step()
    if step % evaluate_every != 0:
        measure()
    return step


def accuracy(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *features"],
    labels: Int64[Tensor, " n"],
    *,
    batch_size: int = 1000,
) -> float:
    """Share of samples whose largest output is at their label, in evaluation mode.

    Modes and random state are left as they were, see `evaluating`. Ties go to the first class, and
    outputs that are not a number count as the largest: check that a low accuracy is not a NaN.

    Args:
        model: Returns one row of outputs per sample.
        inputs: Samples along the first axis, on the model's device.
        labels: Class of each sample.
        batch_size: Samples evaluated at once; changes memory, not the result beyond rounding.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: If there are no samples, not one label for each, or `batch_size` is not
            positive.

    Example:
        >>> accuracy(nn.Identity(), torch.eye(3), torch.tensor([0, 1, 1]))
        0.6666666666666666
    """
    if len(labels) == 0 or batch_size < 1:
        raise ValueError(
            "accuracy needs at least one sample and a positive batch_size, but there are "
            f"{len(labels)} samples and batch_size is {batch_size}."
        )
    if labels.shape != inputs.shape[:1]:
        raise ValueError(
            "accuracy needs one label for each sample, but the samples have the shape "
            f"{tuple(inputs.shape)} and the labels {tuple(labels.shape)}."
        )
    correct = torch.zeros((), dtype=torch.int64, device=labels.device)
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
            correct += (model(x).argmax(1) == y).sum()
    return correct.item() / len(labels)


def class_losses(
    model: nn.Module,
    inputs: Shaped[Tensor, "n *features"],
    labels: Int64[Tensor, " n"],
    n_classes: int,
    *,
    batch_size: int = 1000,
) -> Float64[Tensor, " n_classes"]:
    """Mean cross-entropy of the samples of each class, in evaluation mode.

    Args:
        model: Returns one row of logits per sample.
        inputs: Samples along the first axis, on the model's device.
        labels: Class of each sample.
        n_classes: Number of classes.
        batch_size: Samples evaluated at once; changes memory, not the result beyond rounding.

    Returns:
        Nats, a number for each class; NaN for a class without samples.

    Raises:
        ValueError: If there are no samples, or a label is not below `n_classes`.

    Example:
        >>> class_losses(nn.Identity(), torch.zeros(3, 2), torch.tensor([0, 1, 1]), 2)
        tensor([0.6931, 0.6931], dtype=torch.float64)
    """
    if len(labels) == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(
            f"class_losses needs at least one sample, with labels from 0 to {n_classes - 1}, but "
            f"there are {len(labels)} samples with labels {labels[:8].tolist()} …"
        )
    sums = torch.zeros(n_classes, dtype=torch.float64, device=labels.device)
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
            sums.index_add_(0, y, functional.cross_entropy(model(x), y, reduction="none").double())
    return sums.cpu() / torch.bincount(labels, minlength=n_classes).cpu()
