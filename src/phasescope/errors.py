"""The few exceptions that a caller would catch, and warnings at the line of the caller."""

import sys
import warnings

# Whose lines mean nothing to the author of a training loop.
_INSIDE = ("phasescope", "torch", "transformers", "accelerate", "lightning", "jaxtyping")


class PhasescopeError(Exception):
    """Base of every error that phasescope raises on purpose, apart from Python's own types."""


class RunError(PhasescopeError):
    """A run directory cannot be used: foreign, locked, damaged, or of another schema version."""


class RecordingError(PhasescopeError):
    """Recording cannot go on: the disk is full, a writer failed, or the loop broke the protocol."""


class DataError(PhasescopeError):
    """A data set cannot be had, or its files are damaged."""


class RecordingWarning(UserWarning):
    """What was recorded is usable but surprising, such as a gradient that is not finite."""


def warn(message: str) -> None:
    """Warn of something surprising in a recording, at the line of the training loop it comes from.

    Not for the writer's thread: what it has to say is kept for the loop.
    """
    level, frame = 2, sys._getframe(1)
    while _is_inside(frame.f_globals.get("__name__", "")) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RecordingWarning, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in _INSIDE
