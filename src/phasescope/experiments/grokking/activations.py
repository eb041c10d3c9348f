"""Rules of the claims about activations, C8 to C15; they were fixed before any seed of them ran."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from phasescope.experiments.evidence import OverSeeds, with_enough_seeds
from phasescope.experiments.grokking.config import Results
from phasescope.experiments.grokking.evidence import (
    NONE,
    NOT_RUN,
    Evidence,
    Part,
    above,
    below,
    claim,
    number,
    parts_claim,
)
from phasescope.experiments.grokking.operations import ACCURATE, EQUAL, SMALL
from phasescope.report import Claim, Verdict

SEVERE = 1.0  # twice as long
FAMILY = ("leaky_relu", "gelu_clipped", "gelu", "silu", "softplus", "elu", "square")
OPERATIONS = ("add", "subtract", "multiply")
BEFORE_CLEAN_UP = ("memorisation", "circuit formation")


def activation_claims(evidence: Evidence) -> list[Claim]:
    """C8 to C15."""
    return [
        _faster(evidence),
        _same_function(evidence),
        _layer_norm(evidence),
        _memorisation(evidence),
        _spikes_of_smooth(evidence),
        _spikes_of_solu(evidence),
        _structure(evidence),
        _family(evidence),
    ]


def _ratio(
    e: Evidence, name: str, against: str = "relu", event: str = "grokked"
) -> OverSeeds | None:
    return e.log_ratios(e.runs(activation=name), e.runs(activation=against), event)


def _faster(e: Evidence) -> Claim:
    statement = "GELU hastens grokking greatly, SiLU slightly"
    rule = (
        "log2 of the ratio of grokking times to ReLU's on addition, paired seeds: reproduced if "
        "the intervals of GELU and SiLU lie below 0 and that of GELU over SiLU too; refuted if one "
        "lies above 0 or within .2 of it"
    )
    parts = [
        below("GELU", _ratio(e, "gelu"), margin=EQUAL),
        below("SiLU", _ratio(e, "silu"), margin=EQUAL),
        below("GELU over SiLU", _ratio(e, "gelu", "silu"), margin=EQUAL),
    ]
    return parts_claim("C8", statement, rule, parts, unit="log2", null=e.floor_text())


def _same_function(e: Evidence) -> Claim:
    statement = "GELU-fast and GELU-new grok slightly later than GELU"
    rule = (
        "log2 of the ratio of grokking times to GELU's on addition, paired seeds: reproduced if "
        "both intervals lie above 0, refuted if one lies below 0 or within .2 of it"
    )
    parts = [
        above("GELU-fast", _ratio(e, "gelu_fast", "gelu"), margin=EQUAL),
        above("GELU-new", _ratio(e, "gelu_new", "gelu"), margin=EQUAL),
    ]
    return parts_claim("C9", statement, rule, parts, unit="log2", null=e.floor_text())


def _layer_norm(e: Evidence) -> Claim:
    statement = (
        "LayerNorm delays grokking severely and muddles activations, the algorithm unchanged"
    )
    rule = (
        "addition, paired seeds. Log2 of the ratio of grokking times, SoLU with LayerNorm to ReLU: "
        "above 1 (twice as long); share of pure neurons, the same less ReLU's: below 0; share of "
        f"the logits' variance along cos w(a+b-c) with it: above {ACCURATE}. Reproduced if all "
        f"intervals lie there, refuted if one lies on the other side or, of the neurons, within "
        f"{SMALL} of 0. ReLU with LayerNorm and SoLU without it are shown beside"
    )
    ours, relu = e.runs(activation="solu_ln"), e.runs()
    parts = [
        above("time", e.log_ratios(ours, relu), SEVERE),
        below(
            "pure neurons",
            e.paired(ours, relu, lambda r: number(r, "final_measures", "pure_neurons")),
            margin=SMALL,
        ),
        above("clock", e.over(ours, lambda r: number(r, "final_measures", "cube_fve")), ACCURATE),
    ]
    apart = (
        f"time of ReLU with LayerNorm to ReLU: {_ratio(e, 'relu_ln') or 'not run'}; of SoLU "
        f"without LayerNorm to ReLU: {_ratio(e, 'solu') or 'not run'}"
    )
    return parts_claim(
        "C10", statement, rule, parts, unit="log2", null=f"{e.floor_text()}; {apart}"
    )


def _memorisation(e: Evidence) -> Claim:
    statement = "SiLU lengthens memorisation, GELU does not"
    rule = (
        "log2 of the ratio of memorisation times to ReLU's on addition, paired seeds: reproduced "
        "if SiLU's interval lies above 0 and GELU's does not; refuted if SiLU's lies below 0 or "
        "within .2 of it, or if GELU's lies above .2"
    )
    silu, gelu = (_ratio(e, name, event="memorised") for name in ("silu", "gelu"))
    parts = [
        above("SiLU", silu, margin=EQUAL),
        Part("GELU", gelu, lambda x: x.low <= 0, lambda x: x.low > EQUAL),
    ]
    return parts_claim("C11", statement, rule, parts, unit="log2", null=e.floor_text("memorised"))


def _spikes_of_smooth(e: Evidence) -> Claim:
    statement = (
        "test-loss spikes of GELU and SiLU come before clean-up for addition, during memorisation "
        "for subtraction and multiplication"
    )
    rule = (
        "share of a seed's upward spikes of the test loss that lie in those phases, seeds with "
        "spikes: reproduced if all six intervals lie above .5, refuted if one lies below"
    )
    parts, nulls = [], []
    for operation in OPERATIONS:
        phases = BEFORE_CLEAN_UP if operation == "add" else BEFORE_CLEAN_UP[:1]
        for name in ("gelu", "silu"):
            runs = e.runs(operation=operation, activation=name)
            share = e.over(runs, _share_in(("test_loss_up",), phases))
            parts.append(above(f"{operation} {name}", share, 0.5))
            nulls.append(f"{operation} {name} {e.over(runs, _steps_in(phases)) or NONE}")
    null = f"share of the steps that these phases have: {'; '.join(nulls)}"
    return parts_claim("C12", statement, rule, parts, unit="share of spikes", null=null)


def _spikes_of_solu(e: Evidence) -> Claim:
    statement = (
        "SoLU spikes after clean-up; spikes are mirrored in progress measures, without lasting "
        "effect"
    )
    rule = (
        "SoLU with LayerNorm on addition, upward spikes of both losses. Share that lies after "
        "clean-up, above .5; change of the restricted loss during spikes of the test loss less its "
        "usual change between measured steps, in decades, above 0; what is left of it 500 steps "
        f"later, below {EQUAL}. Reproduced if all intervals lie there, refuted if one lies on the "
        "other side. The restricted loss is that of the networks measured during a spike, or of "
        "the next one"
    )
    runs = e.runs(activation="solu_ln")

    def mirrored(result: Results) -> float | None:
        change = number(result, "spikes", "test_loss_up", "restricted_change")
        usual = number(result, "spikes", "test_loss_up", "restricted_quiet")
        return None if change is None or usual is None else change - usual

    parts = [
        above(
            "after clean-up",
            e.over(runs, _share_in(("train_loss_up", "test_loss_up"), ("after",))),
            0.5,
        ),
        above("restricted loss", e.over(runs, mirrored)),
        below(
            "lasting",
            e.over(runs, lambda r: number(r, "spikes", "test_loss_up", "restricted_lasting")),
            EQUAL,
        ),
    ]
    null = f"share of the steps after clean-up: {e.over(runs, _steps_in(('after',))) or NONE}"
    return parts_claim("C13", statement, rule, parts, unit="share of spikes", null=null)


def _structure(e: Evidence) -> Claim:
    statement = (
        "GELU has tighter singular values, more pure neurons and less residual than ReLU; SoLU's "
        "neurons are poorly explained, most of all for multiplication; it favours the constant"
    )
    rule = (
        "paired seeds on addition unless said. GELU less ReLU: log2 participation ratio of the "
        "embedding below 0; share of pure neurons above 0; share of the logits' variance outside "
        "cos w(a+b-c) below 0. SoLU with LayerNorm: share of pure neurons below .5; for "
        "multiplication less addition below 0; constant share of the neurons before the LayerNorm "
        "less ReLU's above 0. Reproduced if all intervals lie there, refuted if one lies on the "
        f"other side or, of differences, within {SMALL} of 0 (.2 for the log2)"
    )
    gelu, relu, solu = e.runs(activation="gelu"), e.runs(), e.runs(activation="solu_ln")
    times = e.runs(operation="multiply", activation="solu_ln")

    def pure(result: Results) -> float | None:
        return number(result, "final_measures", "pure_neurons")

    def residual(result: Results) -> float | None:
        fve = number(result, "final_measures", "cube_fve")
        return None if fve is None else 1 - fve

    def rank(result: Results) -> float | None:
        value = number(result, "anatomy", "rank_W_E")
        return None if value is None else math.log2(value)

    parts = [
        below("GELU: log2 participation ratio", e.paired(gelu, relu, rank), margin=EQUAL),
        above("GELU: pure neurons", e.paired(gelu, relu, pure), margin=SMALL),
        below("GELU: residual", e.paired(gelu, relu, residual), margin=SMALL),
        below("SoLU: pure neurons", e.over(solu, pure), 0.5),
        below("SoLU, multiplication less addition", e.paired(times, solu, pure), margin=SMALL),
        above(
            "SoLU: constant",
            e.paired(solu, relu, lambda r: number(r, "anatomy", "constant_share_mid")),
            margin=SMALL,
        ),
    ]
    new, fast = e.runs(activation="gelu_new"), e.runs(activation="gelu_fast")
    null = (
        f"GELU-new less GELU-fast: log2 participation ratio {e.paired(new, fast, rank) or NONE}, "
        f"pure neurons {e.paired(new, fast, pure) or NONE}, "
        f"residual {e.paired(new, fast, residual) or NONE}"
    )
    return parts_claim("C14", statement, rule, parts, unit="log2", null=null)


def _family(e: Evidence) -> Claim:
    statement = "why GELU is faster: smoothness, negative part or curvature?"
    rule = (
        "answered by log2 of the ratio of grokking times on addition, paired seeds, of GELU "
        "clipped at 0 (curved without negative part) to GELU; beside it every member of the "
        "family to ReLU: leaky ReLU (negative part alone), softplus (smooth, positive), ELU "
        "(smooth, negative part), x² (curved everywhere)"
    )
    found = _ratio(e, "gelu_clipped", "gelu")
    if found is None:
        null = e.floor_text()
        return claim("C15", statement, rule, None, "log2", null, "not tested", NOT_RUN)
    ratios = {name: _ratio(e, name) for name in FAMILY}
    told = ", ".join(f"{name} {ratio or 'not run'}" for name, ratio in ratios.items())
    sentence = f"Clipped GELU to GELU: {found}. To ReLU: {told}."
    verdict: Verdict = with_enough_seeds("answered", found.n_seeds)
    return claim("C15", statement, rule, found, "log2", e.floor_text(), verdict, sentence)


def _share_in(kinds: Sequence[str], phases: Sequence[str]) -> Callable[[Results], float | None]:
    """Share of a run's spikes that lie in some phases; None without spikes or phases."""

    def statistic(result: Results) -> float | None:
        counts = [result.numbers["spikes"][kind]["by_phase"] for kind in kinds]
        total = sum(sum(count.values()) for count in counts)
        if not total or not result.numbers["phases"]:
            return None
        return sum(count.get(phase, 0) for count in counts for phase in phases) / total

    return statistic


def _steps_in(phases: Sequence[str]) -> Callable[[Results], float | None]:
    """Share of a run's steps that some phases have."""

    def statistic(result: Results) -> float | None:
        n = result.config.n_steps
        found = [p for p in result.numbers["phases"] if p["name"] in phases]
        if not result.numbers["phases"]:
            return None
        return sum((n if p["end"] is None else p["end"]) - p["start"] for p in found) / n

    return statistic
