"""The claims D9-D13; their rules were committed before any seed ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from phasescope.experiments.evidence import (
    MIN_SEEDS,
    undecided,
    with_enough_seeds,
)
from phasescope.experiments.mode_connectivity.between import RISES
from phasescope.experiments.mode_connectivity.config import (
    APART,
    CONNECTED,
    DECAY_BOTH,
    RESNET,
    TOY,
    Config,
    Results,
    group_by_setting,
    per_seed,
    setting,
)
from phasescope.experiments.mode_connectivity.wording import (
    Text,
    answered,
    claim,
    median_interval,
    not_tested,
    over,
)
from phasescope.experiments.rules import Share, share
from phasescope.report import Claim, Verdict

MATCHED = 0.02  # relative difference of losses that count as equal
MOST = 0.5  # share of the seeds
CONTRAST = 0.2  # least difference of mono/N between the levels
LEFT = 0.1  # barrier to the start over the wanted level, from which on it was left
FLAT = 1.5  # loss half-way over that of the ends, above which a pair is not connected

Groups = dict[str, list[Results]]


def claims(results: Sequence[Results]) -> list[Claim]:
    """The claims that these runs settle; those whose settings were not run are not tested.

    Args:
        results: Runs of one or more settings.
    """
    groups = group_by_setting(results)
    toys = groups.get(setting(TOY), [])
    decided: list[tuple[Text, Callable[[], Claim | None]]] = [
        (_D9, lambda: _d9(toys, groups)),
        (_D10, lambda: _d10(toys)),
        (_D11, lambda: _d11(toys)),
        (_D12, lambda: _d12(toys)),
        (_D13, lambda: _d13(groups)),
    ]
    return [decide() or not_tested(text) for text, decide in decided]


_D9 = Text(
    "D9",
    "mono and poly solutions lie in different basins (same learning rate, matched loss, differing "
    "only in bias initialisation), after alignment; linear and quadratic paths",
    "N 64, d 32, k 128, LAMB .01; levels: bias 0, and bias -1 with decay .3, without which it "
    "stays silent (beside it, decay at both levels: the initial bias alone differs). Per seed one "
    "embedding; of all annealed records after the first quarter the pair of equal held-out loss "
    "(2%) with the lowest; seeds without one, or whose mono/N (.9) differ by less than .2, do not "
    "count. Barrier over the line between the ends, the lowest of the neurons as they are, weights "
    "matched and activations matched. A pair is apart if it exceeds the seed's tolerance (95th "
    "percentile of the barriers between five models forked from one at half of the training, both "
    "levels) and both controls: two models of each level that differ in initialisation and "
    "batches. Reproduced if the 95% interval of the share of seeds that are apart lies above 1/2 "
    "for straight lines and, with the barrier of the trained quadratic Bezier curve in its place, "
    "for curves; refuted if it lies below 1/2 for one of them. Inconclusive if fewer than half of "
    "the seeds, or fewer than ten, have a pair that counts (each seed is a family of 16 models "
    "trained on its own, so ten decide, not the 100 of toys whose seeds are one batch).",
)
_D10 = Text(
    "D10",
    "two basins, one per level, or several within a level; same configuration, same basin? with "
    "noise in initialisation, data, batch",
    "Per seed and level four models: a base, other batches, another initialisation, both. Barriers "
    "of all pairs (13 places) after the best alignment; components of the graph of barriers up to "
    "the seed's tolerance. The number is the mean count of basins of one level (poly; 1 to 4). "
    "Beside it the count with 1% and 5% of the zero predictor's loss added to the tolerance.",
)
_D11 = Text(
    "D11",
    "how much regularisation to hop, both directions, against same-basin and planted-barrier nulls",
    "Pairs of D9, in the seeds in which they count. Smallest pull towards the other level's "
    "aligned model (200 steps, then 150 without) after which the barrier to it (9 places) is "
    "within the tolerance and mono/N at least as near to its as to the start's; bisection to a "
    "factor of 1.5 between 1e-4 and 10. Where the mono/N of start and target differ by less than "
    ".1, as those of forks do, the barrier alone decides. The number is the median over seeds from "
    "poly to mono; infinite where no pull suffices. Nulls: two forks of one model; and pulls "
    "towards a random target as far away, after which the model must have landed at the other "
    "level's, too. A planted barrier of height h gives h/2 (a test). Inconclusive if fewer than "
    "half of the seeds, or fewer than ten, count.",
)
_D12 = Text(
    "D12",
    "connectivity-based fine-tuning from poly: more mono, or poly in a different way (overlap of "
    "feature assignment)",
    "1,500 steps from the base model of the poly level, half of the zero predictor's loss as the "
    "wanted level on the way (rate .1, cosine, momentum .9). Answered if the straight line to the "
    "start has a barrier above a tenth of that level in more than half of the seeds, so that it "
    "was left at all; else inconclusive. The number is the mean difference in mono/N (.9) to the "
    "control, with its interval: training on with the same batches, steps, rates and momentum, "
    "without the descent on the way. Beside it the mean cosine between the single-feature "
    "activations of matched neurons before and after, and those of training on and of an "
    "independent model.",
)
_D13 = Text(
    "D13",
    "linear mode connectivity after re-basin depends on optimizer and learning rate (published "
    "MNIST table); ResNets",
    "Four cells of the table, on a smaller set-up: three hidden layers of 256, 12,000 MNIST "
    "images, batches of 128, 15 epochs; SGD with momentum .9, and Adam. Test loss half-way after "
    "weight matching over the mean of the ends; connected below 1.5 (published: 1.1 and .5 in the "
    "connected cells SGD .1 and Adam .005; 5.2 and 4 in the others, SGD .001 and Adam .02). "
    "Reproduced if the 95% interval of the mean logarithm lies below ln 1.5 in both connected "
    "cells, and above in both others; refuted if one lies on the other side. Pairs of residual "
    "networks with batch norm (three blocks, first width 16, 8 x 8 digits, SGD .1) have a verdict "
    "of their own by the same number and edge, one basin, different basins or undecided, which "
    "does not decide the claim.",
)


def _counts(toys: list[Results]) -> np.ndarray:
    """Seeds with two models of equal loss and unequal mono/N."""
    contrast = per_seed(toys, "cross mono second") - per_seed(toys, "cross mono first")
    return (per_seed(toys, "cross gap") <= MATCHED) & (contrast >= CONTRAST)


def _enough(counts: np.ndarray) -> bool:
    """Whether a verdict may rest on the seeds that count."""
    return int(counts.sum()) >= MIN_SEEDS and float(counts.mean()) >= MOST


def _apart(toys: list[Results], counts: np.ndarray) -> tuple[dict[str, Share], dict[str, Share]]:
    """Of lines and curves: the share of seeds whose levels are apart, and whose controls are."""
    tolerance = per_seed(toys, "tolerance")
    shares, worst = {}, {}
    for how in ("best", "curve"):
        cross = per_seed(toys, f"cross {how}")
        controls = np.maximum(per_seed(toys, f"poly {how}"), per_seed(toys, f"mono {how}"))
        shares[how] = share(((cross > tolerance) & (cross > controls))[counts])
        worst[how] = share((controls > tolerance)[counts])
    return shares, worst


def _both_decay(groups: Groups) -> str:
    """What is seen where the levels differ in nothing but the initial bias."""
    toys = groups.get(setting(DECAY_BOTH), [])
    if not toys:
        return ""
    counts = _counts(toys)
    words = (
        f" With decay at both levels {int(counts.sum())} of {len(counts)} seeds have such a pair"
    )
    if not counts.any():
        return words + "."
    shares, _ = _apart(toys, counts)
    return (
        f"{words}: straight lines {shares['best']}, curves {shares['curve']}, barrier between "
        f"levels {over(per_seed(toys, 'cross best')[counts])}."
    )


def _d9(toys: list[Results], groups: Groups) -> Claim | None:
    if not toys:
        return None
    counts = _counts(toys)
    n_all, n = len(counts), int(counts.sum())
    if n < 2:
        return claim(
            _D9,
            None,
            None,
            "",
            "none",
            n_all,
            undecided(n_all),
            f"{n} of {n_all} seeds have a pair of equal loss and unequal mono/N."
            + _both_decay(groups),
        )
    shares, worst = _apart(toys, counts)
    verdict: Verdict = "inconclusive"
    if _enough(counts):
        if all(s.low > MOST for s in shares.values()):
            verdict = "reproduced"
        elif any(s.high < MOST for s in shares.values()):
            verdict = "refuted"
    means = {
        name: over(per_seed(toys, name)[counts])
        for name in (
            "tolerance",
            "cross naive",
            "cross best",
            "poly best",
            "mono best",
            "cross curve",
            "poly curve",
            "mono curve",
            "random rise",
        )
    }
    return claim(
        _D9,
        shares["best"].mean,
        shares["best"].interval,
        "share of seeds whose levels are further apart than the tolerance and both controls",
        f"within a level barriers exceed the tolerance in {worst['best']} of the seeds (curves "
        f"{worst['curve']}); half-way to random targets the loss rises by {means['random rise']}",
        n,
        verdict if _enough(counts) else undecided(n),
        f"Straight lines: {shares['best']} of {n} seeds (of {n_all}); quadratic curves: "
        f"{shares['curve']}. Barriers: between levels {means['cross best']} (as they are "
        f"{means['cross naive']}, curve {means['cross curve']}), within poly {means['poly best']} "
        f"(curve {means['poly curve']}), within mono {means['mono best']} (curve "
        f"{means['mono curve']}), tolerance {means['tolerance']}." + _both_decay(groups),
    )


def _d10(toys: list[Results]) -> Claim | None:
    if not toys:
        return None
    basins = {name: over(per_seed(toys, name)) for name in ("basins", "basins poly", "basins mono")}
    joined = {
        f"{level}, other {kind}": over(per_seed(toys, f"{level} {kind} joined"))
        for level in ("poly", "mono")
        for kind in ("batch", "init", "both")
    }
    levels = over(per_seed(toys, "levels joined"))
    looser = "; ".join(
        f"{share:.0%} of the zero predictor's loss added: "
        f"{over(per_seed(toys, f'basins poly {share:g}'))} and "
        f"{over(per_seed(toys, f'basins mono {share:g}'))}"
        for share in RISES
    )
    poly = basins["basins poly"]
    return claim(
        _D10,
        poly.mean,
        poly.interval,
        "basins among four models of the poly level",
        "forks of one model are in one basin by the choice of the tolerance (95%)",
        poly.n_seeds,
        answered(poly.n_seeds),
        f"{poly} basins of 4 models of the poly level, {basins['basins mono']} of the mono level, "
        f"{basins['basins']} of all 8; a basin has models of both levels in {levels} of the seeds. "
        f"With a larger tolerance, {looser}. Directly joined to the base: "
        + "; ".join(f"{name} {found}" for name, found in joined.items())
        + ".",
    )


def _d11(toys: list[Results]) -> Claim | None:
    if not toys:
        return None
    names = ("poly to mono", "mono to poly", "same basin", "random")
    counts = _counts(toys)
    n = int(counts.sum())
    if not n:
        return claim(_D11, None, None, "", "none", 0, "not tested", "No seed has a pair of D9.")
    # Infinity, of a target that no pull reaches, is missing in JSON.
    values = {
        name: np.nan_to_num(per_seed(toys, f"hop {name}"), nan=np.inf)[counts] for name in names
    }
    medians = {name: float(np.median(v)) for name, v in values.items()}
    never = {name: float(np.isinf(v).mean()) for name, v in values.items()}
    value = medians["poly to mono"]
    intervals = {name: median_interval(v) for name, v in values.items()}
    words = "; ".join(
        f"{name} {medians[name]:.3g}"
        + ("" if (ends := intervals[name]) is None else f" [{ends[0]:.3g}, {ends[1]:.3g}]")
        + f" (none suffices in {never[name]:.0%})"
        for name in names
    )
    return claim(
        _D11,
        value if np.isfinite(value) else None,
        intervals["poly to mono"],
        "pull λ (median over seeds)",
        f"same basin {medians['same basin']:.3g}, random target {medians['random']:.3g}",
        n,
        "answered" if _enough(counts) else undecided(n),
        f"Median smallest pull in {n} of {len(counts)} seeds: {words}.",
    )


def _d12(toys: list[Results]) -> Claim | None:
    if not toys:
        return None
    difference = over(per_seed(toys, "away mono") - per_seed(toys, "on mono"))
    m = {
        f"{who} {what}": over(per_seed(toys, f"{who} {what}"))
        for who in ("away", "on", "independent")
        for what in ("mono", "overlap", "loss", "barrier naive", "barrier")
    }
    tolerance = over(per_seed(toys, "tolerance"))
    left = share(per_seed(toys, "away barrier naive") > LEFT * per_seed(toys, "away level"))
    n = difference.n_seeds
    return claim(
        _D12,
        difference.mean,
        difference.interval,
        "mono/N after fine-tuning away minus after training on",
        f"training on: mono/N {m['on mono']}, overlap {m['on overlap']}; an independent model: "
        f"mono/N {m['independent mono']}, overlap {m['independent overlap']}",
        n,
        answered(n) if left.mean > MOST else undecided(n),
        f"The start was left in {left} of the seeds. mono/N {m['away mono']} after fine-tuning "
        f"away, from {over(per_seed(toys, 'away start mono'))}; overlap with the start "
        f"{m['away overlap']}. Its barrier to the start is {m['away barrier naive']} "
        f"({m['away barrier']} after alignment; tolerance {tolerance}), its loss "
        f"{m['away loss']} against {m['on loss']}.",
    )


def _d13(groups: Groups) -> Claim | None:
    cells = {**dict.fromkeys(CONNECTED, True), **dict.fromkeys(APART, False)}
    if any(setting(config) not in groups for config in cells):
        return None
    logs = {
        config: over(np.log(per_seed(groups[setting(config)], "ratio matched"))) for config in cells
    }
    edge = float(np.log(FLAT))
    holds = [logs[c].high < edge if near else logs[c].low > edge for c, near in cells.items()]
    fails = [logs[c].low > edge if near else logs[c].high < edge for c, near in cells.items()]
    n = min(found.n_seeds for found in logs.values())
    verdict: Verdict = "reproduced" if all(holds) else "refuted" if any(fails) else "inconclusive"
    deciding = CONNECTED[0]
    others = [deciding, *(c for c in cells if c != deciding)]
    words = "; ".join(_cell(groups, c) for c in others)
    if setting(RESNET) in groups:
        ratios = over(np.log(per_seed(groups[setting(RESNET)], "ratio matched")))
        within = "one basin" if ratios.high < edge else "different basins"
        if ratios.n_seeds < MIN_SEEDS or ratios.low <= edge <= ratios.high:
            within = "undecided"
        words += f"; residual networks, {within}: " + _cell(groups, RESNET)
    random = over(per_seed(groups[setting(deciding)], "ratio random"))
    found = logs[deciding]
    return claim(
        _D13,
        found.mean,
        found.interval,
        "ln of the test loss half-way after matching over that of the ends (SGD .1)",
        f"half-way to a random target as far away the loss is {random} times that of the ends",
        n,
        with_enough_seeds(verdict, n),
        f"Loss half-way over that of the ends: {words}.",
    )


def _cell(groups: Groups, config: Config) -> str:
    runs = groups[setting(config)]
    ratios = {
        name: over(per_seed(runs, f"ratio {name}")) for name in ("naive", "matched", "activations")
    }
    return (
        f"{setting(config)}: {ratios['matched']} (as they are {ratios['naive']}, activations "
        f"{ratios['activations']}) at a test loss of {over(per_seed(runs, 'test loss'))}"
    )
