"""The same as gram_from_disk, in the chunks that the recorder chooses for this many parameters."""

from pathlib import Path

from gram_from_disk import QUICK, Sizes, layout_rows
from rows import Row

from phasescope.trajectory.plan import parameter_spec


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    sizes = QUICK if quick else Sizes()
    chosen = parameter_spec(sizes.n_columns, "float32")
    return layout_rows(sizes, chosen, scratch, quick=quick, goals=False)
