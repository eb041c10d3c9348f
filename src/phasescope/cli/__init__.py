"""The command line: demo, list, run, sweep, watch, analyse, import, report, claims."""

import dataclasses
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from phasescope.cli.analyse import Json, analyse, print_json
from phasescope.cli.importing import import_checkpoints
from phasescope.cli.watch import watch
from phasescope.errors import PhasescopeError, RecordingWarning
from phasescope.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from phasescope.report import Claim

_SHOWN_RUNS = 12  # a command that makes more shows their claims alone
_DESCRIPTION = (
    "An instrument for watching neural networks learn: it records a training run, analyses the "
    "trajectory beside its nulls, and reports what changed, where, when and how sure we are."
)
Output = Annotated[Path, tyro.conf.arg(aliases=("-o",), help="The HTML file to write.")]


def _flag(text: str) -> Any:
    return tyro.conf.arg(help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of one command; errors are one message on standard error, no traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    try:
        if arguments[:1] == ["run"] and len(arguments) > 1:
            _run_experiment(arguments[1:])
        elif arguments[:1] == ["sweep"] and arguments[1:2] not in ([], ["-h"], ["--help"]):
            from phasescope.sweeps.command import sweep_command

            sweep_command(arguments[1:], EXPERIMENTS, _peek(arguments, "--preset", "default"))
        else:
            commands = {
                "demo": demo,
                "list": list_experiments,
                "run": run,
                "sweep": sweep,
                "watch": watch,
                "analyse": analyse,
                "import": import_checkpoints,
                "report": report,
                "claims": claims,
            }
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="phasescope", description=_DESCRIPTION, args=arguments
            )
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("phasescope: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except (PhasescopeError, ValueError, KeyError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"phasescope: {message}", file=sys.stderr)
        return 1
    return 0


def demo(
    directory: Path = Path("runs/demo"),
    dataset: Literal["auto", "mnist", "digits"] = "auto",
    json: Json = False,
) -> None:
    """Train a network on handwritten digits with every gradient recorded, analyse, write a report.

    Two epochs of MNIST; where MNIST can neither be found (PHASESCOPE_DATA) nor downloaded, the
    1,797 digits that scikit-learn ships. Takes about a minute on two cores, and a gigabyte of disk
    while it runs.

    Args:
        directory: Where the run and report.html go; a finished demo there is not repeated.
        dataset: auto takes MNIST when it can be had.
    """
    from phasescope.datasets import load_images
    from phasescope.experiments import gradient_spectrum as experiment

    images = load_images(dataset, "train")
    _say(f"data: {images.provenance}", quiet=json)
    preset = "default" if images.name == "mnist" else "smoke"
    config = replace(experiment.PRESETS[preset][0], dataset=images.name)
    _finish_runs(
        experiment,
        "gradient_spectrum",
        "demo",
        [config],
        directory,
        report_file=directory / "report.html",
        as_json=json,
    )
    if not json:
        print("One seed gives no verdict; those over ten seeds: phasescope claims")


def list_experiments(json: Json = False) -> None:
    """List the experiments: what they reproduce, which claims they settle, their last result."""
    rows = []
    for name in EXPERIMENTS:
        module = importlib.import_module(f"phasescope.experiments.{name}")
        stored = _stored_results().get(name)
        rows.append(
            {
                "experiment": name,
                "about": (module.__doc__ or "").strip().splitlines()[0],
                "source": module.SOURCE,
                "runtime": module.RUNTIME,
                "presets": list(module.PRESETS),
                "claims": list(module.CLAIM_IDS),
                "last result": {} if stored is None else _verdicts(stored.claims),
            }
        )
    if json:
        print_json(rows)
        return
    for row in rows:
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in row["last result"].items())
        print(f"{row['experiment']}\n  {row['about']}")
        print(f"  source: {row['source']}\n  runtime: {row['runtime']}")
        print(f"  presets {', '.join(row['presets'])}; claims {', '.join(row['claims'])}")
        print(f"  last result: {verdicts or 'none yet'}")


def run() -> None:
    """Run an experiment over seeds: run NAME [--preset P] [--seeds N] [--FIELD VALUE ...].

    'phasescope run NAME --help' lists the fields of its configuration; 'phasescope list' the names.
    """
    raise ValueError(f"run needs the name of an experiment: {', '.join(EXPERIMENTS)}.")


def sweep() -> None:
    """Run an experiment over a grid on several processes: sweep NAME [--FIELD VALUE VALUE ...].

    'phasescope sweep NAME --help' lists the fields of its configuration. NAME may be a module.
    """
    raise ValueError(f"sweep needs the name of an experiment: {', '.join(EXPERIMENTS)}.")


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    output: Output = Path("report.html"),
) -> None:
    """Write one self-contained HTML report about recorded runs.

    Args:
        runs: Directories of runs.
        output: The HTML file to write.
    """
    from phasescope.report import report_runs

    print(f"report: {report_runs(runs, output)}")


def claims(
    ids: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    results: Path | None = None,
    json: Json = False,
) -> None:
    """Print the claims of all experiments with their verdicts.

    Args:
        ids: Only these, such as A1 A5.
        results: Folder of the results; by default ./results, or the results phasescope ships.
    """
    stored = _stored_results(results)
    found = [claim for item in stored.values() for claim in item.claims]
    unknown = sorted(set(ids) - {claim.id for claim in found})
    if unknown:
        known = ", ".join(claim.id for claim in found) or "none"
        raise ValueError(f"no result has the claims {', '.join(unknown)}; there are: {known}.")
    _print_claims([claim for claim in found if not ids or claim.id in ids], as_json=json)


