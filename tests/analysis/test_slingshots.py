import pytest
import torch

from phasescope.analysis.slingshots import find_slingshots

STEPS = torch.arange(3_000)


TIMES = torch.tensor([300, 830, 1_500, 1_990, 2_760])


def curves(with_norm: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes of the loss at irregular times, with or without bursts of the norm."""
    generator = torch.Generator().manual_seed(0)
    near = (STEPS[:, None] - TIMES).abs().amin(1)
    loss = 1e-3 * torch.exp(0.1 * torch.randn(3_000, generator=generator))
    loss = torch.where(near < 4, 50 * loss, loss)
    rounds = (STEPS[:, None] > TIMES).sum(1)
    return loss, (1 + 1e-4 * STEPS) * torch.exp(0.2 * rounds * with_norm)


def test_spikes_with_bursts_are_slingshots_and_others_are_not():
    loss, norm = curves(with_norm=True)
    found = find_slingshots(STEPS, loss, norm)
    assert len(found) == found.n_spikes == 5
    # Gaps of 530, 670, 490 and 770: between the two in the middle.
    assert found.period == pytest.approx(600, abs=8)
    assert found.p_value < 0.05
    assert bool((found.growth > found.ordinary).all())
    assert found.spikes.peak.tolist() == pytest.approx(TIMES.tolist(), abs=4)
    loss, norm = curves(with_norm=False)
    plain = find_slingshots(STEPS, loss, norm)
    assert plain.n_spikes == 5
    assert plain.p_value > 0.05


def test_a_burst_elsewhere_is_no_slingshot():
    loss, _ = curves(with_norm=False)
    norm = torch.exp(0.5 * (STEPS > 1_150))
    found = find_slingshots(STEPS, loss, norm)
    assert len(found) == 0
    assert found.p_value == 1.0
    assert found.period != found.period  # NaN


def test_bad_input_is_named():
    loss, norm = curves(with_norm=True)
    with pytest.raises(ValueError, match="window must be shorter than a third of the 3000"):
        find_slingshots(STEPS, loss, norm, window=1_000)
    assert len(find_slingshots(STEPS, loss, norm, window=999)) == 0
    with pytest.raises(ValueError, match="norm must be positive and finite"):
        find_slingshots(STEPS, loss, 0 * norm)
