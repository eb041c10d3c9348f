import subprocess
import sys

import numpy as np
import pytest

from phasescope.datasets import (
    MazeBatch,
    MazeMix,
    draw_mazes,
    in_conflict,
    maze_picture,
    observations,
    path_lengths,
    walk,
    with_goals_hidden,
)
from phasescope.datasets.mazes import distances_from

MIX = MazeMix(region=3, elsewhere=0.3, hidden=0.2, from_corner=0.1)
STARS = MazeMix(elsewhere=1.0, star_only=0.3, with_star=0.3)


@pytest.fixture(scope="module")
def levels():
    return draw_mazes(6000, MIX, seed=1)


@pytest.fixture(scope="module")
def starred():
    return draw_mazes(6000, STARS, size=5, seed=2)


def slow_distances(walls, start):
    """Breadth-first search, one place at a time."""
    n = len(walls)
    found = np.full((n, n), -1)
    queue = [divmod(int(start), n)]
    found[queue[0]] = 0
    for row, column in queue:
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < n and 0 <= c < n and not walls[r, c] and found[r, c] < 0:
                found[r, c] = found[row, column] + 1
                queue.append((r, c))
    return found


@pytest.mark.parametrize("size", [3, 7, 13])
def test_every_open_place_can_be_reached_and_a_tree_has_no_loops(size):
    for braid in (0.0, 0.4, 1.0):
        mazes = draw_mazes(200, size=size, braid=braid, seed=0)
        open_places = (~mazes.walls).sum((1, 2))
        reached = (distances_from(mazes.walls, mazes.agent) >= 0).sum((1, 2))
        np.testing.assert_array_equal(reached, open_places)
        m = (size + 1) // 2
        tree, all_open = 2 * m * m - 1, m * m + 2 * m * (m - 1)
        if braid == 0:
            assert (open_places == tree).all()
        if braid == 1:
            assert (open_places == all_open).all()


def test_walls_are_opened_with_the_probability_asked_for():
    mazes = draw_mazes(4000, size=7, braid=0.3, seed=0)
    extra = (~mazes.walls).sum((1, 2)) - 31  # a tree has 31 open places, 9 walls are left
    assert abs(extra.mean() - 9 * 0.3) < 4 * np.sqrt(9 * 0.3 * 0.7 / 4000)


def test_distances_are_those_of_a_search_place_by_place(levels):
    found = distances_from(levels.walls[:50], levels.agent[:50])
    for walls, start, distances in zip(levels.walls, levels.agent, found, strict=False):
        np.testing.assert_array_equal(distances, slow_distances(walls, start))


def test_the_same_seed_gives_the_same_levels_and_another_one_others(levels):
    again, other = draw_mazes(6000, MIX, seed=1), draw_mazes(6000, MIX, seed=2)
    for name in ("walls", "agent", "cheese", "star", "hidden"):
        np.testing.assert_array_equal(getattr(levels, name), getattr(again, name))
    assert (levels.walls != other.walls).any(axis=(1, 2)).mean() > 0.99


def test_kinds_of_levels_have_their_shares_and_their_rules(levels):
    corner = levels.corner
    started = levels.agent == corner
    rows, columns = np.divmod(levels.cheese, 7)
    in_region = (rows < 3) & (columns >= 4)
    assert (levels.cheese[levels.hidden] == corner).all()
    assert (levels.cheese[started] != corner).all()
    assert abs(levels.hidden.mean() - 0.2) < 0.02
    assert abs(started.mean() - (0.1 + 0.3 / 35)) < 0.03
    # .6 and those of .3 that are there by chance, about 9 of 33 open places
    assert 0.6 < in_region.mean() < 0.75
    assert (levels.cheese != levels.agent).all()
    open_at = ~levels.walls.reshape(len(levels), -1)
    for places in (levels.agent, levels.cheese):
        assert open_at[np.arange(len(levels)), places].all()


