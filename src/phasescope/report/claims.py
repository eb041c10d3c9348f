"""Claims with their verdicts, and the files that keep them with the numbers behind them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from phasescope.report.plain import json_text
from phasescope.trajectory.files import write_atomic

if TYPE_CHECKING:
    import rich.table

Verdict = Literal["reproduced", "refuted", "inconclusive", "not tested", "answered"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

# The rules of evidence: independent seeds that a verdict needs.
SEEDS_TO_DECIDE = 10
SEEDS_TO_TEST = 5
_SEEDS_NEEDED = {
    "reproduced": SEEDS_TO_DECIDE,
    "refuted": SEEDS_TO_DECIDE,
    "answered": SEEDS_TO_DECIDE,
    "inconclusive": SEEDS_TO_TEST,
    "not tested": 0,
}

_COLOURS = {
    "reproduced": "green",
    "refuted": "red",
    "answered": "blue",
    "inconclusive": "yellow",
    "not tested": "bright_black",
}


@dataclass(frozen=True)
class Claim:
    """One statement or question of a source, what was measured, and the verdict.

    `reproduced`, `refuted` and `answered` need at least 10 independent seeds, `inconclusive` at
    least 5; with fewer the verdict is `not tested`, whatever the numbers look like.

    Raises:
        ValueError: If the verdict is unknown, the seeds do not suffice for it, or a number is not
            finite.

    Example:
        >>> claim = Claim(
        ...     id="A1", statement="92.5 singular values exceed 10% of the largest",
        ...     source="the post", rule="the 95% interval of the mean meets [80.9, 104.1]",
        ...     value=91.0, interval=(84.0, 97.5), unit="singular values", null="norm null: 93.2",
        ...     n_seeds=10, verdict="reproduced", sentence="Reproduced, and so is its null.",
        ... )
        >>> claim.verdict
        'reproduced'
    """

    id: str
    """Name in the catalogue of claims."""
    statement: str
    """What the source says or asks."""
    source: str
    """Where it says so."""
    rule: str
    """The decision rule: statistic, direction, threshold."""
    value: float | None
    """The measured statistic; None if nothing was measured."""
    interval: tuple[float, float] | None
    """Its 95% interval over seeds."""
    unit: str
    """Unit of value and interval."""
    null: str
    """The null or control, with its number."""
    n_seeds: int
    """Number of independent seeds."""
    verdict: Verdict
    """The verdict."""
    sentence: str
    """What was found, in one sentence."""

    def __post_init__(self) -> None:
        for number in (self.value, *(self.interval or ())):
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"the value and the interval of claim {self.id} must be finite, but one is "
                    f"{number}. Use None for what was not measured, and say why in the sentence."
                )
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(
                f"the interval of claim {self.id} must be (low, high), but it is {self.interval}. "
                "Swap its ends."
            )
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"the verdict of claim {self.id} must be one of {', '.join(map(repr, VERDICTS))}, "
                f"but it is {self.verdict!r}."
            )
        needed = _SEEDS_NEEDED[self.verdict]
        if self.n_seeds < needed:
            allowed = "inconclusive" if self.n_seeds >= SEEDS_TO_TEST else "not tested"
            raise ValueError(
                f"the verdict {self.verdict!r} of claim {self.id} needs at least {needed} "
                f"independent seeds, but there are {self.n_seeds}. Run more seeds or use the "
                f"verdict {allowed!r}."
            )


@dataclass(frozen=True)
class ExperimentResults:
    """What results/<experiment>.json holds.

    Example:
        >>> results = ExperimentResults("toy", "SMOKE", {"lr": 0.1}, "abc", {}, (0, 1), ())
        >>> results.settings
        {}
    """

    experiment: str
    """Name of the experiment."""
    preset: str
    """Preset of its configuration: SMOKE, DEFAULT or PAPER."""
    config: Mapping[str, Any]
    """The configuration."""
    commit: str
    """Commit of the code."""
    environment: Mapping[str, Any]
    """Versions and hardware."""
    seeds: tuple[int, ...]
    """Seeds that were run."""
    claims: tuple[Claim, ...]
    """The claims with their verdicts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Numbers from which the figures are drawn again, by setting."""


def save_results(path: str | os.PathLike[str], results: ExperimentResults) -> Path:
    """The path of the JSON file written, in one go: a crash leaves the old file or the new one.

    NaN and infinity in `config`, `environment` and `settings` are written as null, since JSON has
    neither and a diverged run must not be lost; a `Claim` refuses them.

    Args:
        path: The file; its folder is made if missing.
        results: What to write.

    Returns:
        The path.

    Raises:
        TypeError: If something has no JSON form.

    Example:
        >>> import tempfile
        >>> results = ExperimentResults("toy", "SMOKE", {"lr": 0.1}, "abc", {}, (0,), ())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_results(save_results(Path(folder) / "toy.json", results)) == results
        True
    """
    write_atomic(path, _lists_in_line(json_text(results, "results")))
    return Path(path)


def _lists_in_line(text: str) -> str:
    """JSON whose lists of plain numbers take a line each, not a line per number."""
    # Within strings there are no line ends, and lists with strings stay as they are.
    return re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def load_results(path: str | os.PathLike[str]) -> ExperimentResults:
    """The results in a JSON file written by `save_results`, checked as strictly as new ones.

    Args:
        path: The file.

    Returns:
        The results; arrays and tuples of `config` and `settings` come back as lists.

    Raises:
        ValueError: If the file is not JSON, or has unknown or missing keys or an invalid claim.

    Example:
        >>> import tempfile
        >>> results = ExperimentResults("toy", "SMOKE", {}, "abc", {}, (0,), (), {"x": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_results(save_results(Path(folder) / "toy.json", results)).settings
        {'x': [1, 2]}
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"a results file must be JSON, but {path} is not ({error}). Run the experiment again "
            "to rewrite it."
        ) from error
    _require_keys(record, ExperimentResults, str(path))
    claims = []
    for i, claim in enumerate(record["claims"]):
        _require_keys(claim, Claim, f"claims[{i}] of {path}")
        interval = claim["interval"]
        claims.append(
            Claim(**(claim | {"interval": None if interval is None else tuple(interval)}))
        )
    return ExperimentResults(
        **(record | {"claims": tuple(claims), "seeds": tuple(record["seeds"])})
    )


def _require_keys(record: object, kind: type, where: str) -> None:
    names = [item.name for item in dataclasses.fields(kind)]
    if not isinstance(record, dict):
        raise ValueError(
            f"{where} must be a JSON object with {', '.join(names)}, but it is {record!r:.80}."
        )
    unknown = sorted(set(record) - set(names))
    missing = sorted(set(names) - set(record))
    if unknown or missing:
        problems = [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        problems += [f"missing: {', '.join(missing)}"] * bool(missing)
        raise ValueError(
            f"{where} must have exactly the keys {', '.join(names)}, but has "
            f"{'; '.join(problems)}. Write it with save_results."
        )


def measured(claim: Claim) -> str:
    """The measured value with its interval and unit, in words.

    Args:
        claim: The claim.

    Returns:
        Such as "91 [84, 97.5] singular values", or "not measured".

    Example:
        >>> claim = Claim("A", "s", "o", "r", None, None, "steps", "n", 0, "not tested", "t")
        >>> measured(claim)
        'not measured'
    """
    if claim.value is None:
        return "not measured"
    interval = (
        "" if claim.interval is None else f" [{claim.interval[0]:.4g}, {claim.interval[1]:.4g}]"
    )
    return f"{claim.value:.4g}{interval} {claim.unit}".rstrip()


def claims_table(claims: Iterable[Claim]) -> rich.table.Table:
    """The claims as a table for the terminal.

    Args:
        claims: The claims, in the order of the rows.

    Returns:
        A table to print with rich.

    Example:
        >>> claim = Claim("A1", "s", "o", "r", None, None, "", "n", 0, "not tested", "t")
        >>> claims_table([claim]).row_count
        1
    """
    from rich.table import Table
    from rich.text import Text

    table = Table("claim", "what was found", show_lines=True)
    for claim in claims:
        # Text, not str: brackets in a statement are no markup.
        verdict = Text(claim.verdict, style=f"bold {_COLOURS[claim.verdict]}")
        seeds = f"{claim.n_seeds} seed{'' if claim.n_seeds == 1 else 's'}"
        found = Text(claim.statement, style="bold")
        for label, text in (
            ("measured", f"{measured(claim)}, {seeds}"),
            ("null", claim.null),
            ("finding", claim.sentence),
        ):
            found.append_text(Text.assemble("\n", (f"{label}: ", "dim"), (text, "not bold")))
        table.add_row(Text(f"{claim.id}\n").append_text(verdict), found)
    return table
