"""Loss and accuracy of a module at other weights than its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from phasescope.analysis.connectivity import State
from phasescope.analysis.permutations import reestimate_batch_norm
from phasescope.models.calling import call_at, tied_names, with_ties
from phasescope.models.evaluation import evaluating


class StateMeasure:
    """Loss and accuracy of a module at any state, in evaluation mode.

    Of every set of data the mean loss comes as ``"NAME loss"``, and, where targets are class
    numbers and outputs one row of scores each, the share of largest outputs at their targets as
    ``"NAME accuracy"``.

    Args:
        model: The module; it is not changed.
        data: Name to inputs and targets, such as ``{"train": (x, y), "test": (x2, y2)}``.
        loss: Mean loss of (outputs, targets).
        batch_size: Samples at once; changes memory, not the result beyond rounding.
        statistics: Tuples of inputs from which the running statistics of batch norms are counted
            anew at every state, see `reestimate_batch_norm`; by default they are the state's own.

    Tied weights count once: a state may have them under any of their names.

    Raises:
        ValueError: There are no data, or as many inputs as targets are not given; or, when called,
            the model or the loss fails on a set.
        TypeError: A set is no pair of tensors, or the loss does not take what the model returns.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 2)
        >>> measure = StateMeasure(model, {"test": (torch.eye(2), torch.tensor([0, 1]))})
        >>> state = {"weight": 5 * torch.eye(2), "bias": torch.zeros(2)}
        >>> {name: round(value, 4) for name, value in measure(state).items()}
        {'test loss': 0.0067, 'test accuracy': 1.0}
    """

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, tuple[Tensor, Tensor]],
        *,
        loss: Callable[[Any, Tensor], Tensor] = functional.cross_entropy,
        batch_size: int = 1000,
        statistics: Sequence[tuple[Any, ...]] | None = None,
    ) -> None:
        check_sets(data)
        lengths = {name: (len(x), len(y)) for name, (x, y) in data.items()}
        if not data or any(n != m or not n for n, m in lengths.values()):
            raise ValueError(
                "at least one set with as many targets as inputs is required, but "
                f"{lengths or 'none'} arrived."
            )
        self.model, self._data, self._loss = model, dict(data), loss
        self._batch_size, self._statistics = batch_size, statistics
        self._tied = tied_names(model)

    def __call__(self, state: State) -> dict[str, float]:
        """The numbers at a state."""
        state = self._prepared(state)
        result: dict[str, float] = {}
        with evaluating(self.model):
            for name, (inputs, targets) in self._data.items():
                total, correct = 0.0, 0
                labels = not targets.is_floating_point() and targets.ndim == 1
                for x, y in self._batches(name):
                    out, mean_loss = self._outputs(state, name, x, y)
                    total += mean_loss * len(x)
                    labels = labels and isinstance(out, Tensor) and out.ndim == 2
                    if labels:
                        correct += int((out.argmax(1) == y).sum())
                result[f"{name} loss"] = total / len(inputs)
                if labels:
                    result[f"{name} accuracy"] = correct / len(inputs)
        return result

    def uninformed(self, state: State) -> dict[str, float]:
        """The numbers of the best model that gives one answer to every input: it knows nothing.

        Answers between none (zeros) and the mean of the outputs, in quarters, are tried.

        Args:
            state: Whose outputs are averaged.

        Returns:
            By name, of every set; nothing where outputs are no tensors with a row for each input.
        """
        state = self._prepared(state)
        result: dict[str, float] = {}
        with evaluating(self.model):
            for name, (inputs, targets) in self._data.items():
                total = None
                for x, y in self._batches(name):
                    out, _ = self._outputs(state, name, x, y)
                    if not isinstance(out, Tensor) or not out.ndim or len(out) != len(x):
                        return {}
                    total = out.sum(0) if total is None else total + out.sum(0)
                assert total is not None
                answer = (total / len(inputs)).expand(len(inputs), *total.shape)
                result[f"{name} loss"] = min(
                    self._mean_loss(share / 4 * answer, targets) for share in range(5)
                )
                if not targets.is_floating_point() and targets.ndim == 1 and answer.ndim == 2:
                    right = (answer.argmax(1) == targets).double().mean()
                    result[f"{name} accuracy"] = right.item()
        return result

    def _prepared(self, state: State) -> dict[str, Tensor]:
        """The state as it is measured: every tensor once, statistics counted anew if asked."""
        state = with_ties(state, self._tied)
        if self._statistics is not None:
            return reestimate_batch_norm(self.model, state, self._statistics)
        return state

    def _batches(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of a set, in parts."""
        parts = (values.split(self._batch_size) for values in self._data[name])
        return zip(*parts, strict=True)

    def _outputs(self, state: State, name: str, x: Tensor, y: Tensor) -> tuple[Any, float]:
        """What the model returns on a batch of a set, and its mean loss."""
        try:
            out = call_at(self.model, state, self._tied, (x,))
            return out, self._mean_loss(out, y)
        except (RuntimeError, ValueError, IndexError) as error:
            weights = {str(v.dtype) for v in state.values() if v.is_floating_point()}
            raise ValueError(
                f"the model and the loss must take inputs and targets of the set {name!r}, but "
                f"with inputs {tuple(x.shape)} {x.dtype}, targets {tuple(y.shape)} {y.dtype} and "
                f"weights of {', '.join(sorted(weights))} it failed: {error}. Convert what does "
                "not fit, or pass loss=."
            ) from error

    def _mean_loss(self, out: Any, y: Tensor) -> float:
        try:
            return self._loss(out, y).item()
        except (TypeError, AttributeError) as error:
            raise TypeError(
                "a loss that takes what the model returns is required, but "
                f"{getattr(self._loss, '__name__', 'the loss')} does not take "
                f"{type(out).__name__}: {error}. Pass loss=, a function of (outputs, targets) such "
                "as lambda out, y: cross_entropy(out.logits, y)."
            ) from error


def check_sets(data: Mapping[str, Any]) -> None:
    """Raise unless every set is a pair of tensors."""
    for name, pair in data.items():
        if not (
            isinstance(pair, tuple | list)
            and len(pair) == 2
            and all(isinstance(part, Tensor) for part in pair)
        ):
            raise TypeError(
                f"a pair (inputs, targets) of tensors is required for the set {name!r}, but "
                f"{_described(pair)} arrived. Of a loader, concatenate the batches: x, y = map("
                "torch.cat, zip(*loader))."
            )


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value)}"
    return f"a {type(value).__name__}"
