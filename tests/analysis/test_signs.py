"""Signs from a counter: the published generator, clean statistics, no dependence on reading."""

import math

import pytest
import torch

from phasescope.analysis.signs import TILE, RandomSigns
from phasescope.splitmix import mix, mix_number, signed

# The first outputs of SplitMix64 from the seed 1234567, as its reference code prints them.
PUBLISHED = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def signs(n_steps: int = 400, n_columns: int = TILE, *, seed: int = 0, surrogate: int = 0):
    X = torch.ones(n_steps, min(n_columns, TILE))
    made = RandomSigns(torch.arange(n_steps), seed=seed)
    tiles = [
        made.flip(X, start, surrogate=surrogate, out=torch.empty_like(X))
        for start in range(0, n_columns, TILE)
    ]
    return torch.cat(tiles, dim=1)


def test_the_mixer_is_the_published_one():
    states = [1234567 + (i + 1) * 0x9E3779B97F4A7C15 for i in range(len(PUBLISHED))]
    z = torch.tensor([signed(state) for state in states])
    mix(z, torch.empty_like(z))
    assert [value % 2**64 for value in z.tolist()] == list(PUBLISHED)
    assert [mix_number(state) % 2**64 for state in states] == list(PUBLISHED)


def test_bits_of_the_words_are_the_signs_of_the_documented_columns():
    made = RandomSigns(torch.tensor([3, 8]), seed=5)
    words = made.words(2, surrogate=1).clone()
    X = torch.ones(2, TILE)
    found = made.flip(X, 2 * TILE, surrogate=1, out=torch.empty_like(X))
    for s, w in ((0, 0), (1, 0), (31, 127), (17, 64)):
        bit = (words[:, w].long() >> (31 - s)) & 1
        assert torch.equal(found[:, 128 * s + w], 1 - 2 * bit.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sign_depends_on_its_step_and_column_and_on_nothing_else(dtype: torch.dtype):
    steps = torch.tensor([0, 7, 1000, 123_456_789])
    X = torch.randn(4, TILE, generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = RandomSigns(steps, seed=1).flip(X, TILE, surrogate=2, out=torch.empty_like(X))
    assert torch.equal(whole.abs(), X.abs())
    for first, last in ((0, 1), (5, 1000), (129, TILE)):
        part = X[2:3, first:last]
        made = RandomSigns(steps[2:3], seed=1)
        found = made.flip(part, TILE + first, surrogate=2, out=torch.empty_like(part))
        assert torch.equal(found, whole[2:3, first:last])
    single = RandomSigns(steps, seed=1).flip(X.float(), TILE, surrogate=2, out=torch.empty(4, TILE))
    assert torch.equal(single.sign(), whole.sign().float())


def test_seeds_surrogates_steps_and_tiles_have_unrelated_signs():
    base = signs(64)
    others = [
        signs(64, seed=1),
        signs(64, surrogate=1),
        signs(64, 2 * TILE)[:, TILE:],
        signs(65)[1:],
        signs(64).roll(1, 1),
    ]
    for other in others:
        # A mean of n independent signs has standard deviation 1/sqrt(n).
        assert abs(float((base * other).mean())) < 5 / math.sqrt(base.numel())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_signs_are_balanced_and_uncorrelated(seed: int):
    R = signs(seed=seed)
    T, P = R.shape
    assert abs(float(R.mean())) < 4 / math.sqrt(R.numel())
    for sums, n in ((R.sum(1), P), (R.sum(0), T)):
        assert 0.85 < float(sums.var()) / n < 1.15
    rows = (R @ R.T)[torch.ones(T, T).triu(1).bool()] / math.sqrt(P)
    columns = (R.T @ R)[torch.ones(P, P).triu(1).bool()] / math.sqrt(T)
    for z, largest in ((rows, 5.2), (columns, 6.4)):
        # Of n normal values the largest exceeds these with probability below .02.
        assert 0.99 < float(z.std()) < 1.01
        assert float(z.abs().max()) < largest


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_largest_eigenvalue_of_signs_lies_at_the_edge_of_noise(seed: int):
    from phasescope.analysis.tracy_widom import tracy_widom_cdf

    R = signs(200, seed=seed).double()
    T, P = R.shape
    largest = float(torch.linalg.eigvalsh(R @ R.T)[-1])
    mu = (math.sqrt(P - 1) + math.sqrt(T)) ** 2
    xi = (math.sqrt(P - 1) + math.sqrt(T)) * (1 / math.sqrt(P - 1) + 1 / math.sqrt(T)) ** (1 / 3)
    assert 0.002 < tracy_widom_cdf((largest - mu) / xi) < 0.998


def test_words_repeat_no_more_than_independent_ones():
    made = RandomSigns(torch.arange(400), seed=0)
    words = torch.cat([made.words(tile, surrogate=0).flatten().clone() for tile in range(4)])
    n = len(words)  # 204,800 words of 32 bits: n²/2/2^32 = 4.9 repeated pairs are expected
    repeated = n - len(words.unique())
    assert repeated <= 15
    other = torch.cat([made.words(tile, surrogate=1).flatten().clone() for tile in range(4)])
    assert int((words == other).sum()) <= 1


def test_neighbouring_columns_and_steps_show_no_lag():
    R = signs(400)
    n = R.numel()
    for lag in (1, 2, 32, 64, 127, 128, 256, 2048):
        assert abs(float((R[:, lag:] * R[:, :-lag]).mean())) < 5 / math.sqrt(n - lag * 400)
    for lag in (1, 2, 3, 64):
        assert abs(float((R[lag:] * R[:-lag]).mean())) < 5 / math.sqrt(n)
