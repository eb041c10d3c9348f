"""Write verdicts and tables of docs/grokking.md from results/grokking.json.

python docs/tabulate_grokking.py
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

from phasescope.experiments import grokking as experiment
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import Evidence, number

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- results -->", "<!-- end of results -->")
NOTHING = "No seed has been run yet; the rules are in the code, and so is what each run costs."
COLUMNS = (
    "setting",
    "seeds",
    "memorised",
    "grokked",
    "clock, own basis",
    "other basis",
    "pure neurons",
    "spikes up",
    "falling steps",
)


def main() -> None:
    """Replace what stands between the marks of the page."""
    page = ROOT / "docs" / "grokking.md"
    before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    text = "\n\n".join([before + MARKS[0], *shown(), MARKS[1] + after])
    page.write_text(text, encoding="utf-8")


def shown(file: Path = ROOT / "results" / "grokking.json") -> Iterator[str]:
    """What stands between the marks: verdicts and table, or that nothing has run."""
    if not file.exists():
        yield NOTHING
        return
    stored = json.loads(file.read_text(encoding="utf-8"))
    yield "\n".join(f"- **{c['id']}** ({c['verdict']}): {c['sentence']}" for c in stored["claims"])
    yield (
        "Medians over seeds of the steps, with the number of seeds that got there; means of the "
        "others. The clock is the share of the logits' variance along cos w(a + b − c); spikes are "
        "those of the training loss, per run."
    )
    runs = [
        Results(experiment.Config(**r["config"]), r["numbers"]) for r in stored["settings"]["runs"]
    ]
    yield table(runs)


def table(runs: Sequence[Results]) -> str:
    """One row for each setting."""
    by_setting: dict[str, list[Results]] = {}
    for single in Evidence(runs).all:  # a seed that ran alone and in a batch counts once
        by_setting.setdefault(experiment.setting(single.config), []).append(single)
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    for name, seeds in by_setting.items():
        cells = (
            name,
            str(len(seeds)),
            _time(seeds, "memorised"),
            _time(seeds, "grokked"),
            _mean(seeds, "final_measures", "cube_fve"),
            _mean(seeds, "other_basis", "cube_fve"),
            _mean(seeds, "final_measures", "pure_neurons"),
            _mean(seeds, "spikes", "train_loss_up", "n"),
            _mean(seeds, "falling_share"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(seeds: Sequence[Results], event: str) -> str:
    """Median step over all seeds, and how many got there; a dash where fewer than half did."""
    times = [s.numbers["times"][event] for s in seeds]
    reached = [t for t in times if t is not None]
    if 2 * len(reached) <= len(times):
        return f"– ({len(reached)})"
    last = max(s.config.n_steps for s in seeds)
    return f"{median([last if t is None else t for t in times]):,.0f} ({len(reached)})"


def _mean(seeds: Sequence[Results], *path: str) -> str:
    values = [v for s in seeds for v in [number(s, *path)] if v is not None]
    return f"{mean(values):.3g}" if values else "–"


if __name__ == "__main__":
    main()
