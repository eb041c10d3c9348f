import numpy as np
import pytest
import torch

from phasescope.analysis.phases import first_reached, grok_times, grokking_phases


def planted_grok(noise: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Curves of a training that turns at 4,000 and cleans up from 9,000 to 11,000 steps."""
    generator = np.random.default_rng(seed)
    t = np.arange(0, 16_000, 100).astype(float)
    excluded = np.exp(-t / 900) + np.exp((t - 8_000) / 900)  # minimum where both slopes cancel
    test = 12 / (1 + np.exp((t - 10_000) / 250)) + 1e-7 * np.exp(-t / 5e4)
    norm = 1_000 + 400 * np.exp(-t / 1e3) - 0.005 * t - 500 / (1 + np.exp(-(t - 9_700) / 400))
    curves = {"test_loss": test, "excluded_loss": excluded, "squared_norm": norm}
    factors = np.exp(noise * generator.standard_normal((3, len(t))))
    return {"steps": torch.arange(0, 16_000, 100)} | {
        name: torch.from_numpy(curve * (factor if name != "squared_norm" else 1.0))
        for (name, curve), factor in zip(curves.items(), factors, strict=True)
    }


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_planted_phases_are_found_within_their_intervals(noise: float):
    for seed in range(5 if noise else 1):
        phases = grokking_phases(**planted_grok(noise, seed))
        assert [p.name for p in phases] == [
            "memorisation",
            "circuit formation",
            "clean-up",
            "after",
        ]
        forming, cleaning, over = (p.start for p in phases[1:])
        assert forming.low <= 4_000 <= forming.high
        assert abs(forming.step - 4_000) <= 300
        # Test loss has lost a tenth at 10,000 - 250 ln 9; the norm falls fastest around 9,700.
        assert abs(cleaning.step - 9_450) <= 200
        assert cleaning.low <= cleaning.step <= cleaning.high
        # 12 exp(-(t - 10,000)/250) = 1e-3 at 12,348.
        assert abs(over.step - 12_400) <= 100
        assert over.low < over.step < over.high
        assert phases[0].end == forming
        assert phases[-1].end is None


def test_an_unfinished_training_has_fewer_phases():
    curves = planted_grok(0.0)
    for until, names in {
        30: ["memorisation"],
        80: ["memorisation", "circuit formation"],
        115: ["memorisation", "circuit formation", "clean-up"],
    }.items():
        cut = {name: curve[:until] for name, curve in curves.items()}
        phases = grokking_phases(**cut)
        assert [p.name for p in phases] == names
        assert phases[-1].end is None


def test_a_test_loss_that_only_falls_without_the_norm_is_no_clean_up():
    curves = planted_grok(0.0)
    curves["squared_norm"] = torch.linspace(1e3, 2e3, len(curves["steps"])).double()
    assert [p.name for p in grokking_phases(**curves)] == ["memorisation", "circuit formation"]


def test_a_slingshot_is_not_a_grok():
    steps = torch.arange(0, 300, 10)
    train = torch.ones(30)
    test = torch.full((30,), 0.1)
    test[5:8] = 0.99  # up and down again
    test[20:] = 0.97
    times = grok_times(steps, train, test)
    assert times.grokked is not None
    assert (times.grokked.low, times.grokked.step) == (190, 200)
    assert times.ratio is None  # memorised at step 0
    assert times.delay == 200
    assert grok_times(steps, train, test, hold=3).delay == 50


def test_what_is_not_reached_is_none():
    steps = torch.arange(10)
    low = torch.full((10,), 0.3)
    times = grok_times(steps, low, low)
    assert (times.memorised, times.grokked, times.delay, times.ratio) == (None, None, None, None)
    late = low.clone()
    late[-2:] = 1.0  # reached, but the curve ends before it was held
    assert grok_times(steps, late, late).grokked is None
    assert first_reached(steps[:2], low[:2], 0.1, hold=3) is None


def test_falling_to_a_threshold():
    moment = first_reached(torch.arange(4), torch.tensor([3.0, 2.0, 0.5, 0.1]), 1.0, below=True)
    assert moment is not None
    assert (moment.low, moment.step, moment.high) == (1, 2, 2)


def test_curves_that_do_not_belong_together_are_refused(unchecked_types: None):
    curves = planted_grok(0.0)
    with pytest.raises(ValueError, match="excluded_loss must have one value for each"):
        grokking_phases(**(curves | {"excluded_loss": curves["excluded_loss"][1:]}))
    with pytest.raises(ValueError, match="at least 15 evaluations"):
        grokking_phases(**{name: curve[:10] for name, curve in curves.items()})
    for name in ("test_loss", "excluded_loss", "squared_norm"):
        gap = curves[name].clone()
        gap[5] = torch.nan
        with pytest.raises(ValueError, match=f"{name} must be finite, but at step 500 it is nan"):
            grokking_phases(**(curves | {name: gap}))
    with pytest.raises(ValueError, match="increasing steps"):
        first_reached(torch.tensor([1, 1]), torch.ones(2), 0.5)
    with pytest.raises(ValueError, match="from 1 up, but it is 0"):
        first_reached(torch.arange(2), torch.ones(2), 0.5, hold=0)


def test_accuracies_and_thresholds_are_shares():
    steps, shares = [0, 10, 20], [0.1, 0.5, 1.0]
    percent = [10.0, 50.0, 100.0]
    with pytest.raises(
        ValueError, match=r"train_accuracy must be shares .* at step 0 it is 10\. D"
    ):
        grok_times(steps, percent, shares)
    with pytest.raises(ValueError, match="test_accuracy must be shares between 0 and 1"):
        grok_times(steps, shares, percent)
    with pytest.raises(ValueError, match="grokked_at must be a share, above 0 and at most 1, not"):
        grok_times(steps, shares, shares, grokked_at=95.0)