def _run_experiment(arguments: list[str]) -> None:
    """``run NAME ...``: the flags are the fields of the experiment's configuration."""
    name, *rest = arguments
    if name not in (*EXPERIMENTS, "-h", "--help"):
        raise ValueError(
            f"run needs the name of an experiment ({', '.join(EXPERIMENTS)}), but got {name!r}."
        )
    if name in EXPERIMENTS:
        tyro.cli(_command(name, arguments), prog=f"phasescope run {name}", args=rest)
        return
    print(run.__doc__)


def _command(name: str, arguments: list[str]) -> Callable[..., None]:
    from phasescope.experiments.runner import with_seeds

    experiment: Any = importlib.import_module(f"phasescope.experiments.{name}")
    presets = experiment.PRESETS
    chosen = _peek(arguments, "--preset", "default")
    if chosen not in presets:
        raise ValueError(f"{name} has the presets {', '.join(presets)}, but got {chosen!r}.")
    base = presets[chosen][0]
    # A value may be that of the first run of the preset, and not of the others.
    flags = [a.partition("=")[0][2:].replace("-", "_") for a in arguments if a.startswith("--")]
    given = {name for flag in flags for name in (flag, flag.removeprefix("no_"))}

    def command(
        config: Annotated[Any, tyro.conf.arg(name="", constructor=experiment.Config)] = base,
        *,
        preset: Annotated[str, _flag(" | ".join(presets) + "; other flags change its fields")] = (
            "default"
        ),
        seeds: Annotated[int, _flag("how many, counted up from --seed; verdicts need 10")] = 1,
        directory: Annotated[
            Path, _flag("where the runs go; finished ones are not repeated, begun ones go on")
        ] = Path("runs") / name,
        results: Annotated[
            Path | None,
            _flag("add claims and numbers to this file; its runs are kept, not repeated"),
        ] = None,
        output: Annotated[
            Path | None, _flag("the report; DIRECTORY/report.html by default")
        ] = None,
        json: Json = False,
    ) -> None:
        changed = {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name in given or getattr(config, field.name) != getattr(base, field.name)
        }
        if seeds < 1:
            raise ValueError(f"--seeds needs at least 1, but got {seeds}.")
        changed.pop("seed", None)
        changed_preset = [replace(preset_config, **changed) for preset_config in presets[chosen]]
        configs = with_seeds(changed_preset, config.seed, seeds)
        report_file = output or directory / "report.html"
        _finish_runs(
            experiment,
            name,
            preset,
            configs,
            directory,
            report_file=report_file,
            results_file=results,
            as_json=json,
        )

    command.__doc__ = experiment.__doc__
    command.__annotations__["config"] = Annotated[experiment.Config, tyro.conf.arg(name="")]
    return command


def _peek(arguments: list[str], flag: str, default: str) -> str:
    """The value of a flag that decides how the others are parsed."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return default


def _finish_runs(
    experiment: Any,
    name: str,
    preset: str,
    configs: Sequence[Any],
    directory: Path,
    *,
    report_file: Path,
    results_file: Path | None = None,
    as_json: bool = False,
) -> None:
    from phasescope.experiments.runner import (
        finish,
        headline,
        headline_text,
        known_runs,
        run_all,
        run_folder,
        with_stored,
    )
    from phasescope.report.terminal import progress

    known = known_runs(experiment, results_file)
    with progress(len(configs), quiet=as_json) as tell:
        made = list(run_all(experiment, configs, directory, known=known, progress=tell))
    results = with_stored(experiment, made, directory, results_file)
    found, path = finish(
        experiment, name, preset, results, results_file=results_file, report_file=report_file
    )
    for result in made if len(made) <= _SHOWN_RUNS else ():
        folder, main = run_folder(result.config, directory), headline(experiment, result)
        _say(f"{folder}: {headline_text(main)}", quiet=as_json)
    measured = found if as_json else [claim for claim in found if claim.n_seeds]
    if measured:
        _print_claims(measured, as_json=as_json)
    if len(measured) < len(found):
        others = ", ".join(claim.id for claim in found if not claim.n_seeds)
        _say(f"not measured by these runs: {others} (the report says how)", quiet=False)
    _say(f"report: {path}", quiet=as_json)


def _stored_results(folder: Path | None = None) -> dict[str, Any]:
    """The results of every experiment that has some."""
    from phasescope.report import load_results

    package = Path(__file__).parents[1]
    usual = [Path("results"), package.parents[1] / "results", package / "results"]
    for place in usual if folder is None else [folder]:
        if files := sorted(place.glob("*.json")) if place.is_dir() else []:
            return {path.stem: load_results(path) for path in files}
    if folder is not None:
        raise ValueError(f"a folder with results/<experiment>.json is required; {folder} has none.")
    return {}


def _verdicts(found: Sequence["Claim"]) -> dict[str, int]:
    verdicts = [claim.verdict for claim in found]
    return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}


def _print_claims(found: Sequence["Claim"], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(claim) for claim in found])
        return
    if not found:
        print("no results here yet: phasescope run NAME --seeds 10 --results results/NAME.json")
        return
    from rich.console import Console

    from phasescope.report import claims_table

    Console().print(claims_table(found))


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print(text, flush=True)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Our warnings as one line; those of libraries only for those who ask Python for them."""
    if issubclass(category, RecordingWarning):
        print(f"phasescope: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