def test_stars_have_their_shares_and_places_of_their_own(starred):
    only, both = starred.cheese < 0, (starred.cheese >= 0) & (starred.star >= 0)
    assert abs(only.mean() - 0.3) < 0.03
    assert abs(both.mean() - 0.3) < 0.03
    assert (starred.star[only] >= 0).all()
    assert (starred.star[both] != starred.cheese[both]).all()
    assert (starred.agent != starred.cheese).all()
    assert (starred.agent != starred.star).all()


@pytest.mark.parametrize("thing", ["cheese", "star", "agent"])
def test_what_is_anywhere_is_uniform_over_the_open_places(thing):
    """Chi-squared over the places of one maze that is open everywhere but at the pillars."""
    from scipy.stats import chisquare

    mazes = draw_mazes(8000, MazeMix(elsewhere=1.0, star_only=0.5), size=5, braid=1.0, seed=3)
    places = mazes.places(thing)
    counts = np.bincount(places[places >= 0], minlength=25)
    open_places = np.flatnonzero(~mazes.walls[0].ravel())
    assert counts.sum() == counts[open_places].sum()
    assert chisquare(counts[open_places]).pvalue > 1e-3


def test_in_the_region_the_cheese_is_uniform_over_its_open_places():
    from scipy.stats import chisquare

    mazes = draw_mazes(8000, MazeMix(region=3), size=5, braid=1.0, seed=4)
    counts = np.bincount(mazes.cheese, minlength=25)
    region = [2, 3, 4, 7, 9, 12, 13, 14]  # without the pillar at 8
    assert counts.sum() == counts[region].sum()
    assert chisquare(counts[region]).pvalue > 1e-3


def test_a_conflict_has_neither_goal_on_a_shortest_path_to_the_other(levels):
    some = levels.select(slice(0, 300))
    mask = in_conflict(some)
    assert 0.05 < mask.mean() < 0.9
    for i in range(300):
        d = slow_distances(some.walls[i], some.agent[i]).ravel()
        from_cheese = slow_distances(some.walls[i], some.cheese[i]).ravel()
        between = from_cheese[some.corner]
        apart = between > 0 and d[some.corner] > 0
        through_cheese = d[some.cheese[i]] + between == d[some.corner]
        through_corner = d[some.corner] + between == d[some.cheese[i]]
        assert mask[i] == (apart and not through_cheese and not through_corner)


def test_path_lengths_of_missing_goals_are_minus_one(starred):
    lengths = path_lengths(starred, "agent", "cheese")
    np.testing.assert_array_equal(lengths < 0, starred.cheese < 0)
    assert (path_lengths(starred, "corner", "corner") == 0).all()


def test_moves_rewards_and_ends_are_those_of_one_agent_written_out(starred):
    few = starred.select(slice(0, 40))
    batch = MazeBatch(few, 16, seed=5, time_limit=9)
    seen = batch.reset()
    states = [batch.where(i) for i in range(16)]
    moves_made = np.zeros(16, dtype=int)
    rng = np.random.default_rng(0)
    n_ended = {"found": 0, "time": 0}
    for _ in range(300):
        actions = rng.integers(4, size=16)
        before, seen = seen, None
        moved = batch.step(actions)
        last = iter(moved.last_observation)
        for i, state in enumerate(states):
            row, column = divmod(state["agent"], 5)
            down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[actions[i]]
            r, c = row + down, column + right
            if 0 <= r < 5 and 0 <= c < 5 and not few.walls[state["level"], r, c]:
                row, column = r, c
            state["agent"] = 5 * row + column
            reward = 0
            for goal in ("cheese", "star"):
                if state[goal] == state["agent"]:
                    reward += 1
                    state[goal] = -1
            moves_made[i] += 1
            found = state["cheese"] < 0 and state["star"] < 0
            time_up = moves_made[i] >= 9 and not found
            assert moved.reward[i] == reward
            assert moved.terminated[i] == found
            assert moved.truncated[i] == time_up
            picture = next(last) if found or time_up else moved.observation[i]
            np.testing.assert_array_equal(picture, drawn(few, state))
            if found or time_up:
                n_ended["found" if found else "time"] += 1
                states[i], moves_made[i] = batch.where(i), 0
                np.testing.assert_array_equal(moved.observation[i], drawn(few, states[i]))
        seen = moved.observation
        assert (seen != before).any()
    assert min(n_ended.values()) > 20


