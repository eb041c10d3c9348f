"""A report about recorded runs: anyone's trainings, no experiment needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from phasescope.analysis.gram import Gram, gram
from phasescope.analysis.profiles import time_profiles as profiles
from phasescope.analysis.ranks import rank_summary
from phasescope.analysis.spectrum import norm_null, spectrum
from phasescope.figures import (
    component_overlaps,
    explained_variance,
    metrics_over_time,
    norms_over_time,
    principal_scores,
    scree,
    time_profiles,
    time_vectors,
)
from phasescope.report.html import write_report
from phasescope.report.nulls import (
    null_counts,
    null_lines,
    null_seconds,
    path_beside_walks,
    too_dear,
)
from phasescope.trajectory.reader import Run, open_run
from phasescope.trajectory.series import Series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def report_runs(runs: Sequence[Path | str], output: Path | str) -> Path:
    """The path of a self-contained HTML report about recorded runs.

    For every run, what was recorded of: the logged metrics, gradient norms per tensor, and the
    singular values of gradients and of updates with their norm-only null and their time vectors.
    If they take less than a minute, random signs are drawn beside, with the time profiles of the
    components and which of them are detected and located. Weights lie beside random walks. What
    cannot be analysed, such as gradients that are not finite, is named in the summary.

    Args:
        runs: Directories of runs.
        output: The file; its folder is made if missing.

    Returns:
        The file.

    Raises:
        ValueError: No run was given.
        RunError: One of them is not a run.

    Example:
        >>> import phasescope as ps, tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with ps.Recorder(folder + "/a", model, optimizer, save={"gradients": ps.every(1)}):
        ...     for x in torch.eye(2):
        ...         model(x).square().sum().backward()
        ...         optimizer.step()
        >>> report_runs([folder + "/a"], folder + "/report.html").name
        'report.html'
    """
    if not runs:
        raise ValueError("report_runs requires at least one run, but got none. Pass its directory.")
    opened = [open_run(path) for path in runs]
    names = [_name(run, opened) for run in opened]
    figures: dict[str, Figure] = {}
    numbers: dict[str, Any] = {}
    for name, run in zip(names, opened, strict=True):
        prefix = f"{name}_" if len(opened) > 1 else ""
        drawn, numbers[name] = _describe(run)
        for key, figure in drawn.items():
            if len(opened) > 1:
                meta = figure.layout.meta
                figure.update_layout(meta=meta | {"title": f"{name}, {meta['title']}"})
            figures[f"{prefix}{key}"] = figure
    recorded = "; ".join(
        f"{name}: {run.status}, {run.info['step']} updates, {run.parameters.size:,} parameters, "
        f"recorded {', '.join(run.series_names) or 'nothing yet'}"
        for name, run in zip(names, opened, strict=True)
    )
    failures = " ".join(
        f"Not analysed in {name}, {key.removesuffix('_not_analysed')}: {value}"
        for name, found in numbers.items()
        for key, value in found.items()
        if key.endswith("_not_analysed")
    )
    nulls = " ".join(
        f"In {name}, {key.partition('_')[0]}: {'; '.join(null_lines(value))}."
        for name, found in numbers.items()
        for key, value in found.items()
        if key.endswith(("_nulls", "_beside_walks"))
    )
    return write_report(
        output,
        title="Recorded runs" if len(opened) > 1 else f"Run {names[0]}",
        summary=f"{recorded}. {nulls} {failures}".strip(),
        claims=[],
        figures=figures,
        config={name: run.config for name, run in zip(names, opened, strict=True)},
        environment=opened[0].info["environment"],
        numbers=numbers,
    )


def _name(run: Run, runs: Sequence[Run]) -> str:
    """The folder's name; with its parent's where two runs are called the same."""
    name = run.path.resolve().name
    same = sum(other.path.resolve().name == name for other in runs)
    return name if same == 1 else f"{run.path.resolve().parent.name}-{name}"


def _describe(run: Run) -> tuple[dict[str, Figure], dict[str, Any]]:
    """Figures of what was recorded; what cannot be analysed is said, and stops nothing else."""
    figures: dict[str, Figure] = {}
    names = run.series_names
    numbers: dict[str, Any] = {
        "recorded": {name: len(run[name]) for name in names},
        "save": run.info.get("save", {}),
        "optimizer": run.info.get("optimizer"),
        "nonfinite": run.info.get("nonfinite", []),
        "missing_gradients": run.info.get("missing_gradients", {}),
    }
    logged = {name.partition("/")[2]: run[name] for name in names if name.startswith("metrics/")}
    metrics = {name: _finite(series) for name, series in logged.items()}
    if metrics:
        figures["metrics"] = metrics_over_time(metrics)
    if "norms/gradients" in names and len(run["norms/gradients"]):
        norms = run["norms/gradients"]
        figures["norms"] = norms_over_time(norms.steps, norms[:], run.parameters.names)
    for group in ("gradients", "updates"):
        if group in names and len(run[group]) > 1:
            try:
                numbers |= _spectra(run, group, figures)
            except ValueError as error:  # such as a gradient that is not finite
                numbers[f"{group}_not_analysed"] = str(error)
    if "weights" in names and len(run["weights"]) > 1:
        try:
            numbers["weights_beside_walks"] = _paths(run, "weights", figures)
        except ValueError as error:  # such as weights that do not move
            numbers["weights_not_analysed"] = str(error)
    return figures, numbers


def _spectra(run: Run, group: str, figures: dict[str, Figure]) -> dict[str, Any]:
    """Ranks and counts of a series beside its nulls; adds the figures."""
    start = time.perf_counter()
    matrix = gram(run[group])
    seconds = null_seconds(time.perf_counter() - start)
    raw = spectrum(matrix)
    variants = {
        "raw": raw,
        "centred": spectrum(matrix, center="steps", time_vectors=False),
        "steps normalised": spectrum(matrix, normalize=True, time_vectors=False),
    }
    ranks = {name: rank_summary(variant).to_dict() for name, variant in variants.items()}
    drawn = {
        f"{group}_scree": scree(raw, norm_null(raw)),
        f"{group}_time_vectors": time_vectors(raw, min(6, len(raw.S))),
    }
    why = too_dear(seconds, len(raw.steps), f"phasescope analyse {run.path.name} --nulls yes")
    numbers: dict[str, Any] = {"skipped": why}
    if why is None:
        try:
            numbers = _beside_nulls(run, group, matrix, drawn)
        except ValueError as error:  # such as a step that cannot be normalised
            numbers = {"skipped": str(error)}
    _add(figures, drawn, group)
    return {f"{group}_ranks": ranks, f"{group}_nulls": numbers}


def _beside_nulls(run: Run, group: str, matrix: Gram, drawn: dict[str, Figure]) -> dict[str, Any]:
    """Counts of centred, normalised steps beside random signs and noise; adds the figures."""
    found = null_counts(run[group], matrix)
    unit = spectrum(matrix, center="steps", normalize=True)
    drawn[f"{group}_scree_nulls"] = scree(unit, [norm_null(unit), found.flips])
    n_resolved = int((unit.resolution < unit.S).sum())
    drawn[f"{group}_time_profiles"] = time_profiles(profiles(unit, min(8, n_resolved)))
    drawn[f"{group}_overlaps"] = component_overlaps(found.located)
    return found.to_dict()


def _paths(run: Run, group: str, figures: dict[str, Figure]) -> dict[str, Any]:
    found, null, numbers = path_beside_walks(gram(run[group], dtype=torch.float64))
    drawn = {
        f"{group}_explained": explained_variance(found, null),
        f"{group}_scores": principal_scores(found, null),
    }
    _add(figures, drawn, group)
    return numbers


def _add(figures: dict[str, Figure], drawn: dict[str, Figure], group: str) -> None:
    """Add figures whose titles say what they are of."""
    for key, figure in drawn.items():
        meta = figure.layout.meta
        figures[key] = figure.update_layout(meta=meta | {"title": f"{meta['title']}: {group}"})


def _finite(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, where it was logged and is a number."""
    values = series[:, 0]
    kept = np.isfinite(values)
    return series.steps[kept], values[kept]
