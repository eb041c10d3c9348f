"""Measure how often each rule sees structure in noise, and how often it counts what was planted.

    .venv/bin/python docs/calibrate_nulls.py            # measure: about 10 minutes on one core
    .venv/bin/python docs/calibrate_nulls.py --page     # only write the tables again

Writes results/calibration/nulls.json (rates with Wilson intervals) and the tables of docs/nulls.md.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import phasescope as ps

HERE = Path(__file__).parent
PAGE, NUMBERS = HERE / "nulls.md", HERE.parent / "results" / "calibration" / "nulls.json"
BEGIN, END = "<!-- tables: written by calibrate_nulls.py -->", "<!-- end of tables -->"

# T, P as small as the formulas allow to be told apart; k is few against T.
T, P, K = 60, 1500, 4
N_NOISE, N_PLANTED = 200, 50
AMPLITUDES = (0.8, 2.0, 5.0)
LEVEL, N_SURROGATES = 0.05, 19

# Spread of the log-normal standard deviations of the parameters, and decay of the steps' norms.
NOISES = {
    "equal": (0.0, "none"),
    "variances log-normal .5": (0.5, "none"),
    "variances log-normal 1": (1.0, "none"),
    "norms 1/sqrt(t)": (0.0, "root"),
    "log-normal .5, norms 1/sqrt(t)": (0.5, "root"),
    "log-normal 1, norms exp(-3t/T)": (1.0, "exponential"),
}


def draw(noise: str, amplitude: float, seed: int) -> torch.Tensor:
    """Independent noise, with K planted components if there is an amplitude.

    Amplitudes are in units of the noise of a row: at 1 half of a parameter vector is signal. Steps
    are scaled after planting, as a falling gradient norm scales signal and noise alike.
    """
    generator = torch.Generator().manual_seed(seed)
    spread, decay = NOISES[noise]
    sigma = torch.exp(spread * torch.randn(P, generator=generator))
    A = torch.randn(T, P, generator=generator) * sigma
    if amplitude:
        U = torch.linalg.qr(torch.randn(T, K, generator=generator))[0]
        V = torch.linalg.qr(torch.randn(P, K, generator=generator))[0]
        A += amplitude * float(sigma.square().sum().sqrt()) * U @ V.T
    t = torch.arange(1.0, T + 1)
    scales = {"none": torch.ones(T), "root": t**-0.5, "exponential": torch.exp(-3 * t / T)}
    return A * scales[decay][:, None]


def counts(A: torch.Tensor, seed: int) -> dict[str, int]:
    """The count of every rule."""
    spectrum = ps.spectrum(ps.gram(A), time_vectors=False)
    S, sigma = spectrum.S, ps.noise_scale(spectrum)
    centered = ps.spectrum(ps.gram(A), center="steps", time_vectors=False)
    p = ps.edge_p_values(centered, ps.noise_scale(centered))
    # Used off square, the smaller dimension where the larger belongs is wrong by this factor.
    mistaken = ps.gavish_donoho(spectrum, sigma) * math.sqrt(T / P)
    unit = A / A.norm(dim=1, keepdim=True)
    edge = ps.noise_edges((unit**2).mean(0), T).upper
    flips = ps.flip_rank_test(
        A, center="steps", normalize=True, n_surrogates=N_SURROGATES, seed=seed
    )
    undeflated = flips.surrogates.max(0).values
    raw = ps.flip_rank_test(A, n_surrogates=N_SURROGATES, seed=seed)
    permuted = permuted_maxima(A, seed)
    norms = ps.count_above(ps.norm_null(spectrum).S)
    return {
        "flips, steps normalised and centred, edge": flips.rank,
        "the same without deflation": above(flips.observed, undeflated, "edge"),
        "the same, pairwise, without deflation": above(flips.observed, undeflated, "pairwise"),
        "flips, raw, edge": raw.rank,
        "Silverstein's edge + 5 %, steps normalised": int((1.05 * edge < singular(unit)).sum()),
        "Tracy–Widom p < .05, one variance": int((p < LEVEL).sum()),
        "Gavish–Donoho, unknown noise": int((ps.gavish_donoho(spectrum) < S).sum()),
        "the same with the smaller dimension": int((mistaken < S).sum()),
        "permuted columns, edge": above(S, permuted, "edge"),
        "permuted columns, pairwise": above(S, permuted, "pairwise"),
        "Horn: standardised columns, normal data": horn(A, seed),
        "10 % of the largest": ps.count_above(S, 0.1),
        "10 % count below the norms' count": max(0, norms - ps.count_above(S, 0.1)),
    }


def permuted_maxima(A: torch.Tensor, seed: int) -> torch.Tensor:
    """Largest singular values of copies in which every column is permuted over the steps."""
    generator = np.random.default_rng(seed)
    copies = [
        singular(torch.from_numpy(generator.permuted(A.numpy(), axis=0)))
        for _ in range(N_SURROGATES)
    ]
    return torch.stack(copies).max(0).values


def horn(A: torch.Tensor, seed: int) -> int:
    """Parallel analysis after Horn, index by index, above the maximum of the copies."""
    generator = torch.Generator().manual_seed(seed + 10**6)

    def standardised(X: torch.Tensor) -> torch.Tensor:
        X = X - X.mean(0)
        return singular(X / X.std(0))

    copies = [standardised(torch.randn(T, P, generator=generator)) for _ in range(N_SURROGATES)]
    return above(standardised(A), torch.stack(copies).max(0).values, "pairwise")


def singular(A: torch.Tensor) -> torch.Tensor:
    return ps.spectrum(ps.gram(A), time_vectors=False).S


def above(S: torch.Tensor, thresholds: torch.Tensor, rule: str) -> int:
    if rule == "edge":
        return int((thresholds[0] < S).sum())
    return int((thresholds < S).int().cumprod(0).sum())


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    middle = (hits + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate(hits: int, n: int) -> dict[str, float | int]:
    low, high = wilson(hits, n)
    return {"hits": hits, "n": n, "rate": hits / n, "low": low, "high": high}


def measure() -> dict:
    start = time.process_time()
    false_positives: dict[str, dict] = {}
    planted: dict[str, dict] = {}
    for noise in NOISES:
        ranks = collect(noise, 0.0, N_NOISE)
        false_positives[noise] = {
            rule: rate(sum(r > 0 for r in found), N_NOISE)
            | {"median_count": float(np.median(found))}
            for rule, found in ranks.items()
        }
        planted[noise] = {}
        for amplitude in AMPLITUDES:
            ranks = collect(noise, amplitude, N_PLANTED)
            planted[noise][str(amplitude)] = {
                rule: {
                    "exact": rate(sum(r == K for r in found), N_PLANTED),
                    "any": rate(sum(r > 0 for r in found), N_PLANTED),
                    "median_count": float(np.median(found)),
                }
                for rule, found in ranks.items()
            }
        sys.stderr.write(f"{noise}: {time.process_time() - start:.0f} s\n")
    settings = {
        "steps": T, "parameters": P, "planted": K, "noise_draws": N_NOISE,
        "planted_draws": N_PLANTED, "level": LEVEL, "surrogates": N_SURROGATES,
        "cpu_seconds": round(time.process_time() - start), "torch": torch.__version__,
    }  # fmt: skip
    return {"settings": settings, "false_positives": false_positives, "planted": planted}


def collect(noise: str, amplitude: float, n: int) -> dict[str, list[int]]:
    """The count of every rule in every draw."""
    found = [counts(draw(noise, amplitude, seed), seed) for seed in range(n)]
    return {rule: [count[rule] for count in found] for rule in found[0]}


def tables(numbers: dict) -> str:
    """The tables of the page, in Markdown."""
    s = numbers["settings"]
    parts = [
        f"{s['noise_draws']} draws of pure noise, {s['steps']} steps, {s['parameters']} "
        f"parameters, {s['surrogates']} surrogates, nominal level {s['level']:.2f}. Share of draws "
        "in which a rule found a component, with 95 % Wilson intervals:",
        table(
            numbers["false_positives"],
            lambda cell: (
                f"{100 * cell['rate']:.1f} % ({100 * cell['low']:.0f}–{100 * cell['high']:.0f})"
            ),
        ),
        "Median count in the same pure noise:",
        table(numbers["false_positives"], lambda cell: f"{cell['median_count']:g}"),
    ]
    for amplitude in next(iter(numbers["planted"].values())):
        cells = {noise: found[amplitude] for noise, found in numbers["planted"].items()}
        parts += [
            f"{s['planted']} components planted at amplitude {amplitude}, {s['planted_draws']} "
            "draws. Share of draws in which the rule counts exactly that many, and its median "
            "count:",
            table(
                cells,
                lambda cell: f"{100 * cell['exact']['rate']:.0f} % ({cell['median_count']:g})",
            ),
        ]
    parts.append(f"Measured in {s['cpu_seconds'] / 60:.0f} minutes of one core.")
    return "\n\n".join(parts)


def table(columns: dict[str, dict], text: Callable[[dict], str]) -> str:
    rules = next(iter(columns.values()))
    rows = [["rule", *columns], ["---"] * (1 + len(columns))]
    rows += [[rule, *(text(found[rule]) for found in columns.values())] for rule in rules]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_page(numbers: dict) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page = f"{before}{BEGIN}\n\n{tables(numbers)}\n\n{END}{after}"
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    if not parser.parse_args().page:
        torch.set_num_threads(1)
        NUMBERS.parent.mkdir(exist_ok=True)
        NUMBERS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(NUMBERS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
