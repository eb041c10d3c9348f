"""The command ``import``: anyone's checkpoints as a run."""

from pathlib import Path
from typing import Annotated, Literal

import tyro


def import_checkpoints(
    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional],
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",), help="The run to make.")],
    save: Literal["weights", "norms"] = "weights",
    steps: tuple[int, ...] = (),
    exclude: tuple[str, ...] = (),
) -> None:
    """Make a run of a series of checkpoints: safetensors, .pt, Hugging Face folders and revisions.

    The step of each is the last number in its name. One checkpoint is read at a time, tensor by
    tensor; PyTorch files are read without pickle.

    Args:
        checkpoints: Files, folders with a model, folders of these, or a repository in the hub's
            cache.
        save: Whole weights, or norms of every tensor only, which takes hardly any disk.
        steps: Step of every checkpoint in order, where names do not say it.
        exclude: Patterns of names that are no parameters, such as '*.mask'.
    """
    from phasescope.report.terminal import progress
    from phasescope.trajectory.importing import import_checkpoints as run_of

    with progress(quiet=False) as tell:
        run = run_of(
            checkpoints,
            output,
            save=save,
            steps=steps or None,
            exclude=exclude,
            progress=lambda share, name: tell(0, share, name),
        )
    print(run)
    if left_out := run.info["imported"]["left_out"]:
        print("left out: " + ", ".join(f"{name} ({why})" for name, why in left_out.items()))
