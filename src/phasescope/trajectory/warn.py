"""Warnings that point at the training loop, not at what it calls."""

import sys
import warnings

from phasescope.errors import RecordingWarning

# Whose lines mean nothing to the author of a training loop.
_INSIDE = ("phasescope", "torch", "transformers", "accelerate", "lightning", "jaxtyping")


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