def drawn(levels, state):
    picture = np.zeros((4, 25), dtype=np.float32)
    picture[0] = levels.walls[state["level"]].ravel()
    picture[1, state["agent"]] = 1
    for channel, goal in ((2, "cheese"), (3, "star")):
        if state[goal] >= 0:
            picture[channel, state[goal]] = 1
    return picture.reshape(4, 5, 5)


def test_hidden_goals_are_found_but_not_seen():
    hidden = draw_mazes(20, MazeMix(hidden=1.0), size=3, braid=1.0, seed=0)
    assert observations(hidden)[:, 2].sum() == 0
    assert observations(draw_mazes(20, size=3, seed=0))[:, 2].sum() == 20
    batch = MazeBatch(hidden, 8, seed=0)
    batch.reset()
    actions = np.random.default_rng(0)
    assert sum(batch.step(actions.integers(4, size=8)).reward.sum() for _ in range(50)) > 5


def test_episodes_go_on_after_the_corner_unless_it_ends_them():
    away = draw_mazes(50, MazeMix(elsewhere=1.0), size=3, braid=1.0, seed=0)
    away = away.select((away.agent == 0) & (away.cheese == 6))
    for ends in (False, True):
        batch = MazeBatch(away, 1, seed=0, corner_ends=ends)
        batch.reset()
        first, second = batch.step(np.array([1])), batch.step(np.array([1]))
        assert not first.done[0]
        assert second.terminated[0] == ends
        assert second.reward[0] == 0


def test_an_agent_that_knows_the_way_reaches_every_goal_in_the_shortest_time(levels):
    some = levels.select(slice(0, 400))
    to_cheese = distances_from(some.walls, some.cheese)
    pointer = {}

    def shortest(seen):
        logits = np.full((len(seen), 4), -50.0)
        for i, picture in enumerate(seen):
            row, column = np.argwhere(picture[1])[0]
            key = picture[0].tobytes()
            d = to_cheese[pointer[key]]
            for move, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
                r, c = row + down, column + right
                if 0 <= r < 7 and 0 <= c < 7 and 0 <= d[r, c] < d[row, column]:
                    logits[i, move] = 0
        return logits

    pointer.update({w.astype(np.float32).tobytes(): i for i, w in enumerate(some.walls)})
    unique = np.array(
        [pointer[w.astype(np.float32).tobytes()] == i for i, w in enumerate(some.walls)]
    )
    some_unique = some.select(unique)
    to_cheese = to_cheese[unique]
    pointer.update({w.astype(np.float32).tobytes(): i for i, w in enumerate(some_unique.walls)})
    walks = walk(some_unique, shortest, seed=1)
    lengths = path_lengths(some_unique, "agent", "cheese")
    np.testing.assert_array_equal(walks.first_visit("cheese"), lengths)
    np.testing.assert_array_equal(walks.ended, lengths)
    conflict = in_conflict(some_unique)
    assert conflict.any()
    assert walks.first("cheese", "corner")[conflict].all()
    assert not walks.first("corner", "cheese")[conflict].any()


def test_walks_move_to_neighbours_that_are_open_and_depend_on_the_seed_alone(levels):
    some = levels.select(slice(0, 200))
    uniform = lambda seen: np.zeros((len(seen), 4))  # noqa: E731
    walks = walk(some, uniform, seed=3)
    rows, columns = np.divmod(walks.places, 7)
    assert (np.abs(np.diff(rows)) + np.abs(np.diff(columns)) <= 1).all()
    assert not some.walls[np.arange(200)[:, None], rows, columns].any()
    np.testing.assert_array_equal(walks.places, walk(some, uniform, seed=3).places)
    assert (walks.places != walk(some, uniform, seed=4).places).any()
    # An agent without a preference makes each move equally often where nothing is in the way.
    centre = draw_mazes(4000, MazeMix(elsewhere=1.0), size=3, braid=1.0, seed=0)
    centre = centre.select(centre.agent == 3)  # the middle of the left side: up and down are open
    second = walk(centre, uniform, n_moves=1, seed=0).places[:, 1]
    shares = np.bincount(second, minlength=9) / len(second)
    assert abs(shares[0] - 0.25) < 0.06
    assert abs(shares[3] - 0.5) < 0.06  # right and left are walls


