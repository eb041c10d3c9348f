"""Recording inside the `Trainer` of Lightning 2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasescope.errors import RecordingError
from phasescope.integrations.extras import missing
from phasescope.integrations.late import LateRecorder, partitioned
from phasescope.trajectory.recorder import Recorder

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
except ImportError as error:
    raise missing(__name__, "lightning", error) from error

__all__ = ["RecorderCallback"]

_PARTITIONING = (DeepSpeedStrategy, FSDPStrategy)


class RecorderCallback(Callback):
    """Records a training by `lightning.pytorch.Trainer`; training stays bit-identical.

    The recorder is attached when the training begins. A step is one update of the recorded
    optimizer, however many batches it accumulates, and ``gradients`` is what the optimizer
    consumed: accumulated, unscaled, clipped. (Lightning clips inside ``optimizer.step``, after
    ``on_before_optimizer_step``; the recorder reads the gradients after the update, so it needs an
    optimizer that leaves ``.grad`` as it was, as all of PyTorch's do.) Automatic and manual
    optimization are recorded alike. In data-parallel training every process has the callback, the
    first writes. Under ``ModelParallelStrategy`` (`fully_shard`, tensor parallelism) the norms can
    be recorded, and probes.

    What `self.log` brings to ``trainer.callback_metrics`` is filed under the step of its weights:
    values of a batch under its update (of accumulated batches the last one's), validation under
    the weights it saw, means over an epoch under the epoch's last update, if their name is not
    that of a value of every batch (``train_loss_epoch`` is, then). A slash in a name becomes a dot.

    **Resuming.** Lightning owns the checkpoints; the recorder's state is part of them. After
    ``fit(ckpt_path=...)`` the run in `directory` goes on from that checkpoint: later rows are
    dropped and recorded again. When a checkpoint is written, every row of an earlier step is
    committed first. The rows are those of an uninterrupted run as far as Lightning repeats its
    batches and random numbers (it does not restore the random state). A checkpoint of a training
    that was not recorded can be resumed as well: the run then begins at its step.

    An error or Ctrl-C ends the recording as interrupted. Put this callback before callbacks that
    change the weights at the end of training, such as weight averaging.

    Args:
        directory: The run's directory; it must be new unless the training goes on from a
            checkpoint, or `resume` is set.
        optimizer: Which of several optimizers is recorded, by its index in what
            ``configure_optimizers`` returns. The others change the weights between the updates of
            this one; use one callback and one directory for each.
        **settings: The keyword arguments of `phasescope.Recorder`: ``save=`` and so on. ``n_steps``
            is what Lightning estimates if it is not given (automatic optimization only);
            ``checkpoint`` and ``state`` are refused. ``resume=True`` allows a training that begins
            anew to drop what the directory holds.

    Raises:
        TypeError: `Recorder` has no such argument, or ``save`` is missing.
        ValueError: An argument belongs to the Trainer here.

    Example:
        >>> import phasescope as ps
        >>> callback = RecorderCallback("runs/mine", save={"gradients": ps.every(10)})
        >>> callback.recorder is None  # until Trainer(callbacks=[callback]).fit(...)
        True
    """

    def __init__(
        self, directory: str | Path, *, optimizer: int | None = None, **settings: Any
    ) -> None:
        self._late = LateRecorder(directory, settings)
        self._index = optimizer
        self._restored: dict[str, Any] | None = None
        # The values filed last, by name: a value is new if it lies in other memory.
        self._filed: dict[str, Tensor] = {}
        self._of_batches: set[str] = set()

    @property
    def recorder(self) -> Recorder | None:
        """The recorder while a training runs: ``callback.recorder.log(...)``."""
        return self._late.recorder

    @property
    def state_key(self) -> str:
        """What the state is called in a checkpoint."""
        return self._generate_state_key(optimizer=self._index)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of the recording; every row of an earlier step is committed."""
        self._late.flush()
        return self._late.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; used when the training begins."""
        self._restored = state_dict

    # --- called by the Trainer ----------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the recorder."""
        restored, self._restored = self._restored, None
        if isinstance(trainer.strategy, _PARTITIONING):
            raise partitioned(
                type(trainer.strategy).__name__,
                "Train with ModelParallelStrategy and fully_shard in configure_model",
            )
        if restored is None:
            if trainer.global_step and len(trainer.optimizers) > 1:
                raise RecordingError(
                    f"{trainer.global_step} updates were done before by {len(trainer.optimizers)} "
                    "optimizers, and the checkpoint does not say how many by which: it was written "
                    "without this callback. Train from the beginning, or from another checkpoint."
                )
            restored = {"step": trainer.global_step}
        self._filed, self._of_batches = {}, set()
        self._late.begin(
            pl_module,
            _chosen(trainer.optimizers, self._index),
            n_steps=_n_steps(trainer, pl_module),
            state=restored,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """File what the module logged at the end of the epoch before."""
        self._file(trainer, of_epoch=True)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """File what the module logged after the batch before; the next update may come now."""
        self._file(trainer)
        self._late.begin_update()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """File what the batch logged."""
        self._file(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """File what the module logged after the batch before."""
        self._file(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """File what the validation logged, under the weights as they are now."""
        self._file(trainer, now=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """File the means over the epoch, under its last update."""
        self._file(trainer, of_epoch=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop recording."""
        self._file(trainer, of_epoch=True)
        self._late.end("complete")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop recording: the run is interrupted."""
        self._late.end("interrupted")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop recording if nothing else has."""
        self._late.end("interrupted")

    def _file(self, trainer: Trainer, *, now: bool = False, of_epoch: bool = False) -> None:
        if self._late.recorder is None:
            return
        new = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if name not in self._filed or _place(self._filed[name]) != _place(value)
        }
        # Held, so that the memory of a value is not given to the next one.
        self._filed |= new
        if of_epoch:
            new = {name: value for name, value in new.items() if name not in self._of_batches}
        elif not now:
            self._of_batches |= set(new)
        if new:
            self._late.log(new, now=now)


def _place(value: Tensor) -> tuple[int, int]:
    """Where a value lies in memory, and how often it was overwritten there."""
    return value.data_ptr(), value._version


def _chosen(optimizers: list[torch.optim.Optimizer], index: int | None) -> torch.optim.Optimizer:
    names = [f"{i}: {type(optimizer).__name__}" for i, optimizer in enumerate(optimizers)]
    if index is None and len(optimizers) == 1:
        return optimizers[0]
    if index is None or not 0 <= index < len(optimizers):
        raise ValueError(
            "one recording has one optimizer, whose updates are its steps, but the module has "
            f"{len(names)} ({', '.join(names) or 'none'}) and optimizer={index} was asked for. "
            "Write RecorderCallback(..., optimizer=0), and use one callback and directory for each."
        )
    return optimizers[index]


def _n_steps(trainer: Trainer, module: LightningModule) -> int | None:
    """Updates of the whole training, where Lightning knows."""
    if not module.automatic_optimization:
        return None
    estimate = trainer.estimated_stepping_batches
    return int(estimate) if math.isfinite(estimate) and estimate > 0 else None
