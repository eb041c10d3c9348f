"""`Recorder`: the public optimizer hooks write a training run into a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phasescope.components import Subspace
from phasescope.errors import RunError
from phasescope.parameters import Component, ParameterTable, named_parameters
from phasescope.trajectory import schema, unclosed
from phasescope.trajectory.checkpoint import Stateful
from phasescope.trajectory.checkpoints import Checkpoints
from phasescope.trajectory.contents import describe, make_contents
from phasescope.trajectory.distributed import process_rank
from phasescope.trajectory.flat import FlatParameters
from phasescope.trajectory.lock import RunLock
from phasescope.trajectory.optimizers import DecayFactor, check_owned, check_real
from phasescope.trajectory.plan import Plan, check_disk, make_plan
from phasescope.trajectory.probes import Probe
from phasescope.trajectory.quiet import QuietFile, quiet_contents
from phasescope.trajectory.recording import OnFailure, Recording
from phasescope.trajectory.runfile import RunFile
from phasescope.trajectory.schedule import Schedule
from phasescope.trajectory.session import scalar
from phasescope.trajectory.sharding import check_sharded
from phasescope.trajectory.sketch import CountSketch
from phasescope.trajectory.store import holds_rows

if TYPE_CHECKING:
    from phasescope.trajectory.sinks import Sink


class Recorder:
    """Records a training run through the optimizer's hooks, without changing it.

    Step t is the number of updates already applied: ``gradients[t]`` is what the optimizer consumed
    at ``weights[t]``, and ``updates[t] = weights[t+1] - weights[t]``. What each group holds is
    written down in `phasescope.trajectory.schema` and in the documentation of the schema.

    Use it as a context manager, or call `attach` and `close`.

    Args:
        directory: The run's directory; it must be new, unless `resume` is set.
        model: The model. Parameters are flattened in ``named_parameters()`` order.
        optimizer: The optimizer whose updates are the steps.
        save: What to save when: ``{"gradients": every(1), "weights": log_spaced(200)}``. Groups:
            gradients, unclipped_gradients, updates, decay, weights, moments, norms,
            component_norms, sketches, probes; one part of a group by a slash:
            ``"norms/gradients"``, ``"moments/exp_avg"``, ``"probes/logits"``. The weights after
            the last update are always added to the weights.
        n_steps: Number of updates of the whole run; `log_spaced` needs it.
        checkpoint: When to save a restorable state; call `end_step` last in the loop's body then.
        state: What else a checkpoint holds, such as ``{"scheduler": ..., "loader": ...}``: anything
            with ``state_dict`` and ``load_state_dict``. A gradient scaler belongs here too: the
            updates that it skips are seen through it.
        components: Named parts of the parameter vector for ``component_norms``, from
            `phasescope.components`.
        sketch: The sketch for ``sketches``.
        sinks: Who else gets every metric and norm, such as TensorBoard.
        probes: Named functions of the model, evaluated in ``eval()`` and ``no_grad`` mode.
        config: The run's configuration, a mapping or dataclass of plain values, kept in run.json.
        loss_reduction: Whether the loss is a mean or a sum over the batch; it cannot be detected.
        dtype: float32, or bfloat16 for half the disk (relative rounding error up to 2^-9).
        decay: The rule ``param group -> lr * weight_decay`` of an optimizer whose decoupled decay
            phasescope does not know.
        on_failure: What becomes of the training when recording cannot go on (a full disk):
            ``"raise"`` stops it with a `RecordingError`, ``"continue"`` warns once and lets it run
            without a recording. What was committed stays either way.
        resume: Go on from the newest checkpoint of `directory` (from step 0 if it has none). Where
            somebody else writes the checkpoints, what `state_dict` returned for the one to which
            model and optimizer have been restored, or ``{"step": updates done before}``; for a run
            that goes on from another one's checkpoint, what `interventions.fork` returned.

    Raises:
        ValueError: The arguments do not fit together.
        RunError: The directory holds a run already, or is being written by another process.

    Example:
        >>> import phasescope as ps, tempfile
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> directory = tempfile.mkdtemp() + "/run"
        >>> save = {"updates": ps.every(1)}
        >>> with ps.Recorder(directory, model, optimizer, save=save) as recorder:
        ...     for step in range(3):
        ...         loss = model(torch.ones(4, 2)).mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         recorder.log(train_loss=loss)
        >>> ps.open_run(directory).updates.shape
        (3, 3)
    """

    def __init__(
        self,
        directory: str | Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        save: Mapping[str, Schedule],
        n_steps: int | None = None,
        checkpoint: Schedule | None = None,
        state: Mapping[str, Stateful] | None = None,
        components: Mapping[str, Component | Subspace] | None = None,
        sketch: CountSketch | None = None,
        sinks: Sequence[Sink] = (),
        probes: Mapping[str, Probe] | None = None,
        config: Any = None,
        loss_reduction: Literal["mean", "sum", "unknown"] = "unknown",
        dtype: Literal["float32", "bfloat16"] = "float32",
        decay: DecayFactor | None = None,
        on_failure: OnFailure = "raise",
        resume: bool | Mapping[str, Any] = False,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"one torch.optim.Optimizer is required, but {type(optimizer).__name__} arrived. "
                "Of several optimizers each has a Recorder and a directory of its own."
            )
        self.directory = Path(directory)
        self.model = model
        self.optimizer = optimizer
        self.n_steps = n_steps
        if on_failure not in ("raise", "continue"):
            raise ValueError(f"on_failure is 'raise' or 'continue', but {on_failure!r} arrived.")
        self._on_failure: OnFailure = on_failure
        self._resume = resume
        self._checkpoints = Checkpoints(
            self.directory, model, optimizer, state or {}, checkpoint, n_steps
        )
        parameters = named_parameters(model)
        self.table = ParameterTable.from_module(model)
        self._contents = make_contents(
            save,
            self.table,
            optimizer,
            n_steps=n_steps,
            dtype=dtype,
            decay=decay,
            probes=probes or {},
            components=components or {},
            sketch=sketch,
            sinks=sinks,
        )
        check_sharded(
            model,
            optimizer,
            parameters,
            self._contents.save,
            checkpoint=checkpoint is not None,
            on_failure=on_failure,
        )
        check_owned(optimizer, parameters)
        check_real(parameters)
        self._flat = FlatParameters(parameters, self.table)
        content = describe(
            self._contents, save, self.table, optimizer, dtype, loss_reduction, config
        )
        if isinstance(resume, Mapping) and "origin" in resume:
            content["origin"] = dict(resume["origin"])  # a fork says where it came from
        self._file = RunFile(self.directory, content)
        self._lock: RunLock | None = None
        self._live: Recording | None = None
        self._unclosed = -1
        self._step = 0

    @property
    def step(self) -> int:
        """Updates applied so far, those before a resume included."""
        return self._step if self._live is None else self._live.step

    # --- before and after -------------------------------------------------------------------

    def plan(self) -> Plan:
        """What will be saved: bytes per step and in total, and the free disk.

        Example:
            >>> import phasescope as ps
            >>> model = nn.Linear(999, 1)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> recorder = ps.Recorder("runs/x", model, optimizer, save={"gradients": ps.every(1)})
            >>> recorder.plan().rows[0].bytes_per_row
            4000
        """
        return make_plan(
            self._contents.save,
            self._contents.specs,
            self.table,
            self.n_steps,
            self.directory,
            checkpoint=self._checkpoints.schedule,
            checkpoint_bytes=self._checkpoints.n_bytes(),
            components=self._contents.components,
        )

    def attach(self) -> Recorder:
        """Start recording; called by ``with``. A second call changes nothing."""
        if self._live is not None:
            return self
        if process_rank()[0] > 0:
            self._live = self._follow()
            return self
        if self.directory.exists() and not self.directory.is_dir():
            raise RunError(f"a run directory is required, but {self.directory} is a file.")
        check_disk(self.plan(), self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self.directory)
        try:
            self._live = self._open()
        except BaseException:
            self._lock.release()
            raise
        finish = self._live.lost(self._lock.release)
        release = self._lock.release
        self._unclosed = unclosed.watch(self._live, self.directory, finish, release)
        return self

    def close(self, status: Literal["complete", "interrupted"] = "complete") -> None:
        """Write what is still in memory, remove every hook, and release the directory."""
        if self._live is None:
            return
        live, self._live = self._live, None
        unclosed.forget(self._unclosed)
        self._step = live.step
        try:
            live.close(status)
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Recorder:
        """Start recording."""
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish recording; an exception of the loop marks the run as interrupted."""
        self.close("complete" if kind is None else "interrupted")

    def _open(self) -> Recording:
        exists = (self.directory / schema.RUN_FILE).exists()
        if exists and not self._resume:
            raise RunError(
                f"a new run needs a directory of its own, but {self.directory} holds a run already "
                f"(status {self._file.read()['status']!r}). Choose another directory or delete "
                "this one; to go on with it pass resume=True."
            )
        if exists:
            self._file.check_same()
        else:
            self._check_free()
        given = isinstance(self._resume, Mapping)
        restored = self._checkpoints.begin(self._resume if given else exists)
        if restored is None and exists and "origin" in self._file.read():
            raise RunError(
                f"{self.directory} is a fork that was interrupted before its first checkpoint, so "
                "nothing here tells where it began. Fork again, with resume=fork(...)."
            )
        return Recording(
            self.directory,
            self.model,
            self.optimizer,
            self._contents,
            self._flat,
            self._file,
            self._checkpoints,
            on_failure=self._on_failure,
            restored=restored,
        )

    def _check_free(self) -> None:
        """Refuse to begin a run where one has lost its run.json, or where something else lies."""
        found = [schema.STORE] if holds_rows(self.directory / schema.STORE) else []
        found += [f"{schema.CHECKPOINTS}/{name}" for name in self._checkpoints.leftovers()[:3]]
        if found:
            raise RunError(
                f"a new run needs a directory of its own, but {self.directory} holds {found} and "
                f"no {schema.RUN_FILE}: a run that has lost it, or something else, and recording "
                f"would write over it. Choose another directory, put the {schema.RUN_FILE} back, "
                "or delete what is there."
            )

    def _follow(self) -> Recording:
        """Take part in a run that another process, rank 0, writes."""
        return Recording(
            None,
            self.model,
            self.optimizer,
            quiet_contents(self._contents, named_parameters(self.model)),
            self._flat,
            QuietFile(self.directory, {}),
            self._checkpoints,
            on_failure=self._on_failure,
            # Whether rank 0 has begun the run's file by now says nothing about checkpoints.
            restored=self._checkpoints.begin(self._resume),
        )

    # --- in the loop ------------------------------------------------------------------------

    def log(self, *, step: int | None = None, **values: float | int | Float[Tensor, ""]) -> None:
        """File scalars under the step of the weights on which they were evaluated.

        After ``optimizer.step()`` that is the update just done; before it, or after `end_step`,
        the coming one. Values logged twice for one step replace each other.

        Args:
            step: The step, if another: ``step=recorder.step`` for the weights as they are now.
            **values: Numbers, or tensors with one element.

        Raises:
            RuntimeError: The recorder is not attached.
            ValueError: A value has more than one element, or its step has been written already, or
                is not reached yet.
        """
        if self._live is None:
            raise RuntimeError(
                "log() requires an attached recorder, but it is closed. Log inside "
                "'with Recorder(...) as recorder:', or call recorder.attach() first."
            )
        self._live.log(step, {name: scalar(name, value) for name, value in values.items()})

    def end_step(self) -> None:
        """Say that this iteration is over; call it last in the loop's body.

        Checkpoints are taken here, where the weights, the scheduler and the position in the data
        belong together. What is logged from here on belongs to the coming step.
        """
        if self._live is not None:
            self._live.end_step()

    def flush(self) -> None:
        """Commit every complete row: readers see it, and no death of the process loses it."""
        if self._live is not None:
            self._live.flush()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of somebody else's holds of the recording, for ``resume=``; plain data.

        Call `flush` before the checkpoint is written, so that it is not ahead of the rows.

        Raises:
            RuntimeError: The recorder is not attached.
        """
        if self._live is None:
            raise RuntimeError(
                "state_dict() requires an attached recorder, but it is closed. Call it inside "
                "'with Recorder(...) as recorder:', or before recorder.close()."
            )
        return self._live.state_dict()
