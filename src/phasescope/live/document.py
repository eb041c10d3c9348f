"""What a watched run looks like, as figures, lines and plain values."""

from __future__ import annotations

import json
import time
from typing import Any

from phasescope.analysis.transitions import Transition
from phasescope.figures.grokking import Stretch
from phasescope.figures.live import BlockCurve, curves_so_far, norms_so_far
from phasescope.live.watch import Watch

MOST_PANELS = 16
_LINES_OF_ALARMS = 30


def document(watch: Watch, norms: str | None = None) -> dict[str, Any]:
    """Everything that the page shows, ready for JSON.

    Args:
        watch: The watched run.
        norms: Which norms are drawn, such as ``norms/updates``; by default the first of
            `norms_to_choose`.

    Returns:
        Header, figures as plotly's JSON, table of phases, alarms.

    Example:
        >>> document(Watch("no/such/run"))["status"]
        'waiting'
    """
    choice = norms_to_choose(watch)
    chosen = norms if norms in choice else next(iter(choice), None)
    figures: dict[str, Any] = {}
    if watch.metrics:
        figures["metrics"] = json.loads(_curves(watch).to_json())
    if chosen is not None and len(watch.norms[chosen].blocks):
        figures["norms"] = json.loads(_norms(watch, chosen).to_json())
    return {
        "version": watch.version,
        "name": watch.path.name,
        "status": watch.status,
        "headline": headline(watch),
        "remarks": remarks(watch),
        "figures": figures,
        "norms": choice,
        "chosen": chosen,
        "phases": phase_rows(watch),
        "phases_note": phases_note(watch),
        "alarms": alarm_lines(watch)[-_LINES_OF_ALARMS:],
    }


def norms_to_choose(watch: Watch) -> list[str]:
    """Names of the recorded norms: components before tensors, updates first."""
    order = ("updates", "gradients", "weights")

    def place(name: str) -> tuple[bool, int, str]:
        group, _, quantity = name.partition("/")
        known = order.index(quantity) if quantity in order else len(order)
        return group != "component_norms", known, name

    return sorted(watch.norms, key=place)


def headline(watch: Watch) -> str:
    """One line: how far the run is, how fast, and when it will be done."""
    if watch.run is None:
        return f"waiting: {watch.why}"
    n_steps, last = watch.run.info.get("n_steps"), watch.last_step
    if last < 0:
        return f"{watch.status}; nothing was committed yet"
    parts = [f"{watch.status} at step {last:,}" + (f" of {n_steps:,}" if n_steps else "")]
    rate = watch.rate
    if rate and watch.status == "recording":
        parts.append(f"{rate:,.3g} steps per second")
        if n_steps and n_steps > last:
            parts.append(f"about {duration((n_steps - last) / rate)} to go")
    if watch.status == "silent":
        parts.append(
            f"nothing new for {duration(watch.silence)}: its process was stopped or killed, or a "
            "step takes long"
        )
    return "; ".join(parts)


def remarks(watch: Watch) -> list[str]:
    """What a reader must know before trusting the curves."""
    found = [watch.why] if watch.run is not None and watch.why else []
    if watch.run is not None:
        found += watch.run.remarks()
    if watch.last_step >= 0:
        if not watch.metrics:
            found.append("no metric was logged yet: recorder.log(train_loss=loss) files them")
        if not watch.norms:
            found.append(
                "no norms are recorded: save={'norms': phasescope.every(1)} records those of every "
                "tensor, 'component_norms/updates' with components= those of heads or neurons"
            )
    if watch.rewinds:
        times = "once" if watch.rewinds == 1 else f"{watch.rewinds} times"
        found.append(
            f"the recording went back to a checkpoint, or was begun again, {times}: only what "
            "counts now is shown"
        )
    if len(watch.metrics) > MOST_PANELS:
        left = ", ".join(list(watch.metrics)[MOST_PANELS:])
        found.append(f"drawn are the first {MOST_PANELS} metrics; left out: {left}")
    return found


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(42.0), duration(3_900.0), duration(200_000.0)
        ('42 s', '65 min', '56 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"


def phase_rows(watch: Watch) -> list[list[str]]:
    """A row per phase: metric, onset, midpoint, end, change, evidence, what moved."""
    rows = []
    for phase in watch.phases.phases if watch.phases else ():
        x = phase.transition
        moved = ", ".join(f"{m['name']} x{m['ratio']:.2g}" for m in phase.moved[:3])
        middle = f"{x.midpoint:,.0f} ({x.midpoint_low:,.0f} to {x.midpoint_high:,.0f})"
        ends = f"{x.end:,.0f}" if x.end <= watch.last_step else "not over"
        rows.append(
            [
                phase.metric,
                f"{x.onset:,.0f}",
                middle,
                ends,
                f"{x.height:+.3g}",
                f"{x.evidence:.0f}",
                moved or "-",
            ]
        )
    return rows


def phases_note(watch: Watch) -> str:
    """What stands below the table of phases."""
    if watch.phases is None:
        return "phases: not searched yet"
    return watch.phases.text()


def alarm_lines(watch: Watch) -> list[str]:
    """A line per alarm, the oldest first."""
    return [
        f"{item.metric} has been going {item.alarm.direction}, off its forecast, since step "
        f"{item.alarm.since:,}; noticed at {item.alarm.step:,}"
        for item in watch.alarms
    ]


def _curves(watch: Watch) -> Any:
    curves = {}
    for name, blocks in list(watch.metrics.items())[:MOST_PANELS]:
        alarms = {
            item.alarm.since: f"went {item.alarm.direction} at step {item.alarm.since:,}, noticed "
            f"at {item.alarm.step:,}"
            for item in watch.alarms
            if item.metric == name
        }
        phases = [
            _stretch(watch, phase.metric, phase.transition)
            for phase in (watch.phases.phases if watch.phases else ())
            if phase.metric.removeprefix("log ") == name
        ]
        column = (blocks.mean[:, 0], blocks.low[:, 0], blocks.high[:, 0])
        curves[name] = BlockCurve(blocks.steps, *column, phases, alarms)
    return curves_so_far(curves)


def _norms(watch: Watch, name: str) -> Any:
    norms = watch.norms[name]
    phases = [
        _stretch(watch, phase.metric, phase.transition)
        for phase in (watch.phases.phases if watch.phases else ())
    ]
    return norms_so_far(
        norms.blocks.steps,
        norms.blocks.mean,
        norms.names,
        quantity=name.partition("/")[2],
        phases=phases,
    )


def _stretch(watch: Watch, metric: str, transition: Transition) -> Stretch:
    end = min(transition.end, max(watch.last_step, transition.onset + 1))
    return Stretch(metric, round(transition.onset), round(end))


def clock_time() -> str:
    """Time of day, for lines on a terminal."""
    return time.strftime("%H:%M:%S")
