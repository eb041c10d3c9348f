"""What was found between two models, and whether it is one basin."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from phasescope.analysis.connectivity import PathValues
from phasescope.analysis.permutations import PermutationSymmetry
from phasescope.interventions.curves import CurveTraining

AS_THEY_ARE = "as they are"
WEIGHTS, ACTIVATIONS, CURVE = "weights matched", "activations matched", "curve"
SHARE_OF_RANDOM = 0.1
"""The tolerance where none is given: this share of the rise half-way to random targets."""
BY_RANDOM = (
    "a tenth of the median rise half-way to random targets, at most of what the better model has "
    "learned"
)
ROUNDING = 16
"""Units in the last place of the ends' values that a barrier may have by rounding alone."""


@dataclass(frozen=True, eq=False)
class BasinReport:
    """What lies between two models; printed, it says whether they share a basin."""

    name: str
    """The number that decides, such as ``"test loss"``."""
    paths: dict[str, PathValues]
    """Straight lines to the second model as it is and permuted, and a curve if one was trained."""
    random: tuple[PathValues, ...]
    """Straight lines from the first model to random targets as far away as the second: the null."""
    distances: dict[str, float]
    """Euclidean distance to the second model as it is and permuted."""
    tolerance: float
    """The largest barrier within a basin."""
    tolerance_source: str
    """Where the tolerance comes from."""
    symmetry: PermutationSymmetry | None
    """What was permuted."""
    permutations: dict[str, dict[str, Tensor]]
    """Of the second model, by the name of the path."""
    curve: CurveTraining | None
    """The trained curve."""
    undecided: str = ""
    """Why the question has no answer for these two; empty if it has one."""
    statistics: str = ""
    """How running statistics of batch norms were dealt with; empty without any."""

    @property
    def barriers(self) -> dict[str, float]:
        """Of every path, over the line between its ends' values."""
        return {name: path.barrier(self.name) for name, path in self.paths.items()}

    @property
    def random_barriers(self) -> list[float]:
        """How far the first halves of the paths to random targets rise over the models' line.

        The middle of a line between two models is half their distance from both: so far the random
        paths are followed, too.
        """
        ends = next(iter(self.paths.values())).values[self.name][[0, -1]]
        return [rise_in_first_half(path, self.name, ends) for path in self.random]

    @property
    def same_basin(self) -> bool:
        """Whether a straight line, after permutation if need be, stays within the tolerance.

        False also where it is `undecided`.
        """
        if self.undecided:
            return False
        straight = {k: b for k, b in self.barriers.items() if k != CURVE}
        return min(straight.values()) <= self.tolerance

    @property
    def how(self) -> str:
        """The first path within the tolerance; empty if there is none."""
        inside = [name for name, b in self.barriers.items() if b <= self.tolerance]
        return inside[0] if inside else ""

    def __str__(self) -> str:
        first = next(iter(self.paths.values())).values[self.name]
        within = "one basin" if self.same_basin else "different basins"
        how = f" ({self.how})" if self.same_basin else ""
        if self.undecided:
            within = f"undecided: {self.undecided}"
        elif not self.same_basin and self.how == CURVE:
            how = " of straight lines, but a curve connects them"
        if self.tolerance_source == BY_RANDOM:
            how += ", beside random targets alone: no forks were given"
        null = self.random_barriers
        lines = [
            f"{within}{how}",
            f"{self.name}: {first[0].item():.4g} and {first[-1].item():.4g}"
            + (f", {self.statistics}" if self.statistics else ""),
            *(
                f"barrier, {name}: {b:.4g}"
                + (f" at distance {self.distances[name]:.4g}" if name in self.distances else "")
                for name, b in self.barriers.items()
            ),
            f"rise half-way to {len(null)} random targets as far away: "
            f"{min(null):.4g} to {max(null):.4g}",
            f"tolerance: {self.tolerance:.4g}, {self.tolerance_source}",
        ]
        return "\n".join(lines)


def rise_in_first_half(path: PathValues, name: str, ends: Tensor) -> float:
    """How far the first half of a path rises over the line between two values."""
    half = path.t <= 0.5
    sign = -1.0 if name.endswith("accuracy") else 1.0
    line = ends[0] + path.t * (ends[1] - ends[0])
    return (sign * (path.values[name] - line))[half].max().item()
