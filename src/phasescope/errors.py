"""The few exceptions that a caller would catch, and the warning about a recording."""


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
