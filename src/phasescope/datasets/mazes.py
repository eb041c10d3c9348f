"""Generated mazes with goals: walls, who starts where, distances, and which levels are a conflict.

Axes: level, row and column of a maze of n × n places; row 0 is at the top. A place is also given by
its number, row · n + column. The corner is the one at the top right, place n - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64, Shaped

Thing = Literal["agent", "cheese", "star", "corner"]
NOWHERE = -1
"""Place of a thing that a level does not have."""


@dataclass(frozen=True)
class MazeMix:
    """What kinds of levels a set of mazes consists of: shares of levels, and the corner region.

    The agent starts at random, away from the goals. Without any share the cheese always lies in the
    region at the corner. Shares of `elsewhere`, `hidden` and `from_corner` exclude each other and
    so do those of `star_only` and `with_star`.

    Raises:
        ValueError: Shares are no shares, or exceed one together; the region is not positive.

    Example:
        >>> MazeMix(elsewhere=0.25, hidden=0.25).in_region
        0.5
    """

    region: int = 1
    """The cheese lies in the block of region × region places at the corner; 1: in the corner."""
    elsewhere: float = 0.0
    """Share of the levels whose cheese is anywhere."""
    hidden: float = 0.0
    """Share of the levels whose cheese is in the corner and not shown."""
    from_corner: float = 0.0
    """Share of the levels where the agent starts in the corner and the cheese is anywhere else."""
    star_only: float = 0.0
    """Share of the levels with a star, anywhere, and no cheese."""
    with_star: float = 0.0
    """Share of the levels with a star, anywhere, beside the cheese."""

    def __post_init__(self) -> None:
        shares = {name: value for name, value in vars(self).items() if name != "region"}
        wrong = {name: value for name, value in shares.items() if not 0 <= value <= 1}
        first = self.elsewhere + self.hidden + self.from_corner
        second = self.star_only + self.with_star
        if wrong or max(first, second) > 1 + 1e-9 or self.region < 1:
            raise ValueError(
                "a mix of mazes needs a region of at least 1 and shares in [0, 1], of which "
                "elsewhere, hidden and from_corner sum to at most 1, and star_only and with_star "
                f"too, but {self} arrived. Lower the shares."
            )

    @property
    def in_region(self) -> float:
        """Share of the levels whose cheese, if they have one, lies visibly in the region."""
        return 1 - self.elsewhere - self.hidden - self.from_corner


@dataclass(frozen=True, eq=False)
class MazeLevels:
    """Mazes with an agent and goals, as arrays over levels."""

    walls: Bool[np.ndarray, "level n n"]
    """Where walls are; the border around the maze is not stored."""
    agent: Int64[np.ndarray, " level"]
    """Place where the agent starts."""
    cheese: Int64[np.ndarray, " level"]
    """Place of the cheese, -1 where there is none."""
    star: Int64[np.ndarray, " level"]
    """Place of the star, -1 where there is none."""
    hidden: Bool[np.ndarray, " level"]
    """Whether the goals are not shown; they are found all the same."""

    def __len__(self) -> int:
        return len(self.walls)

    @property
    def size(self) -> int:
        """Side n of the mazes."""
        return self.walls.shape[1]

    @property
    def corner(self) -> int:
        """Place of the corner, at the top right."""
        return self.size - 1

    def places(self, thing: str) -> Int64[np.ndarray, " level"]:
        """Where the agent starts or a goal is, in every level.

        Args:
            thing: ``"agent"``, ``"cheese"``, ``"star"`` or ``"corner"``.

        Raises:
            ValueError: It is another word.
        """
        if thing not in get_args(Thing):
            raise ValueError(f"a thing is one of {get_args(Thing)}, but {thing!r} arrived.")
        if thing == "corner":
            return np.full(len(self), self.corner)
        return getattr(self, thing)

    def select(self, which: Shaped[np.ndarray, " chosen"] | slice) -> MazeLevels:
        """Some of the levels.

        Args:
            which: A mask, numbers of levels or a slice.
        """
        arrays = (self.walls, self.agent, self.cheese, self.star, self.hidden)
        return MazeLevels(*(array[which] for array in arrays))


def draw_mazes(
    n_levels: int,
    mix: MazeMix | None = None,
    *,
    size: int = 7,
    braid: float = 0.3,
    seed: int,
) -> MazeLevels:
    """Random mazes: spanning trees of a grid (Kruskal), some of whose walls are then opened.

    Places with even row and column are open, those with two odd ones are walls; a random spanning
    tree of the former opens the places between them, so that every open place can be reached from
    every other. Each wall that the tree leaves is opened with probability `braid`, which makes
    loops. Cheese that is elsewhere and stars are uniform over the open places that are free, and so
    is the agent.

    Args:
        n_levels: How many.
        mix: Where the goals are, and which; by default the cheese is in the corner.
        size: Side n, odd.
        braid: Probability of opening a wall; 0 leaves a tree.
        seed: Of everything; the same arguments give the same levels.

    Returns:
        The levels.

    Raises:
        ValueError: A number is out of range, or the region is larger than the maze.

    Example:
        >>> levels = draw_mazes(100, MazeMix(elsewhere=0.5), size=5, seed=0)
        >>> levels.walls.shape, bool((path_lengths(levels, "agent", "cheese") > 0).all())
        ((100, 5, 5), True)
    """
    mix = MazeMix() if mix is None else mix
    if size < 3 or size % 2 == 0 or n_levels < 1 or not 0 <= braid <= 1 or mix.region > size:
        raise ValueError(
            "mazes need an odd size of at least 3, a level, a probability braid in [0, 1] and a "
            f"region within the size, but size={size}, n_levels={n_levels}, braid={braid} and "
            f"region={mix.region} arrived."
        )
    rng = np.random.default_rng(seed)
    walls = _draw_walls(rng, n_levels, size, braid)
    free = ~walls.reshape(n_levels, -1)
    kind = rng.random(n_levels)
    elsewhere = kind < mix.elsewhere
    hidden = ~elsewhere & (kind < mix.elsewhere + mix.hidden)
    from_corner = (kind >= 1 - mix.from_corner) & ~elsewhere & ~hidden
    rows, columns = np.divmod(np.arange(size * size), size)
    region = (rows < mix.region) & (columns >= size - mix.region)
    corner = np.arange(size * size) == size - 1
    allowed = free & np.where((elsewhere | from_corner)[:, None], True, region)
    allowed = np.where(hidden[:, None], corner, allowed) & ~(from_corner[:, None] & corner)
    cheese = _draw_places(rng, allowed)
    kind = rng.random(n_levels)
    star_only = kind < mix.star_only
    has_star = kind < mix.star_only + mix.with_star
    cheese = np.where(star_only, NOWHERE, cheese)
    taken = np.zeros_like(free)
    _mark(taken, cheese)
    barred = taken | (from_corner[:, None] & corner)
    star = np.where(has_star, _draw_places(rng, free & ~barred), NOWHERE)
    _mark(taken, star)
    agent = _draw_places(rng, free & ~taken)
    agent = np.where(from_corner, size - 1, agent)
    return MazeLevels(walls, agent, cheese, star, hidden)


def path_lengths(levels: MazeLevels, start: Thing, end: Thing) -> Int64[np.ndarray, " level"]:
    """Length of the shortest path from one thing to another in every level, in moves.

    Args:
        levels: The levels.
        start: ``"agent"``, ``"cheese"``, ``"star"`` or ``"corner"``.
        end: Another of them.

    Returns:
        Numbers of moves; -1 where one of the two does not exist.

    Example:
        >>> path_lengths(draw_mazes(3, size=3, braid=1.0, seed=0), "corner", "cheese").tolist()
        [0, 0, 0]
    """
    here, there = levels.places(start), levels.places(end)
    distances = distances_from(levels.walls, np.maximum(here, 0))
    lengths = distances.reshape(len(levels), -1)[np.arange(len(levels)), np.maximum(there, 0)]
    return np.where((here < 0) | (there < 0), NOWHERE, lengths)


def distances_from(
    walls: Bool[np.ndarray, "level n n"], places: Int64[np.ndarray, " level"]
) -> Int64[np.ndarray, "level n n"]:
    """Length of the shortest path from one place of every maze to all others, in moves.

    Args:
        walls: Where walls are.
        places: Number of one place in each maze.

    Returns:
        Numbers of moves; -1 for walls and what cannot be reached.

    Example:
        >>> distances_from(np.zeros((1, 3, 3), dtype=bool), np.array([0]))[0].tolist()
        [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    """
    n = walls.shape[1]
    found = np.full(walls.shape, -1, dtype=np.int64)
    front = np.zeros((len(walls), n + 2, n + 2), dtype=bool)
    front[np.arange(len(walls)), places // n + 1, places % n + 1] = True
    new, moves = front[:, 1:-1, 1:-1] & ~walls, 0
    while new.any():
        found[new] = moves
        front[:, 1:-1, 1:-1] = new
        reached = front[:, :-2, 1:-1] | front[:, 2:, 1:-1] | front[:, 1:-1, :-2]
        new = (reached | front[:, 1:-1, 2:]) & ~walls & (found < 0)
        moves += 1
    return found


def in_conflict(
    levels: MazeLevels, one: Thing = "cheese", other: Thing = "corner"
) -> Bool[np.ndarray, " level"]:
    """Levels in which neither of two goals lies on a shortest path to the other.

    Only there does the goal that is reached first tell what the agent wants.

    Args:
        levels: The levels.
        one: A goal.
        other: Another goal.

    Returns:
        True where both exist, apart from each other and from the agent, and are in conflict.

    Example:
        >>> levels = draw_mazes(1000, MazeMix(elsewhere=1.0), seed=0)
        >>> conflict = levels.select(in_conflict(levels))
        >>> bool((path_lengths(conflict, "cheese", "corner") > 0).all())
        True
    """
    to_one, to_other = path_lengths(levels, "agent", one), path_lengths(levels, "agent", other)
    between = path_lengths(levels, one, other)
    both = (to_one > 0) & (to_other > 0) & (between > 0)
    return both & (to_one + between > to_other) & (to_other + between > to_one)


def with_goals_hidden(levels: MazeLevels) -> MazeLevels:
    """The same levels, with goals that are not shown: where does the agent go by itself?

    Example:
        >>> bool(with_goals_hidden(draw_mazes(3, seed=0)).hidden.all())
        True
    """
    hidden = np.ones(len(levels), dtype=bool)
    return MazeLevels(levels.walls, levels.agent, levels.cheese, levels.star, hidden)


def _draw_walls(
    rng: np.random.Generator, n_levels: int, size: int, braid: float
) -> Bool[np.ndarray, "level n n"]:
    """All mazes' spanning trees at once, as one forest of minimal random weight."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    m = (size + 1) // 2
    cells = np.arange(m * m).reshape(m, m)
    first = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    second = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    # The place between two cells is the mean of theirs.
    between = (first // m + second // m) * size + first % m + second % m
    offset = np.arange(n_levels)[:, None] * m * m
    # Weights of zero would be no edges.
    weights = 1 + rng.random((n_levels, len(first)))
    ends = ((offset + first).ravel(), (offset + second).ravel())
    graph = coo_array((weights.ravel(), ends), shape=(n_levels * m * m,) * 2).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    number = np.zeros((m * m, m * m), dtype=np.int64)
    number[first, second] = number[second, first] = np.arange(len(first))
    opened = np.zeros((n_levels, len(first)), dtype=bool)
    level, one, other = tree.row // (m * m), tree.row % (m * m), tree.col % (m * m)
    opened[level, number[one, other]] = True
    opened |= rng.random(opened.shape) < braid
    walls = np.ones((n_levels, size, size), dtype=bool)
    walls[:, ::2, ::2] = False
    walls.reshape(n_levels, -1)[:, between] = ~opened
    return walls


def _draw_places(
    rng: np.random.Generator, allowed: Bool[np.ndarray, "level place"]
) -> Int64[np.ndarray, " level"]:
    """One of the allowed places of every level, all alike."""
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(1)


def _mark(taken: Bool[np.ndarray, "level place"], places: Int64[np.ndarray, " level"]) -> None:
    there = places >= 0
    taken[np.flatnonzero(there), places[there]] = True
