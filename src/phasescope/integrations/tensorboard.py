"""Forwarding summaries of a recording to TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from phasescope.integrations.extras import missing

try:
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError as error:
    raise missing(__name__, "trackers", error) from error

__all__ = ["TensorBoardSink"]


class TensorBoardSink:
    """Writes every metric and norm of a recording as a scalar of TensorBoard.

    Tags are ``metrics/NAME``, ``norms/QUANTITY`` (all tensors together) and
    ``norms/QUANTITY/TENSOR``. TensorBoard keeps scalars as float32. They appear up to some seconds
    after their step, when its block has been committed.

    Args:
        directory: The folder of TensorBoard's event files; a resumed run adds a file to it.

    Example:
        >>> import phasescope as ps, tempfile
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> folder = Path(tempfile.mkdtemp())
        >>> sinks = [TensorBoardSink(folder / "tensorboard")]
        >>> with ps.Recorder(
        ...     folder / "run", model, optimizer, save={"norms": ps.every(1)}, sinks=sinks
        ... ):
        ...     model(torch.ones(4, 2)).mean().backward()
        ...     optimizer.step()
        >>> len(list((folder / "tensorboard").glob("events*")))
        1
    """

    def __init__(self, directory: str | Path) -> None:
        self._writer = EventFileWriter(str(directory), flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar per value."""
        # One event for all of them: one each would cost nine times as much.
        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        summary = Summary(value=scalars)
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()
