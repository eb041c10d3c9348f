"""The environment of a measurement, the file of all results, and their table."""

import json
from pathlib import Path
from typing import Any

from phasescope.trajectory.environment import describe_environment

BEGIN, END = "<!-- results: written by run.py -->", "<!-- end of results -->"
HEADER = ("what", "phasescope", "other", "ratio", "goal", "met", "note")

# Rows and environment by subject, as results.json holds them.
Results = dict[str, dict[str, Any]]


def environment() -> dict[str, Any]:
    """Versions, processor, commit, and the numerical libraries that are loaded."""
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "architecture", "threading_layer", "num_threads")
    libraries = [
        # The name tells NumPy's OpenBLAS from SciPy's; the folders are nobody's business.
        {"library": Path(found["filepath"]).name} | {key: found.get(key) for key in keys}
        for found in threadpool_info()
    ]
    return {**describe_environment(), "libraries": libraries}


def merge(path: Path, measured: Results, order: list[str]) -> Results:
    """Write the results with the measured subjects replaced and the others kept; return them."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    both = before | measured
    merged = {subject: both[subject] for subject in order if subject in both}
    path.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    return merged


def write_readme(path: Path, results: Results) -> None:
    """Replace the table between the markers of README.md."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}", encoding="utf-8")


def show(results: Results) -> None:
    """Print the table and what it was measured on."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADER)
    for cells in table_cells(results):
        table.add_row(*cells)
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
    for line in machines(results):
        console.print(line, highlight=False)


def markdown(results: Results) -> str:
    """The table and what it was measured on, for README.md."""
    rows = [HEADER, ("---",) * len(HEADER), *table_cells(results)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return table + "\n\n" + "\n".join(f"- {line}" for line in machines(results))


def table_cells(results: Results) -> list[tuple[str, ...]]:
    """The rows as text."""
    return [cells(row) for part in results.values() for row in part["rows"]]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row as text."""
    other, goal = "", "–"
    if row["other"] is not None:
        other = f"{amount(row['other'], row['unit'])} {row['other_name']}"
    if row["goal"] is not None:
        upper = row["goal_on"] == "ours"
        goal = f"≤ {amount(row['goal'], row['unit'])}" if upper else f"≥ {row['goal']:g}x"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}x"
    met = {True: "yes", False: "**no**", None: "–"}[row["met"]]
    name = row["name"] + (" (quick)" if row["quick"] else "")
    return name, amount(row["ours"], row["unit"]), other, ratio, goal, met, row["note"]


def amount(value: float, unit: str) -> str:
    """Seconds or bytes for people."""
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def machines(results: Results) -> list[str]:
    """One line for each environment: processor, threads, versions, kernels, commit, subjects."""
    lines: dict[str, list[str]] = {}
    for subject, part in results.items():
        e = part["environment"]
        kernels = {
            f"{found['library']}: {found['architecture']}"
            for found in e["libraries"]
            if found["architecture"]
        }
        text = (
            f"{e['processor']}, {e['cpu_cores']} cores, {e['torch_threads']} torch threads; Python "
            f"{e['python']}, torch {e['torch']}, NumPy {e['numpy']} "
            f"({', '.join(sorted(kernels)) or 'kernel unknown'}); commit "
            f"{(e['commit'] or 'unknown')[:10]}{' with changes' if e['dirty'] else ''}"
        )
        lines.setdefault(text, []).append(subject)
    return [f"{', '.join(subjects)}: {text}" for text, subjects in lines.items()]
