"""The data set of known transitions: what is in it, and that it is kept as it was made."""

import math

import pytest
import torch

import phasescope as ps
from phasescope.datasets import KnownEvent, KnownRun
from phasescope.datasets.known_runs import packed, unpacked

STEPS = torch.tensor([0, 1, 4, 9])


def run(seed: int, **changes) -> KnownRun:
    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(4, generator=generator)
    loss[0] = math.inf
    given = {
        "system": "toy",
        "seed": seed,
        "steps": STEPS,
        "signals": {"train_loss": loss, "update_norm/head 0.1": loss[1:].repeat(2)[:4]},
        "progress": {"stripe": loss.flip(0)},
        "events": (KnownEvent("stripe", 1, 4, 9, ("head 0.1",)),) * (seed % 2),
        "rate_changes": (4,),
    }
    return KnownRun(**(given | changes))


def test_runs_come_back_as_they_were():
    runs = [run(0), run(1), run(2, system="other")]
    found = unpacked(packed(runs, {"commit": "abc"}))
    assert found.provenance == {"commit": "abc"}
    assert found.systems == ("toy", "other")
    assert [r.seed for r in found.of("toy")] == [0, 1]
    for ours, theirs in zip(runs, found, strict=True):
        assert theirs.events == ours.events
        assert theirs.rate_changes == (4,)
        assert theirs.components == ["head 0.1"]
        assert torch.equal(theirs.steps, STEPS)
        for name, error in (("train_loss", 2**-16), ("update_norm/head 0.1", 2**-12)):
            torch.testing.assert_close(
                theirs.signals[name], ours.signals[name], rtol=error, atol=0.0
            )
        torch.testing.assert_close(
            theirs.progress["stripe"], ours.progress["stripe"], rtol=2**-16, atol=0.0
        )


def test_runs_of_a_system_must_fit_together():
    with pytest.raises(ValueError, match="seed 1 of 'toy' differs from seed 0"):
        packed([run(0), run(1, steps=STEPS + 1)], {})


def test_the_data_set_has_what_it_promises():
    known = ps.datasets.transitions()
    with_events = {s: [r for r in known.of(s) if r.events] for s in known.systems}
    assert sum(len(runs) >= 10 for runs in with_events.values()) >= 8
    assert sum(not r.events for r in known) >= 100
    assert set(known.provenance["systems"]) == set(known.systems)
    assert len({(r.system, r.seed) for r in known}) == len(known)
    for r in known:
        assert bool((r.steps.diff() > 0).all())
        assert {"train_loss", "test_loss", "gradient_norm", "weight_norm"} <= set(r.signals)
        assert all(len(curve) == len(r.steps) for curve in r.signals.values())
        for event in r.events:
            assert r.steps[0] <= event.start <= event.middle <= event.end
            assert set(event.components) <= set(r.components)
    with pytest.raises(ValueError, match=r"the systems are grok_add, .* but not 'nothing'"):
        known.of("nothing")


def test_the_events_are_those_of_the_progress_measures():
    for r in ps.datasets.transitions():
        for event in r.events:
            if event.name not in r.progress:
                assert r.system == "spikes"
                continue
            curve = r.progress[event.name]
            if r.system == "slingshots":  # bursts of a rate of change, dated by their sums
                inside = (r.steps >= event.start) & (r.steps <= event.end)
                assert float(curve[inside].max()) > 1e-3
                continue
            low, high = curve[:5].mean(), curve[-5:].mean()
            at = int((r.steps == event.middle).nonzero())
            assert bool((curve[at : at + 5] >= (low + high) / 2 - 1e-3).all())
            assert float(curve[at - 1]) < float((low + high) / 2) + 1e-3
