"""Low-rank targets: their rank, scale, seeds and singular values."""

import pytest
import torch

from phasescope.datasets import low_rank_targets


def test_targets_have_their_rank_and_their_scale():
    targets = low_rank_targets(range(200), d=30, rank=3, scale=2.0)
    C = targets.matrices
    S = torch.linalg.svdvals(C)
    assert (S[:, 2] > 1).all()
    assert (S[:, 3] < 1e-12).all()
    assert targets.A.square().sum(1).mean().item() == pytest.approx(4, rel=0.03)
    assert C.square().sum((1, 2)).mean().item() == pytest.approx(3 * 16, rel=0.05)


def test_the_thin_decomposition_is_that_of_the_whole_matrix():
    targets = low_rank_targets([2, 9], d=12, rank=4)
    U, S, Vh = targets.svd
    torch.testing.assert_close(U @ torch.diag_embed(S) @ Vh, targets.matrices)
    torch.testing.assert_close(S, torch.linalg.svdvals(targets.matrices)[:, :4])
    eye = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(U.mT @ U, eye)
    torch.testing.assert_close(Vh @ Vh.mT, eye)


def test_conversion_keeps_the_values():
    targets = low_rank_targets([0], d=5, rank=2)
    single = targets.to("cpu", torch.float32)
    assert single.A.dtype == torch.float32
    torch.testing.assert_close(single.A.double(), targets.A, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [], "d": 4, "rank": 2}, "at least one seed"),
        ({"seeds": [0], "d": 4, "rank": 0}, "rank of a 4 x 4 target must be between 1 and 4"),
        ({"seeds": [0], "d": 4, "rank": 2, "scale": -1.0}, "scale must be positive"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        low_rank_targets(**options)
