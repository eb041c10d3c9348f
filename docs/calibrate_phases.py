"""Measure how often the detectors of phases err on curves without one, and what they find.

    python docs/calibrate_phases.py              # measure: about two minutes on one core
    python docs/calibrate_phases.py --only planted   # this part; the others are kept
    python docs/calibrate_phases.py --only penalties # those of change_points: three minutes
    python docs/calibrate_phases.py --page       # only write the tables again

Writes results/calibration/phases.json, the tables of docs/phases.md and the penalties in
src/phasescope/analysis/changepoints.py.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pages
import torch
from scipy.signal import lfilter
from scipy.stats import binomtest

import phasescope as ps
from phasescope.analysis.changepoints import simulate_penalties

HERE = Path(__file__).parent
PAGE, NUMBERS = HERE / "phases.md", HERE.parent / "results" / "calibration" / "phases.json"
CODE = HERE.parent / "src" / "phasescope" / "analysis" / "changepoints.py"
T, N_NULLS, N_PLANTED = 4_000, 50, 20
LENGTHS, N_PENALTIES = (20, 50, 100, 200), 1_000
STEPS = np.arange(T)
TAU = np.log1p(STEPS)
MIDPOINT = 900

Draw = Callable[[np.random.Generator], np.ndarray]


def _walk(g: np.random.Generator) -> np.ndarray:
    return g.normal(size=T).cumsum()


def _correlated(rho: float) -> Draw:
    return lambda g: lfilter([1], [1, -rho], g.normal(size=T))


def _power_law(g: np.random.Generator) -> np.ndarray:
    smooth = (1 + STEPS / 10 ** g.uniform(0, 3)) ** -g.uniform(0.1, 1)
    return smooth + 10 ** g.uniform(-3, -1) * g.normal(size=T)


def _relaxations(n: int) -> Draw:
    def draw(g: np.random.Generator) -> np.ndarray:
        times = T / 10 ** g.uniform(0.5, 2.5, size=n)
        return sum(np.exp(-STEPS / x) for x in times) + 0.01 * g.normal(size=T)

    return draw


NULLS: dict[str, Draw] = {
    "independent noise": lambda g: g.normal(size=T),
    "correlated noise, .9": _correlated(0.9),
    "correlated noise, .99": _correlated(0.99),
    "random walk": _walk,
    "random walk and noise": lambda g: 0.1 * _walk(g) + g.normal(size=T),
    "power law and noise": _power_law,
    "exponential relaxation": _relaxations(1),
    "two relaxations": _relaxations(2),
}


def planted(g: np.random.Generator, height: float, sharpness: float) -> np.ndarray:
    """A power law with a drop, and noise of standard deviation .1."""
    s = sharpness / (2 * math.log(9))
    drop = height / (1 + np.exp(-np.clip((TAU - math.log1p(MIDPOINT)) / s, -50, 50)))
    return 3 * (1 + STEPS / 20) ** -0.15 - drop + 0.1 * g.normal(size=T)


def transitions(y: np.ndarray) -> float | None:
    found = ps.find_transitions(torch.from_numpy(STEPS), torch.from_numpy(y)).found
    return found[0].midpoint if found else None


def corners(shape: str) -> Callable[[np.ndarray], float | None]:
    def detect(y: np.ndarray) -> float | None:
        found = ps.change_points(torch.from_numpy(STEPS), torch.from_numpy(y), shape=shape)
        return float(found.steps[found.jumps.abs().argmax()]) if len(found) else None

    return detect


def online(y: np.ndarray) -> float | None:
    detector = ps.OnlineDetector()
    alarms = (detector.update(t, float(v)) for t, v in enumerate(y))
    return next((alarm.step for alarm in alarms if alarm is not None), None)


DETECTORS = {
    "find_transitions": transitions,
    "change_points, linear": corners("linear"),
    "change_points, constant": corners("constant"),
    "OnlineDetector": online,
}


def alarms(kind: str) -> list[dict]:
    """How many curves of a kind without a phase raise an alarm of each detector."""
    rows = []
    for name, detect in DETECTORS.items():
        g = np.random.default_rng(0)
        n = sum(detect(NULLS[kind](g)) is not None for _ in range(N_NULLS))
        rows.append({"curve": kind, "detector": name, "alarms": n, "curves": N_NULLS})
    return rows


def detections() -> list[dict]:
    """How many planted drops are found, and when."""
    rows = []
    for height in (0.05, 0.1, 0.3):
        for sharpness in (0.2, 1.0, 2.0):
            for name in ("find_transitions", "OnlineDetector"):
                g = np.random.default_rng(1)
                found = [DETECTORS[name](planted(g, height, sharpness)) for _ in range(N_PLANTED)]
                times = [x for x in found if x is not None]
                onset = math.expm1(math.log1p(MIDPOINT) - sharpness / 2)
                hits = [x for x in times if x >= 0.9 * onset]
                rows.append(
                    {
                        "height": height,
                        "sharpness": sharpness,
                        "detector": name,
                        "found": len(hits),
                        "early": len(times) - len(hits),
                        "curves": N_PLANTED,
                        "median": float(np.median(hits)) if hits else None,
                    }
                )
    return rows


def penalties() -> list[dict]:
    """Penalties at which a twentieth and a hundredth of curves without a change get one."""
    rows = []
    for shape in ("constant", "linear"):
        for n in LENGTHS:
            found = simulate_penalties(n, shape, n_draws=N_PENALTIES).numpy()
            rows += [
                {
                    "shape": shape,
                    "false_alarms": rate,
                    "length": n,
                    "penalty": round(float(np.quantile(found, 1 - rate)), 2),
                    "draws": N_PENALTIES,
                }
                for rate in (0.05, 0.01)
            ]
    return rows


def table_in_code(rows: list[dict]) -> str:
    """The table of penalties as it stands in the code."""
    lines = [f"_LENGTHS = {LENGTHS}", "_PENALTIES: dict[tuple[str, float], tuple[float, ...]] = {"]
    for shape in ("constant", "linear"):
        for rate in (0.05, 0.01):
            of = [r for r in rows if (r["shape"], r["false_alarms"]) == (shape, rate)]
            numbers = ", ".join(str(row["penalty"]) for row in of)
            lines.append(f'    ("{shape}", {rate}): ({numbers}),')
    return "\n".join([*lines, "}"])


def tables(numbers: dict) -> str:
    """Both tables in Markdown."""
    names = list(DETECTORS)
    lines = ["| curve without a phase | " + " | ".join(f"`{n}`" for n in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for kind in dict.fromkeys(row["curve"] for row in numbers["nulls"]):
        cells = []
        for name in names:
            (row,) = (r for r in numbers["nulls"] if (r["curve"], r["detector"]) == (kind, name))
            ends = binomtest(row["alarms"], row["curves"]).proportion_ci(method="wilson")
            share = row["alarms"] / row["curves"]
            cells.append(f"{share:.3f} ({ends.low:.3f} to {ends.high:.3f})")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    if not numbers["planted"]:
        return "\n".join(lines)
    lines += [
        "",
        "| height / noise | sharpness | detector | found | too early | median step |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in numbers["planted"]:
        at = "" if row["median"] is None else f"{row['median']:.0f}"
        lines.append(
            f"| {row['height'] / 0.1:g} | {row['sharpness']:g} | `{row['detector']}` | "
            f"{row['found']} of {row['curves']} | {row['early']} | {at} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the tables again")
    parser.add_argument("--only", nargs="+", choices=[*NULLS, "planted", "penalties"])
    arguments = parser.parse_args()
    numbers = {"steps": T, "nulls": [], "planted": []}
    if NUMBERS.exists():
        numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    for part in [] if arguments.page else arguments.only or [*NULLS, "planted"]:
        if part == "planted":
            numbers["planted"] = detections()
            continue
        if part == "penalties":
            numbers["penalties"] = penalties()
            continue
        kept = [row for row in numbers["nulls"] if row["curve"] != part] + alarms(part)
        numbers["nulls"] = sorted(kept, key=lambda row: list(NULLS).index(row["curve"]))
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    marks = ("<!-- rates: begin -->", "<!-- rates: end -->")
    pages.replace_between(PAGE, marks, f"\n{tables(numbers)}\n")
    if "penalties" in numbers:
        table = table_in_code(numbers["penalties"])
        pages.replace_between(CODE, ("# penalties: begin", "# penalties: end"), f"\n{table}\n")


if __name__ == "__main__":
    main()
