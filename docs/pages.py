"""What the scripts share that write results into the pages."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTHING = "No seed has been run yet; the rules are in the code, and so is what each run costs."


def results_file(name: str) -> Path:
    """Where the committed results of an experiment are."""
    return ROOT / "results" / f"{name}.json"


def stored(file: Path) -> dict[str, Any]:
    """What a results file holds."""
    return json.loads(file.read_text(encoding="utf-8"))


def runs_of(experiment: Any, content: dict[str, Any]) -> list[Any]:
    """The runs that a results file holds, as results of the experiment."""
    return [
        experiment.Results(experiment.Config(**run["config"]), run["numbers"])
        for run in content["settings"]["runs"]
    ]


def verdicts_and(tables: Callable[[dict[str, Any]], Iterable[str]], file: Path) -> Iterator[str]:
    """A line for each claim of a results file, and its tables; or that nothing has run."""
    if not file.exists():
        yield NOTHING
        return
    content = stored(file)
    yield "\n".join(f"- **{c['id']}** ({c['verdict']}): {c['sentence']}" for c in content["claims"])
    yield from tables(content)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(name: str, marks: tuple[str, str], parts: Iterable[str]) -> None:
    """Put paragraphs between the marks of a page."""
    replace_between(ROOT / "docs" / f"{name}.md", marks, "\n\n".join(["", *parts, ""]))


def replace_between(file: Path, marks: tuple[str, str], new: str) -> None:
    """Put something else between two marks of a file."""
    before, rest = file.read_text(encoding="utf-8").split(marks[0])
    _, after = rest.split(marks[1])
    file.write_text(before + marks[0] + new + marks[1] + after, encoding="utf-8")
