"""Recording inside the `Trainer` of Hugging Face transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from phasescope.integrations.extras import missing
from phasescope.integrations.late import LateRecorder, partitioned
from phasescope.trajectory.recorder import Recorder

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.state import AcceleratorState
    from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments
except ImportError as error:
    raise missing(__name__, "hf", error) from error

__all__ = ["RecorderCallback"]

# Where the recorder's state lies in the trainer_state.json of a checkpoint.
_STATE = "phasescope"
# What these hand to callbacks is not what they train.
_PARTITIONING = ("DEEPSPEED", "MEGATRON_LM")
_FSDP2 = "fsdp=True, fsdp_config={'fsdp_version': 2}"


class RecorderCallback(TrainerCallback):
    """Records a training by `transformers.Trainer`; training stays bit-identical.

    The recorder is attached when the training begins, to the model and to the optimizer inside
    accelerate's wrapper. A step is one update, however many micro-batches it accumulates, and
    ``gradients`` is what the optimizer consumed: accumulated, unscaled, clipped to
    ``max_grad_norm``. In data-parallel training every process has the callback, the first writes.
    With FSDP2 (``fsdp_config={"fsdp_version": 2}``) the norms can be recorded, and probes.

    What the Trainer logs is filed under the step of its weights: loss, gradient norm and learning
    rate under the update just done (a loss averaged over several updates under the last of them),
    an evaluation under the weights it saw. The summary at the end (``train_runtime``, ...)
    belongs to no step and is left out. A slash in a name becomes a dot.

    **Resuming.** The Trainer owns the checkpoints. After ``resume_from_checkpoint`` the run in
    `directory` goes on from that checkpoint's step: later rows are dropped and recorded again.
    Before a checkpoint is written every row of an earlier step is committed, so none is missing,
    and what was logged is in the checkpoint. The rows are those of an uninterrupted run as far
    as the Trainer repeats its batches and random numbers. A checkpoint of a training that was not
    recorded can be resumed as well: the run then begins at its step.

    Args:
        directory: The run's directory; it must be new unless the training goes on from a
            checkpoint, or `resume` is set.
        **settings: The keyword arguments of `phasescope.Recorder`: ``save=`` and so on. ``n_steps``
            is the Trainer's ``max_steps`` if it is not given; ``checkpoint`` and ``state`` are
            refused. ``resume=True`` allows a training that begins anew to drop what the directory
            holds, for jobs that may be killed before their first checkpoint.

    Raises:
        TypeError: `Recorder` has no such argument, or ``save`` is missing.
        ValueError: An argument belongs to the Trainer here.

    Example:
        >>> import phasescope as ps
        >>> callback = RecorderCallback("runs/gpt2", save={"gradients": ps.every(10)})
        >>> callback.recorder is None  # until Trainer(..., callbacks=[callback]).train()
        True
    """

    def __init__(self, directory: str | Path, **settings: Any) -> None:
        self._late = LateRecorder(directory, settings)
        self._evaluating = False

    @property
    def recorder(self) -> Recorder | None:
        """The recorder while a training runs: ``callback.recorder.log(...)``."""
        return self._late.recorder

    def close(self) -> None:
        """End the recording of a training that was stopped by an error: the Trainer tells no one.

        The next training, or the end of the process, does it too.
        """
        self._late.end("interrupted")

    # --- called by the Trainer ----------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach the recorder."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        _refuse_partitions(model)
        scaler = None
        if isinstance(optimizer, AcceleratedOptimizer):
            scaler, optimizer = optimizer.scaler, optimizer.optimizer
        self._evaluating = False
        self._late.begin(
            model,
            optimizer,
            n_steps=state.max_steps,
            state=_restored(state),
            scaler=scaler,
        )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first micro-batch of an update comes now."""
        self._late.begin_update()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An update is done; a checkpoint may follow."""
        self._before_checkpoint(state, control.should_save)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint may follow."""
        self._before_checkpoint(state, control.should_save)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation is going on."""
        self._evaluating = True

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any,
        **kwargs: Any,
    ) -> None:
        """It is over."""
        self._evaluating = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """It is over; a checkpoint of the best model may follow."""
        self._evaluating = False
        self._before_checkpoint(state, control.should_save or args.save_strategy == "best")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """File what the Trainer logs."""
        if logs is None:
            return
        if "total_flos" in logs and not self._evaluating:
            # The summary. load_best_model_at_end replaces the weights before on_train_end: those
            # after the last update are there now.
            self._late.end("complete")
            return
        self._late.log(logs, now=self._evaluating)
        self._before_checkpoint(state, control.should_save)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint was written that no event before it had announced."""
        self._late.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop recording."""
        self._late.end("complete")

    def _before_checkpoint(self, state: TrainerState, announced: bool) -> None:
        """Put into the Trainer's state what its next checkpoint must hold."""
        recorder = self._late.recorder
        if recorder is None:
            return
        if announced:
            self._late.flush()
        # Reading the metrics may wait for a GPU: only where a checkpoint is announced.
        kept = self._late.state() if announced else {"step": recorder.step}
        _states(state)[_STATE] = {"global_step": state.global_step, "recorder": kept}


def _restored(state: TrainerState) -> dict[str, Any]:
    """The recorder's state in the checkpoint that the Trainer resumes from.

    `global_step` counts the updates that a gradient scaler skipped, the recorder does not.
    """
    if not state.global_step:
        return {"step": 0}
    kept = _states(state).get(_STATE)
    if kept is None:
        return {"step": state.global_step}
    behind = state.global_step - kept["global_step"]
    return kept["recorder"] if not behind else {"step": kept["recorder"]["step"] + behind}


def _states(state: TrainerState) -> dict[str, Any]:
    """What the Trainer keeps of its callbacks; it is annotated as the list it is made from."""
    return cast("dict[str, Any]", state.stateful_callbacks)


def _refuse_partitions(model: Any) -> None:
    strategy = str(getattr(AcceleratorState(), "distributed_type", "")).rpartition(".")[2]
    if strategy in _PARTITIONING:
        raise partitioned(strategy, f"Train with {_FSDP2}")
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in model.modules()):
        raise partitioned("FullyShardedDataParallel", f"Choose its successor: {_FSDP2}")
