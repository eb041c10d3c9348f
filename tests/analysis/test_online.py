import numpy as np
import pytest

from phasescope.analysis.online import Alarm, OnlineDetector


def alarms(values: np.ndarray, **settings: float) -> list[Alarm]:
    detector = OnlineDetector(**settings)
    found = [detector.update(step, float(value)) for step, value in enumerate(values)]
    return [alarm for alarm in found if alarm is not None]


def test_planted_jumps_are_noticed_soon_and_in_their_direction():
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=3_000)
        late = np.arange(3_000) >= 1_000
        for sign, direction in ((1, "up"), (-1, "down")):
            first = alarms(noise + 4 * sign * late)[0]
            assert first.direction == direction
            assert 1_000 <= first.step <= 1_200
            assert 900 <= first.since <= first.step


def test_nulls_raise_few_alarms():
    """The rates of the guide, on a sample small enough for a test: none of 8 runs each."""
    generator = np.random.default_rng(0)
    t = np.arange(2_000)
    for kind in ("white", "walk", "power law"):
        n = 0
        for _ in range(8):
            noise = generator.normal(size=2_000)
            values = {
                "white": noise,
                "walk": noise.cumsum(),
                "power law": (1 + t / 30) ** -0.5 + 0.01 * noise,
            }[kind]
            n += bool(alarms(values))
        assert n <= 2, kind


def test_a_single_spike_raises_no_alarm_and_values_that_are_not_finite_are_left_out():
    values = np.random.default_rng(0).normal(size=2_000)
    values[[700, 900]] = 1e6, np.nan
    assert alarms(values) == alarms(np.where(np.arange(2_000) == 700, 0.0, values)) == []


def test_bad_input_is_named():
    detector = OnlineDetector()
    detector.update(5, 1.0)
    with pytest.raises(ValueError, match="5 arrived after 5"):
        detector.update(5, 1.0)
    with pytest.raises(ValueError, match=r"must be positive, but they are 0\.0"):
        OnlineDetector(width=0.0)
