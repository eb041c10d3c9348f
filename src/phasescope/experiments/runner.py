"""Runs of an experiment over configurations and seeds: finished ones are kept, not repeated.

`run_all` makes them one after the other; `phasescope.sweeps` makes several at once. Both find a
finished run by `finished_numbers` and make a new one by `run_one`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from phasescope.errors import PhasescopeError
from phasescope.experiments.settings import compact
from phasescope.report import (
    Claim,
    ExperimentResults,
    load_results,
    save_results,
    write_report,
)
from phasescope.trajectory.environment import describe_environment
from phasescope.trajectory.files import write_json

NUMBERS = "numbers.json"


@runtime_checkable
class Experiment(Protocol):
    """The parts that every experiment module has.

    Two more are used where they exist: `summary(results)`, the main numbers of one run by name, and
    `disk_bytes(config)`, the bytes that a run writes while it runs; see `phasescope.sweeps`.
    """

    __doc__: str | None
    PRESETS: dict[str, tuple[Any, ...]]
    Config: Any

    def run(self, config: Any, directory: Path, *, progress: Any = None) -> Any:
        """One run."""
        ...

    def load(self, config: Any, directory: Path, numbers: dict[str, Any]) -> Any:
        """A finished run."""
        ...

    def for_storage(self, results: Sequence[Any]) -> list[dict[str, Any]]:
        """What the committed results keep of the runs."""
        ...

    def claims(self, results: Sequence[Any]) -> list[Claim]:
        """Verdicts over runs."""
        ...

    def figures(self, results: Sequence[Any]) -> dict[str, Any]:
        """Figures over runs."""
        ...


def added_field(default: Any) -> Any:
    """A field that a configuration got after runs of it had been made.

    At its default it stands for what those runs did, so it leaves `config_hash` as it was and
    `known_runs` finds them.

    Args:
        default: A plain value.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Old:
        ...     seed: int = 0
        >>> @dataclasses.dataclass(frozen=True)
        ... class New:
        ...     seed: int = 0
        ...     data: str = added_field("random")
        >>> config_hash(Old()) == config_hash(New()) != config_hash(New(data="text"))
        True
    """
    return dataclasses.field(default=default, metadata={"added": True})


def config_hash(config: Any) -> str:
    """Eight hexadecimal digits that change with every field of a configuration.

    But not with an `added_field` that has its default.
    """
    values = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("added") and values[field.name] == field.default:
            del values[field.name]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def known_runs(experiment: Experiment, results_file: Path | None) -> dict[str, dict[str, Any]]:
    """Numbers of the runs in a results file, by `config_hash`: they are not made again.

    Args:
        experiment: A module of `phasescope.experiments`.
        results_file: May not exist yet, or not be wanted: no run is known then.

    Raises:
        PhasescopeError: The file has runs that are not of this experiment as it is now. An
            `added_field` may be missing.
    """
    return {config_hash(config): numbers for config, numbers in _stored(experiment, results_file)}


def with_stored(
    experiment: Experiment, results: Sequence[Any], directory: Path, results_file: Path | None
) -> list[Any]:
    """The other runs of a results file, then the given ones: to write a file again loses no run.

    Args:
        experiment: A module of `phasescope.experiments`.
        results: Runs.
        directory: Where the runs' folders are.
        results_file: As for `known_runs`.

    Raises:
        PhasescopeError: As `known_runs`.
    """
    given = {config_hash(result.config) for result in results}
    others = [
        experiment.load(config, run_folder(config, directory), numbers)
        for config, numbers in _stored(experiment, results_file)
        if config_hash(config) not in given
    ]
    return [*others, *results]


def _stored(
    experiment: Experiment, results_file: Path | None
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Configurations and numbers of the runs in a results file."""
    if results_file is None or not results_file.exists():
        return
    fields = dataclasses.fields(experiment.Config)
    all_of_them = {field.name for field in fields}
    from_the_start = {field.name for field in fields if not field.metadata.get("added")}
    file = load_results(results_file)
    for row in file.settings.get("runs", []):
        there = set(row["config"])
        if not from_the_start <= there <= all_of_them:
            strange = ", ".join(sorted(there - all_of_them)) or "none"
            missing = ", ".join(sorted(from_the_start - there)) or "none"
            raise PhasescopeError(
                f"{results_file} holds runs of {file.experiment!r} that would be lost: their "
                f"configurations have other fields than this experiment's (unknown: {strange}; "
                f"missing: {missing}). Name another file for the results."
            )
        yield experiment.Config(**row["config"]), row["numbers"]


def with_seeds(preset: Sequence[Any], first: int, n_seeds: int = 1) -> list[Any]:
    """The configurations of a preset with seeds counted up, each configuration once.

    Args:
        preset: Configurations. Where they have seeds of their own, these are counted up together.
        first: Seed of the first one.
        n_seeds: How many of each.
    """
    shifts = [first - preset[0].seed + i for i in range(n_seeds)]
    shifted = [dataclasses.replace(c, seed=c.seed + shift) for shift in shifts for c in preset]
    return list({config_hash(config): config for config in shifted}.values())


def seeds_of(config: Any) -> range:
    """The random seeds of a run: its own, or those of its batch where `n_seeds` train as one."""
    n_seeds = getattr(config, "n_seeds", 1)
    return range(config.seed * n_seeds, (config.seed + 1) * n_seeds)


