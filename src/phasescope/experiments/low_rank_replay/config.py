"""What is trained, which variants of it, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from phasescope.experiments.settings import grouped

SOURCE = "G. Baker, SVD of a time series of gradient updates on MNIST (LessWrong), its thread"
RUNTIME = "one core: two minutes and a half a seed, 1.2 GB of disk while it runs"
CLAIM_IDS = ("A20", "A21")

KS = (1, 2, 5, 10, 20, 30, 50, 70, 100, 150, 200)
"""Numbers of directions that are kept, or left out."""
DIMENSIONS = (20, 50, 100, 200, 350, 500, 700, 1000)
"""Dimensions of the random subspaces that are trained at every learning rate."""
PUBLISHED_RANK = 92.5
"""The rank that the post gives; the nearest k decides A20."""
SHARE = 0.9
"""Of the full model's accuracy, that counts as reached in A21."""

# Names of the variants, as they stand in the numbers and in the figures.
FULL = "full training"
TOP = "top k"
COMPLEMENT = "complement"
OTHER_ORDER = "other order's k"
OTHER_START = "other initialisation's k"
FROZEN = "frozen weights' k"
RANDOM = "random k"
RANDOM_RATES = {"random k": "1", "random k, rate × √(P/k)": "root", "random k, rate × P/k": "full"}
SOURCES = (TOP, OTHER_ORDER, OTHER_START, FROZEN, RANDOM)


@dataclass(frozen=True)
class Config:
    """One training and all its replays."""

    dataset: Literal["auto", "mnist", "digits"] = "auto"  # auto: MNIST when it can be had
    hidden: int = 32  # units of the hidden layer
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    batch_size: int = 64
    n_steps: int = 1000  # updates of every training
    n_evaluations: int = 13  # points of the curves over steps, step 0 included
    seed: int = 0  # of initialisations, data orders and random subspaces


DEFAULT = Config()
SMOKE = Config(dataset="digits", hidden=12, batch_size=16, n_steps=60, n_evaluations=4)
_SGD = Config(dataset="mnist")
_ADAM = replace(_SGD, optimizer="adam", learning_rate=1e-3)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE,),
    "default": (DEFAULT,),
    "paper": (_SGD, _ADAM),
}


@dataclass(frozen=True)
class Results:
    """One run: its configuration and every number as plain JSON."""

    config: Config
    numbers: dict[str, Any]


def ks_of(config: Config) -> tuple[int, ...]:
    """The numbers of directions that a run of this length can have."""
    return tuple(k for k in KS if k <= config.n_steps // 4)


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``SGD 0.1``; other sizes are added."""
    name = {"sgd": "SGD", "adam": "Adam"}[config.optimizer]
    said = f"{name} {config.learning_rate:g}"
    for field, unit in (
        ("hidden", "hidden units"),
        ("batch_size", "a batch"),
        ("n_steps", "steps"),
    ):
        if getattr(config, field) != getattr(DEFAULT, field):
            said += f", {getattr(config, field):g} {unit}"
    return said


def setting_of(result: Results) -> str:
    """The setting of a run; another data set than MNIST is part of its name."""
    data = result.numbers["dataset"]
    return setting(result.config) + ("" if data == "mnist" else f", on {data}")


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, setting_of)


def row_of(
    result: Results, variant: str, k: int, *, order: str = "fresh", online: bool = True
) -> dict[str, Any]:
    """The numbers of one alternative model.

    Raises:
        KeyError: There is none.
    """
    for row in result.numbers["online" if online else "offline"]:
        same_order = not online or row["order"] == order
        if (row["variant"], row["k"]) == (variant, k) and same_order:
            return row
    raise KeyError(f"no alternative model {variant!r} with k={k} in the {order} order")


def fall(result: Results, row: dict[str, Any]) -> float:
    """Share of the full training's fall of the test loss that an alternative model reaches.

    0 where the loss did not fall at all, or is not finite any more. The full training is that in
    the same order of the data; offline it is the recorded one.
    """
    start = result.numbers["initial"]["test_loss"]
    full = row_of(result, FULL, 0, order=row.get("order", "original"))["test_loss"]
    loss = row["test_loss"]
    return 0.0 if loss is None else max(0.0, (start - loss) / (start - full))


def random_rows(result: Results, k: int) -> list[dict[str, Any]]:
    """Trainings in k random directions, one for every learning rate that was tried."""
    return [r for r in result.numbers["online"] if r["variant"] in RANDOM_RATES and r["k"] == k]


def best_random_fall(result: Results, k: int) -> float:
    """`fall` in k random directions at the best of the learning rates."""
    return max(fall(result, row) for row in random_rows(result, k))


def deciding_k(result: Results) -> int:
    """The k nearest to the published rank."""
    return min(ks_of(result.config), key=lambda k: abs(k - PUBLISHED_RANK))


def smallest_k(result: Results, share: float = SHARE) -> int | None:
    """The smallest k whose online replay reaches a share of the full accuracy; None if none."""
    full = row_of(result, FULL, 0)["test_accuracy"]
    for k in ks_of(result.config):
        if row_of(result, TOP, k)["test_accuracy"] >= share * full:
            return k
    return None


def smallest_fall_k(result: Results, share: float) -> int | None:
    """The smallest k whose online replay reaches a share of the fall of the loss."""
    reaching = [k for k in ks_of(result.config) if fall(result, row_of(result, TOP, k)) >= share]
    return min(reaching, default=None)


def random_dimension(result: Results, share: float = SHARE) -> int | None:
    """d_int90: the smallest random dimension that reaches it at one of the rates; None if none."""
    full = row_of(result, FULL, 0)["test_accuracy"]
    tried = {r["k"] for r in result.numbers["online"] if r["variant"] in RANDOM_RATES}
    for k in sorted(tried):
        if max(row["test_accuracy"] for row in random_rows(result, k)) >= share * full:
            return k
    return None


def disk_bytes(config: Config) -> int:
    """About how many bytes a run writes while it runs."""
    side = 8 if config.dataset == "digits" else 28
    n_parameters = (side**2 + 1) * config.hidden + 10 * (config.hidden + 1)
    return 6 * 4 * config.n_steps * n_parameters


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers; curves and spectra of a setting's first seed only."""
    rows = []
    for runs in group_by_setting(results).values():
        for i, result in enumerate(runs):
            numbers = dict(result.numbers)
            if i:
                numbers.pop("singular_values", None)
                for table in ("online", "offline"):
                    numbers[table] = [
                        {k: v for k, v in row.items() if k != "curve"} for row in numbers[table]
                    ]
            rows.append({"config": asdict(result.config), "numbers": numbers})
    return rows


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    k = deciding_k(result)
    return {
        f"fall, top {k}": fall(result, row_of(result, TOP, k)),
        f"fall, complement of {k}": fall(result, row_of(result, COMPLEMENT, k)),
        f"fall, random {k}": best_random_fall(result, k),
        "smallest k": float(smallest_k(result) or float("nan")),
        "test accuracy": row_of(result, FULL, 0)["test_accuracy"],
    }
