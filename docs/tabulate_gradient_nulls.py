"""Write the tables of docs/gradient_nulls.md from results/gradient_nulls.json.

python docs/tabulate_gradient_nulls.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

import pages

from phasescope.experiments import gradient_nulls as experiment
from phasescope.experiments.evidence import OverSeeds
from phasescope.experiments.gradient_nulls.claims import (
    deciding_settings,
    flip_ratio,
    matched_ratio,
    norm_ratio,
)
from phasescope.experiments.gradient_nulls.config import (
    DECIDING,
    PLACES,
    SCHEMES,
    VARIANTS,
    Results,
    group_by_setting,
)

MARKS = ("<!-- tables -->", "<!-- end of tables -->")
Statistic = Callable[[dict[str, Any]], float]
Settings = Mapping[str, Sequence[Results]]


def main() -> None:
    """Replace what stands between the marks of the page."""
    pages.fill("gradient_nulls", MARKS, tables(stored_runs()))


def stored_runs() -> list[Results]:
    """The runs of the committed results."""
    return pages.runs_of(experiment, pages.stored(pages.results_file("gradient_nulls")))


def tables(runs: Sequence[Results]) -> Iterator[str]:
    """Every table under its caption: means over seeds with 95% intervals."""
    settings = group_by_setting(runs)
    decide = deciding_settings(settings)
    yield "**Components above random signs** (decides A6; steps of norm one, centred):"
    yield table(decide, {place: _flips(place, DECIDING) for place in ("training", *PLACES)})
    yield "**The same in the other variants**, training / frozen weights of the middle:"
    yield table(decide, {name: _flips("training", name) for name in VARIANTS if name != DECIDING})
    yield table(decide, {name: _flips("middle", name) for name in VARIANTS if name != DECIDING})
    yield (
        "**Singular values above 10%** of the training, of its norms alone, and of frozen weights "
        "with the same norms, raw and centred:"
    )
    for variant in ("raw", "centred"):
        columns: dict[str, Statistic] = {
            f"training, {variant}": lambda n, v=variant: n["nulls"]["training"][v]["count"],
            "norms alone": lambda n, v=variant: n["nulls"]["training"][v]["norm_null"],
        }
        for place in PLACES:
            columns[place] = lambda n, v=variant, p=place: n["nulls"][p][v]["matched_count"]
        yield table(decide, columns)
    yield (
        "**Other optimisation processes** (A8): count above 10% over that of the nulls, and "
        "components above random signs:"
    )
    lines = {
        "count / norms": norm_ratio,
        "count / frozen (centred)": lambda r: matched_ratio(r, "centred"),
        "components, training": lambda r: r.numbers["nulls"]["training"][DECIDING]["flip_count"],
        "components / frozen": flip_ratio,
    }
    yield table(
        settings, {k: lambda n, f=f: f(Results(experiment.Config(), n)) for k, f in lines.items()}
    )
    yield "**What is decomposed** (A16): values above 10%, centred, of the same steps:"
    names = ("gradients", "updates", "increments", "weights")
    columns = {s: lambda n, s=s: n["series"]["rows"][s]["centred"]["count"] for s in names}
    columns["random walks"] = lambda n: n["series"]["rows"]["weights"]["walk"]["centred"]["count"]
    yield table(decide, columns)
    yield "**Overlap of the ten leading directions**, centred:"
    pairs = list(next(iter(decide.values()))[0].numbers["series"]["overlaps"])
    groups = {pair: lambda n, p=pair: n["series"]["overlaps"][p] for pair in pairs}
    groups |= {
        f"gradients and frozen weights, {p}": lambda n, p=p: n["nulls"][p]["overlap"]
        for p in PLACES
    }
    yield across(decide, groups, "pair")
    yield "**Held-out residuals**, norm over the step's norm, all sampled directions:"
    curves = [row["curve"] for row in next(iter(decide.values()))[0].numbers["heldout"]]
    yield across(decide, {c: lambda n, c=c: _residual(n, c) for c in curves}, "held out")
    yield (
        "**Windows of 400 steps**, values above 10% in the first and the last window, and the "
        "participation ratio of normalised, centred steps there:"
    )
    yield table(
        decide,
        {
            "count, first": lambda n: n["windows"][0]["raw"]["count"],
            "count, last": lambda n: n["windows"][-1]["raw"]["count"],
            "PR, first": lambda n: n["windows"][0][DECIDING]["participation_ratio"],
            "PR, last": lambda n: n["windows"][-1][DECIDING]["participation_ratio"],
        },
    )
    yield "**Which 400 steps**: values above 10%:"
    yield table(decide, {s: lambda n, s=s: mean(d[0] for d in n["sampling"][s]) for s in SCHEMES})
    yield "**The mean over steps**: its share of the energy, raw and of normalised steps:"
    shares = {"raw": "energy_share", "normalised": "energy_share_normalised"}
    yield table(decide, {k: lambda n, v=v: n["mean"][v] for k, v in shares.items()})
    yield (
        "**When the first eight components act**: how many of the eight lie earlier or later, by "
        "their centre of mass, than permuted steps do (p < .05), and the largest z:"
    )
    yield table(
        decide,
        {
            "earlier": lambda n: _off(n, -1),
            "later": lambda n: _off(n, 1),
            "largest z, either way": lambda n: max(abs(z) for z in n["profiles"]["center"]["z"]),
        },
    )
    yield "**Where they live**: share of every tensor in the eight, in all steps, in parameters:"
    for name, runs_ in decide.items():
        yield across({name: runs_}, _mass_rows(runs_[0].numbers), "tensor")
        break
    yield (
        "**Turns of paths** of held-out examples, and the first two components' share of the "
        "variance beside that of walks:"
    )
    for what in ("logits", "losses"):
        followed = {k: r for k, r in settings.items() if what in r[0].numbers["turns"]}
        yield table(
            followed,
            {
                f"turns of the {what}": lambda n, w=what: len(n["turns"][w]["turns"]),
                "first": lambda n, w=what: n["turns"][w]["shares"][0],
                "second": lambda n, w=what: n["turns"][w]["shares"][1],
                "walks, first": lambda n, w=what: n["turns"][w]["null_shares"][0],
                "walks, second": lambda n, w=what: n["turns"][w]["null_shares"][1],
            },
        )


def _flips(place: str, variant: str) -> Statistic:
    return lambda n: n["nulls"][place][variant]["flip_count"]


def _residual(numbers: dict[str, Any], curve: str) -> float:
    return next(row["median"][-1] for row in numbers["heldout"] if row["curve"] == curve)


def _off(numbers: dict[str, Any], sign: int) -> int:
    found = numbers["profiles"]["center"]
    return sum(p < 0.05 and sign * z > 0 for p, z in zip(found["p"], found["z"], strict=True))


def _mass_rows(numbers: dict[str, Any]) -> dict[str, Statistic]:
    rows: dict[str, Statistic] = {}
    for i, tensor in enumerate(numbers["mass"]["tensors"]):
        rows[f"{tensor}, components"] = lambda n, i=i: mean(r[i] for r in n["mass"]["components"])
        rows[f"{tensor}, all steps"] = lambda n, i=i: n["mass"]["all_steps"][i]
        rows[f"{tensor}, parameters"] = lambda n, i=i: n["mass"]["parameters"][i]
    return rows


def table(settings: Settings, columns: Mapping[str, Statistic], first: str = "setting") -> str:
    """One row for each setting, one column for each statistic of a run's numbers."""
    rows = (
        [name, *(_cell(runs, statistic) for statistic in columns.values())]
        for name, runs in settings.items()
    )
    return pages.markdown([first, *columns], rows)


def across(settings: Settings, rows: Mapping[str, Statistic], first: str) -> str:
    """One row for each statistic, one column for each setting."""
    lines = (
        [name, *(_cell(runs, statistic) for runs in settings.values())]
        for name, statistic in rows.items()
    )
    return pages.markdown([first, *settings], lines)


def _cell(runs: Sequence[Results], statistic: Statistic) -> str:
    return str(OverSeeds([float(statistic(run.numbers)) for run in runs]))


if __name__ == "__main__":
    main()