def _in_words(seeds: Sequence[int]) -> str:
    """Seeds one by one, or the first and the last of a long row."""
    if len(seeds) > 12 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def run_folder(config: Any, directory: Path) -> Path:
    """The folder that a configuration has among the runs of an experiment."""
    return directory / f"seed{config.seed}-{config_hash(config)}"


def finished_numbers(
    config: Any, directory: Path, known: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any] | None:
    """Numbers of a finished run, from its folder or else from `known`; None if it is to be made.

    Args:
        config: The configuration, seed included.
        directory: Where the runs' folders are.
        known: Numbers of runs made elsewhere, by `config_hash`; see `known_runs`.
    """
    finished = run_folder(config, directory) / NUMBERS
    if finished.exists():
        return json.loads(finished.read_text(encoding="utf-8"))
    return (known or {}).get(config_hash(config))


def run_one(
    experiment: Experiment,
    config: Any,
    directory: Path,
    *,
    progress: Callable[[float, str], None] | None = None,
) -> Any:
    """The results of a configuration that is not finished; it counts as finished from now on.

    Args:
        experiment: A module of `phasescope.experiments`.
        config: The configuration, seed included.
        directory: Where the runs' folders are.
        progress: Called with the share that is done, and with what is being done.
    """
    folder = run_folder(config, directory)
    try:
        results = experiment.run(config, folder, progress=progress)
    except PhasescopeError:
        raise
    except Exception as error:
        error.add_note(f"in {folder} with {config}")
        raise
    folder.mkdir(parents=True, exist_ok=True)  # not every experiment leaves something there
    write_json(folder / NUMBERS, results.numbers)
    return results


def run_all(
    experiment: Experiment,
    configs: Iterable[Any],
    directory: Path,
    *,
    known: Mapping[str, dict[str, Any]] | None = None,
    progress: Callable[[int, float, str], None] | None = None,
) -> Iterator[Any]:
    """The results of every configuration, run or read from an earlier run.

    A configuration has the folder of its hash in `directory`. What an interrupted run left there is
    taken up by the experiment; the numbers of a finished one are read.

    Args:
        experiment: A module of `phasescope.experiments`.
        configs: Configurations, seeds included.
        directory: Where the runs' folders are.
        known: Numbers of runs made elsewhere, by `config_hash`; see `known_runs`.
        progress: Called with the index of the run, its share done, and what is being done.
    """
    for index, config in enumerate(configs):
        numbers = finished_numbers(config, directory, known)
        if numbers is not None:
            yield experiment.load(config, run_folder(config, directory), numbers)
            continue

        def tell(share: float, what: str, index: int = index) -> None:
            if progress:
                progress(index, share, what)

        yield run_one(experiment, config, directory, progress=tell)


def headline(experiment: Any, results: Any) -> dict[str, float]:
    """The main numbers of one run.

    The experiment's hook ``summary(results)`` gives them; without it they are the numbers at the
    top of the run's ``numbers``.

    Args:
        experiment: The experiment's module.
        results: What it loads from a finished run.

    Example:
        >>> from types import SimpleNamespace
        >>> numbers = {"accuracy": 0.5, "converged": True, "curve": [1.0]}
        >>> headline(SimpleNamespace(), SimpleNamespace(numbers=numbers))
        {'accuracy': 0.5}
    """
    hook = getattr(experiment, "summary", None)
    found: Mapping[str, Any] = hook(results) if hook else results.numbers
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }


def headline_text(numbers: Mapping[str, float]) -> str:
    """Main numbers in words: ``test accuracy 0.998, test loss 0.0123``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def finish(
    experiment: Experiment,
    name: str,
    preset: str,
    results: Sequence[Any],
    *,
    results_file: Path | None,
    report_file: Path,
) -> tuple[list[Claim], Path]:
    """Claims of the runs, their JSON (if a file is given) and their report.

    Returns:
        The claims, and the report's path.
    """
    claims = experiment.claims(results)
    environment = describe_environment()
    config = dataclasses.asdict(results[0].config)
    runs = experiment.for_storage(results)
    seeds = tuple(sorted({seed for r in results for seed in seeds_of(r.config)}))
    if results_file is not None:
        save_results(
            results_file,
            ExperimentResults(
                experiment=name,
                preset=preset,
                config=config,
                commit=str(environment.get("commit")),
                environment=environment,
                seeds=seeds,
                claims=tuple(claims),
                # Configurations are kept as they are: by them a run is found again.
                settings={"runs": [run | {"numbers": compact(run["numbers"])} for run in runs]},
            ),
        )
    title = name.replace("_", " ").capitalize()
    about = " ".join((experiment.__doc__ or "").strip().split("\n\n")[0].split())
    verdicts = [claim.verdict for claim in claims]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    runs_said = "One run" if len(results) == 1 else f"{len(results)} runs"
    main = headline_text(headline(experiment, results[0])) if len(results) == 1 else ""
    seeds_said = f"seed{'' if len(seeds) == 1 else 's'} {_in_words(seeds)}"
    report = write_report(
        report_file,
        title=title,
        summary=(
            f"{about} {runs_said}, {seeds_said}{main and ': '}{main}. Claims: {counted or 'none'}."
        ),
        claims=claims,
        figures=experiment.figures(results),
        config=config,
        environment=environment,
        numbers={"runs": runs},
    )
    return claims, report
