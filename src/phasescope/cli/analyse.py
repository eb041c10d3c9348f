"""The command ``analyse``: a recorded run, or a checkpoint, beside its nulls."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Json = Annotated[bool, tyro.conf.arg(help="Print JSON instead of a table.")]
# What is decomposed if nothing is named.
_SERIES = ("gradients", "updates", "weights")


def analyse(
    run: Annotated[Path, tyro.conf.Positional],
    series: str | None = None,
    nulls: Literal["auto", "yes", "no"] = "auto",
    json: Json = False,
    operation: str | None = None,
    basis: str | None = None,
    activation: str | None = None,
    attention_rate: float | None = None,
    train_fraction: float | None = None,
    split_seed: int = 0,
) -> None:
    """A recorded run: singular values and phases. A checkpoint: progress measures.

    A checkpoint is a file with the state dict of anyone's transformer of pairs, or a directory with
    one such file, and needs --operation; its measures stand beside those of untrained networks. Of
    a run, counts and ranks stand beside those of the norms alone.

    Below stand the components that other nulls leave: random signs, and the noise of the whitened
    trajectory. They cost about as much as 110 Gram matrices. A path of weights is laid beside
    random walks instead.

    Phases are sudden transitions of the recorded metrics that neither a smooth curve nor a random
    walk explains, with the components that moved most while they happened.

    Args:
        run: The run's directory, or the checkpoint's file or directory.
        series: Of a run, what to decompose: gradients, updates or weights, by default the first of
            these that was recorded. Count on gradients or updates; a trajectory of weights looks
            low-dimensional even for a walk.
        nulls: Whether to compute these; auto does if it takes less than a minute.
        operation: Of a checkpoint, what it was trained on: add, subtract, multiply or divide.
        basis: Of a checkpoint, additive or multiplicative; default the operation's own.
        activation: Of a checkpoint, as the file does not say it: relu, gelu, silu, solu_ln, ...
        attention_rate: Of a pizza model, between 0 (constant attention) and 1.
        train_fraction: Share of the pairs it was trained on, if shuffled as Nanda et al. do;
            without it all pairs count as training pairs.
        split_seed: Seed of that shuffle.
    """
    from rich.console import Console

    from phasescope.report.checkpoints import analyse_checkpoint, checkpoint_table, checkpoints_in

    if run.is_file() or operation is not None or checkpoints_in(run):
        settings = {"activation": activation, "attention_rate": attention_rate, "basis": basis}
        split = {"train_fraction": train_fraction, "split_seed": split_seed}
        checkpoint = analyse_checkpoint(run, operation, **settings, **split)
        if json:
            print_json(checkpoint.to_dict())
        else:
            Console().print(checkpoint_table(checkpoint))
        return
    from phasescope.report.analysed import Analysed, analysed
    from phasescope.report.phases import run_phases
    from phasescope.report.terminal import progress
    from phasescope.trajectory.reader import open_run

    recorded = open_run(run)
    phases = run_phases(recorded)
    chosen = series or next((s for s in _SERIES if s in recorded.series_names), None)
    found: Analysed | None = None
    if chosen is not None:
        with progress(quiet=json) as tell:
            found = analysed(run, chosen, nulls, lambda s, what: tell(0, s, what))
    if json:
        spectra = {} if found is None else found.rows | {"nulls": found.nulls}
        print_json(spectra | {"phases": [phase.to_dict() for phase in phases.phases]})
        return
    if found is not None:
        Console().print(found.table())
        print(found.text())
    if phases.phases:
        Console().print(phases.table())
    print(phases.text())


def print_json(value: Any) -> None:
    """Print a value as strict JSON, which has neither NaN nor infinity: null."""
    from phasescope.report.plain import plain_value

    plain = plain_value(json_format.loads(json_format.dumps(value)))  # numbers as keys are text
    print(json_format.dumps(plain, indent=1, allow_nan=False))
