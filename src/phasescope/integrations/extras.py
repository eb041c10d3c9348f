"""What to say where a library that an integration needs is not installed."""

from __future__ import annotations


def missing(module: str, extra: str, error: ImportError) -> ImportError:
    """The error to raise when `module` cannot import its library.

    Example:
        >>> print(missing("phasescope.integrations.x", "hf", ImportError("no transformers")))
        phasescope.integrations.x needs an extra of phasescope (no transformers). Install it: pip \
install "phasescope[hf]"
    """
    return ImportError(
        f"{module} needs an extra of phasescope ({error}). "
        f'Install it: pip install "phasescope[{extra}]"'
    )
