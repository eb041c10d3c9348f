import pytest
import torch

from phasescope.analysis.attention_scores import (
    copying,
    icl_score,
    prefix_matching,
    previous_token,
    stripe_score,
)
from phasescope.analysis.composition import composition


def uniform(n: int) -> torch.Tensor:
    mask = torch.ones(n, n).tril()
    return (mask / mask.sum(1, keepdim=True))[None, None]


def looking(n: int, offset: int) -> torch.Tensor:
    """A head that looks so many tokens back, where it can; else at the first token."""
    pattern = torch.zeros(n, n)
    for t in range(n):
        pattern[t, max(t - offset, 0)] = 1.0
    return pattern[None, None]


def test_hand_built_heads_have_the_scores_of_their_kind():
    n, segment = 12, 6
    induction = looking(n, segment - 1)
    assert stripe_score(induction, segment).item() == 1
    assert stripe_score(looking(n, 1), segment).item() == 0
    assert previous_token(looking(n, 1)).item() == 1
    tokens = torch.arange(segment).repeat(2)[None]
    # The first token of the second half follows an occurrence at the first place of the first half.
    assert prefix_matching(induction, tokens).item() == pytest.approx(1)


def test_uniform_attention_has_the_baseline():
    n, segment = 12, 6
    expected = torch.tensor([1 / (t + 1) for t in range(segment, n)]).mean()
    torch.testing.assert_close(stripe_score(uniform(n), segment), expected[None])
    before = torch.tensor([1 / (t + 1) for t in range(1, n)]).mean()
    torch.testing.assert_close(previous_token(uniform(n)), before[None])
    repeated = torch.arange(3).repeat(4)[None]
    found = prefix_matching(uniform(n), repeated).item()
    # Query t has t // 3 earlier occurrences, each followed by a token that it may look at.
    assert found == pytest.approx(sum((t // 3) / (t + 1) for t in range(3, n)) / (n - 3))


def test_prefix_matching_adds_up_over_occurrences_and_averages_over_sequences():
    tokens = torch.tensor([[1, 2, 1, 3, 1], [5, 6, 7, 8, 9]])
    pattern = uniform(5).expand(2, 1, 5, 5)
    # Queries 2 (key 1) and 4 (keys 1 and 3) of the first sequence only.
    assert prefix_matching(pattern, tokens).item() == pytest.approx((1 / 3 + 2 / 5) / 2)


def test_copying_is_three_for_a_perfect_copier_and_below_one_for_its_negative():
    tokens = torch.arange(6)[None]
    one = torch.eye(6)[None, None]
    assert copying(torch.eye(6)[None], one, tokens).item() == pytest.approx(3)
    assert copying(-torch.eye(6)[None], one, tokens).item() == pytest.approx(-1)


def test_icl_score_is_late_less_early():
    losses = torch.linspace(5, 1, 64)[None].repeat(3, 1)
    assert icl_score(losses).item() == pytest.approx(float(losses[0, 63] - losses[0, 6]))
    with pytest.raises(ValueError, match="early=9 and late=9"):
        icl_score(losses, early=9, late=9)


def test_stripes_need_two_repetitions():
    with pytest.raises(ValueError, match="the segment has 8 and the pattern 12"):
        stripe_score(uniform(12), 8)


def test_composition_equals_its_definition_and_names_planted_pairs(float64_default: None):
    torch.manual_seed(0)
    d, h = 12, 3
    Q, K, V = (torch.randn(4, d, h) for _ in range(3))
    out = torch.randn(4, h, d)
    K[2] = V[0] @ torch.randn(h, h) + out[0].T @ torch.randn(h, h)  # head 2 reads head 0
    found = composition(Q, K, V, out, [0, 0, 1, 1])
    for i in (2, 3):
        for j in (0, 1):
            qk, ov_i, ov_j = Q[i] @ K[i].T, V[i] @ out[i], V[j] @ out[j]
            scale = qk.norm() * ov_j.norm()
            torch.testing.assert_close(found.q[i, j], (ov_j @ qk).norm() / scale)
            torch.testing.assert_close(found.k[i, j], (ov_j @ qk.T).norm() / scale)
            v = (ov_j @ ov_i).norm() / (ov_i.norm() * ov_j.norm())
            torch.testing.assert_close(found.v[i, j], v)
    assert found.k[2, 0] == found.k[2:, :2].max()
    assert bool(found.k[0].isnan().all())
