"""``phasescope sweep EXPERIMENT``: the flags are the fields of the experiment's configuration."""

import contextlib
import dataclasses
import importlib
import importlib.util
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from phasescope.errors import PhasescopeError
from phasescope.experiments.runner import finish, known_runs, with_seeds, with_stored
from phasescope.report import Claim
from phasescope.report.plain import json_text
from phasescope.sweeps.cluster import RETRIES
from phasescope.sweeps.grid import SEED, grid
from phasescope.sweeps.outcome import Outcome, Progress
from phasescope.sweeps.progress import shown
from phasescope.sweeps.running import sweep
from phasescope.sweeps.table import described, failures_table, grid_points, points_table
from phasescope.trajectory.files import write_atomic

SUMMARY = "sweep.json"


def sweep_command(arguments: Sequence[str], names: Sequence[str], chosen: str) -> None:
    """Parse ``EXPERIMENT [flags]``, make the sweep, and print its table.

    Args:
        arguments: The command line behind ``sweep``.
        names: Experiments of phasescope; any other name is that of a module.
        chosen: The preset, which decides the defaults of the other flags.

    Raises:
        ValueError: There is no such experiment or preset, or the grid is wrong.
        PhasescopeError: Runs failed; the others are kept.
    """
    import tyro

    experiment, name = _experiment(arguments[0], names)
    if chosen not in experiment.PRESETS:
        raise ValueError(
            f"{name} has the presets {', '.join(experiment.PRESETS)}, but got {chosen!r}."
        )
    base = experiment.PRESETS[chosen][0]
    Grid = _grid_type(experiment, base)
    default = Grid()

    def command(
        values: Annotated[Any, tyro.conf.arg(name="")] = default,
        *,
        preset: Annotated[
            str,
            tyro.conf.arg(help=f"{' | '.join(experiment.PRESETS)}; other flags change its fields"),
        ] = "default",
        seed: Annotated[int, tyro.conf.arg(help="the first seed")] = base.seed,
        seeds: Annotated[int, tyro.conf.arg(help="of every combination, counted up")] = 1,
        workers: Annotated[
            int | None, tyro.conf.arg(help="processes here; one per core by default")
        ] = None,
        scheduler: Annotated[
            str | None, tyro.conf.arg(help="tcp://HOST:PORT of a running Dask scheduler, instead")
        ] = None,
        memory_per_run: Annotated[
            str | None, tyro.conf.arg(help="such as 2GB; a run that takes more is killed")
        ] = None,
        disk_per_run: Annotated[
            str | None, tyro.conf.arg(help="such as 9GB; runs wait until it is free")
        ] = None,
        retries: Annotated[
            int, tyro.conf.arg(help="new starts of a run whose worker died")
        ] = RETRIES,
        keep_failed: Annotated[
            bool, tyro.conf.arg(help="keep what failed runs have recorded")
        ] = False,
        directory: Annotated[
            Path, tyro.conf.arg(help="where the runs go; finished ones are not repeated")
        ] = Path("runs") / name,
        results: Annotated[
            Path | None,
            tyro.conf.arg(
                help="add claims and numbers to this file; its runs are kept, not repeated"
            ),
        ] = None,
        output: Annotated[
            Path | None, tyro.conf.arg(help="the report; DIRECTORY/report.html by default")
        ] = None,
        dashboard: Annotated[
            bool, tyro.conf.arg(help="serve Dask's dashboard on 127.0.0.1:8787")
        ] = False,
        json: Annotated[bool, tyro.conf.arg(help="Print JSON instead of tables.")] = False,
    ) -> None:
        starts = with_seeds(experiment.PRESETS[preset], seed)
        configs = grid(starts, _given(experiment, values, default), seeds)
        known = known_runs(experiment, results)
        outcomes = _watched(
            experiment,
            name,
            preset,
            configs,
            directory,
            quiet=json,
            known=known,
            workers=workers,
            scheduler=scheduler,
            memory_per_run=_bytes(memory_per_run),
            disk_per_run=_bytes(disk_per_run),
            retries=retries,
            keep_failed=keep_failed,
            dashboard=dashboard,
        )
        report = output or directory / "report.html"
        _end(experiment, name, preset, outcomes, directory, results, report, as_json=json)

    command.__doc__ = f"Sweep {name}: every combination of the values, with every seed."
    command.__annotations__["values"] = Annotated[Grid, tyro.conf.arg(name="")]
    tyro.cli(command, prog=f"phasescope sweep {name}", args=list(arguments[1:]))