def test_first_tells_which_goal_came_before_the_other(levels):
    some = levels.select(in_conflict(levels)).select(slice(0, 300))
    walks = walk(with_goals_hidden(some), lambda seen: np.zeros((len(seen), 4)), seed=0)
    for i in range(300):
        path = walks.places[i].tolist()
        a = path.index(some.cheese[i]) if some.cheese[i] in path else None
        b = path.index(some.corner) if some.corner in path else None
        assert walks.first("cheese", "corner")[i] == (a is not None and (b is None or a < b))
        assert walks.reached("corner")[i] == (b is not None)


def test_a_picture_shows_walls_agent_goals_and_corner(starred):
    level = int(np.flatnonzero((starred.cheese >= 0) & (starred.star >= 0))[0])
    picture = maze_picture(starred, level, pixels=8)
    assert picture.shape == (56, 56, 3)
    assert picture.dtype == np.uint8
    cells = picture.reshape(7, 8, 7, 8, 3)
    wall = (cells == (31, 41, 51)).all(axis=(1, 3, 4))
    np.testing.assert_array_equal(wall[1:-1, 1:-1], starred.walls[level])
    assert wall[0].all()
    assert wall[:, -1].all()
    for color, places in (((0, 114, 178), starred.agent), ((230, 159, 0), starred.cheese),
                          ((170, 68, 153), starred.star)):  # fmt: skip
        row, column = divmod(int(places[level]), 5)
        assert (
            (picture == color).all(-1).sum()
            == (cells[row + 1, :, column + 1] == color).all(-1).sum()
            > 8
        )
    gone = maze_picture(starred, level, cheese=-1, pixels=8)
    assert not (gone == (230, 159, 0)).all(-1).any()


def test_more_than_half_a_million_moves_a_second():
    """In a process of its own, where annotations are not checked; processor time, best of five."""
    code = (
        "import time, numpy as np\n"
        "from phasescope.datasets import MazeBatch, MazeMix, draw_mazes\n"
        "batch = MazeBatch(draw_mazes(5000, MazeMix(elsewhere=.5), seed=0), 256, seed=0)\n"
        "batch.reset()\n"
        "actions = np.random.default_rng(0).integers(4, size=(200, 256))\n"
        "def rate():\n"
        "    start = time.process_time()\n"
        "    for row in actions: batch.step(row)\n"
        "    return 200 * 256 / (time.process_time() - start)\n"
        "print(max(rate() for _ in range(5)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(done.stdout) > 500_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MazeMix(elsewhere=0.7, hidden=0.4), "sum to at most 1.*Lower the shares"),
        (lambda: MazeMix(star_only=-0.1), "shares in \\[0, 1\\]"),
        (lambda: MazeMix(region=0), "a region of at least 1"),
        (lambda: draw_mazes(5, size=6, seed=0), "odd size of at least 3.*size=6"),
        (lambda: draw_mazes(5, MazeMix(region=9), size=7, seed=0), "region=9 arrived"),
        (lambda: draw_mazes(0, seed=0), "n_levels=0"),
        (lambda: draw_mazes(2, seed=0).places("gem"), "a thing is one of"),
        (lambda: MazeBatch(draw_mazes(2, seed=0), 0, seed=0), "n_envs=0"),
        (
            lambda: MazeBatch(draw_mazes(50, STARS, seed=0), 1, seed=0, stars=False),
            "a channel for stars where there are any",
        ),
        (lambda: maze_picture(draw_mazes(2, seed=0), 2), "level from 0 to 1.*level=2"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()
