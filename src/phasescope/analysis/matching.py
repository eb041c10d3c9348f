"""Whether a null belongs to the spectrum that it is laid beside."""

from __future__ import annotations

from typing import Any

import torch

from phasescope.analysis.spectrum import Spectrum


def check_same_rows(spectrum: Spectrum, null: Any, caller: str, advice: str) -> None:
    """Raise unless a null was made from a spectrum's steps, centring and normalisation."""
    problems = [
        f"{name} is {getattr(spectrum, name)!r} in the spectrum but {getattr(null, name)!r} in the "
        "null"
        for name in ("center", "normalize")
        if getattr(spectrum, name) != getattr(null, name)
    ]
    ours, theirs = spectrum.steps, null.steps
    if not torch.equal(ours, theirs):
        ends = [f"({t[0]} to {t[-1]})" if t else "(none)" for t in (ours.tolist(), theirs.tolist())]
        problems.append(
            f"steps are {len(ours)} values {ends[0]} in the spectrum but {len(theirs)} values "
            f"{ends[1]} in the null"
        )
    if problems:
        raise ValueError(
            f"{caller} needs a null made from the same steps, centring and normalisation as the "
            f"spectrum, but {'; '.join(problems)}. Make it from this spectrum: {advice}."
        )