def _experiment(name: str, names: Sequence[str]) -> tuple[Any, str]:
    """The module of an experiment, and its name without the package's."""
    if name in names:
        return importlib.import_module(f"phasescope.experiments.{name}"), name
    try:
        found = not name.startswith((".", "-")) and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package in front of a dot
        found = False
    module = importlib.import_module(name) if found else None
    if module is None or not hasattr(module, "PRESETS"):
        raise ValueError(
            f"sweep needs the name of an experiment ({', '.join(names)}) or of a module like one, "
            f"with Config, PRESETS, run, load, claims and figures; but got {name!r}."
        )
    return module, name.rpartition(".")[2]


def _grid_type(experiment: Any, base: Any) -> Any:
    """A dataclass with a tuple of values for every field of the configuration but the seed.

    A field that holds a sequence itself keeps its type, and so takes one value: a command line
    cannot say where the next one begins.
    """
    import tyro

    hints = typing.get_type_hints(experiment.Config, include_extras=True)
    fields: list[Any] = []
    for field in dataclasses.fields(experiment.Config):
        kind, default = hints[field.name], getattr(base, field.name)
        if field.name != SEED and _is_sequence(kind):
            about = Annotated[kind, tyro.conf.arg(help="one value")]
            fields.append((field.name, about, dataclasses.field(default=default)))
        elif field.name != SEED:
            about = Annotated[tuple[kind, ...], tyro.conf.arg(help="one value or several")]
            fields.append((field.name, about, dataclasses.field(default=(default,))))
    return dataclasses.make_dataclass("Grid", fields, frozen=True)


def _is_sequence(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in (tuple, list)


def _given(experiment: Any, values: Any, default: Any) -> dict[str, Any]:
    """The values of the fields that were given, even if they are those of the preset."""
    hints = typing.get_type_hints(experiment.Config)
    return {
        name: [value] if _is_sequence(hints[name]) else value
        for name, value in vars(values).items()
        if value is not getattr(default, name)
    }


def _bytes(text: str | None) -> int | None:
    """A size such as 2GB in bytes."""
    from dask.utils import parse_bytes

    if text is None:
        return None
    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"a size such as 500MB or 2GB is required, but {text!r} arrived.")
    return size


def _watched(
    experiment: Any,
    name: str,
    preset: str,
    configs: Sequence[Any],
    directory: Path,
    *,
    quiet: bool,
    **options: Any,
) -> list[Outcome]:
    """The sweep with its progress shown; what ended is written down even if it is interrupted."""
    ended: list[Outcome] = []
    last: Progress | None = None
    with shown(name, quiet=quiet) as show:

        def watch(progress: Progress) -> None:
            nonlocal last
            last = progress
            show(progress)
            new = progress.last
            if new is not None and (not ended or new is not ended[-1]):
                ended.append(new)
                if new.status == "failed":
                    _write(experiment, name, preset, ended, directory)

        try:
            with _stopped_by_sigterm():
                outcomes = sweep(experiment, configs, directory, watch=watch, **options)
        except KeyboardInterrupt:
            if last is not None:
                sys.stderr.write(
                    f"\nsweep {name}: stopped; {last.kept + last.finished} of {last.total} runs "
                    f"are finished and kept in {directory}, begun ones go on from their last "
                    "checkpoint\n"
                )
            raise
    return outcomes


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM, as `timeout` and batch systems send it, ends a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(
    experiment: Any, name: str, preset: str, outcomes: Sequence[Outcome], directory: Path
) -> None:
    content = described(name, preset, grid_points(experiment, outcomes), outcomes)
    write_atomic(directory / SUMMARY, json_text(content))


def _end(
    experiment: Any,
    name: str,
    preset: str,
    outcomes: Sequence[Outcome],
    directory: Path,
    results_file: Path | None,
    report_file: Path,
    *,
    as_json: bool,
) -> None:
    """Table, JSON and report of a sweep; then an error if something failed."""
    _write(experiment, name, preset, outcomes, directory)
    points = grid_points(experiment, outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    finished = [outcome.results for outcome in outcomes if outcome.status == "finished"]
    lines = [f"all numbers: {directory / SUMMARY}"]
    if not as_json:
        _print(points_table(points, f"{name}: {len(finished)} of {len(outcomes)} runs"))
        if failed:
            _print(failures_table(outcomes))
    claims: list[Claim] = []
    if finished:
        together = with_stored(experiment, finished, directory, results_file)
        claims, report = finish(
            experiment, name, preset, together, results_file=results_file, report_file=report_file
        )
        verdicts = [claim.verdict for claim in claims]
        counted = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        lines.append(f"claims: {counted or 'none'}; report: {report}")
    if as_json:
        content = described(name, preset, points, outcomes)
        sys.stdout.write(json_text(content | {"claims": claims}))
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    if failed:
        raise PhasescopeError(
            f"{len(failed)} of {len(outcomes)} runs failed; {directory / SUMMARY} has their "
            "configurations and tracebacks. The others are kept; the same command tries the "
            "failed ones again."
        )


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
