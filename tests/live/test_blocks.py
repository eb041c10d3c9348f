import numpy as np
import pytest

from phasescope.live import GrowingBlocks


def slow(steps: np.ndarray, values: np.ndarray, width: float) -> list[tuple[float, ...]]:
    """Mean step, mean, smallest and largest finite value of every block, one after the other."""
    rows = []
    places = [int(np.log1p(step) / width) for step in steps]
    for place in dict.fromkeys(places):
        chosen = [i for i, other in enumerate(places) if other == place]
        known = [float(values[i]) for i in chosen if np.isfinite(values[i])]
        of_known = (np.mean(known), min(known), max(known)) if known else (np.nan,) * 3
        rows.append((np.mean(steps[chosen]), *of_known))
    return rows


def test_blocks_filled_in_pieces_are_those_of_the_whole_curve():
    generator = np.random.default_rng(0)
    steps = np.cumsum(generator.integers(1, 4, 3_000))
    values = generator.normal(size=(3_000, 3)).astype(np.float32)
    values[generator.random((3_000, 3)) < 0.3] = np.nan
    values[5, 1], values[2_000:2_200, 2] = np.inf, np.nan
    blocks = GrowingBlocks(3, 0.02)
    at = 0
    while at < 3_000:
        n = int(generator.integers(0, 90))
        blocks.add(steps[at : at + n], values[at : at + n])
        at += n
    for column in range(3):
        found = np.stack(
            [blocks.steps, *(x[:, column] for x in (blocks.mean, blocks.low, blocks.high))], 1
        )
        wanted = np.array(slow(steps, values[:, column], 0.02))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        finite = values[:, column][np.isfinite(values[:, column])]
        assert blocks.last[column] == finite[-1]
    assert blocks.last_step == steps[-1]


def test_the_number_of_blocks_grows_with_the_logarithm_of_the_step():
    blocks = GrowingBlocks(1, 0.005)
    sizes = []
    for decade in range(2, 6):
        steps = np.arange(blocks.last_step + 1, 10**decade)
        blocks.add(steps, np.ones((len(steps), 1)))
        sizes.append(len(blocks))
    per_decade = np.log(10) / 0.005
    assert sizes[-1] - sizes[-2] == pytest.approx(per_decade, abs=2)
    assert sizes[0] == 100


def test_steps_that_do_not_increase_are_refused():
    blocks = GrowingBlocks(1, 0.01)
    blocks.add(np.array([3, 4]), np.ones((2, 1)))
    with pytest.raises(ValueError, match="arrived after 4"):
        blocks.add(np.array([4]), np.ones((1, 1)))
    with pytest.raises(ValueError, match="must be positive"):
        GrowingBlocks(1, 0.0)
