"""What is trained, and what comes out of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from phasescope.analysis.sampling import Scheme
from phasescope.analysis.spectrum import Center
from phasescope.experiments.settings import grouped

SOURCE = "G. Baker, SVD of a time series of gradient updates on MNIST (LessWrong), and its thread"
RUNTIME = "one core: 80 s a seed (MLP on MNIST), 1 to 20 s (the other processes)"
CLAIM_IDS = ("A6", "A8", "A16")

# Centring and normalising of the rows; the last one decides A6.
VARIANTS: dict[str, tuple[Center, bool]] = {
    "raw": ("none", False),
    "normalised": ("none", True),
    "centred": ("steps", False),
    "normalised, centred": ("steps", True),
}
DECIDING = "normalised, centred"
PLACES = ("initialisation", "middle", "end")
SCHEMES: tuple[Scheme, ...] = ("random", "even", "jittered", "norm-weighted")
ProcessName = Literal["mnist", "logistic", "quadratic", "low_rank", "modular", "planted"]


@dataclass(frozen=True)
class Config:
    """One optimisation and the nulls of its spectra."""

    process: ProcessName = "mnist"  # what is optimised, see `processes`
    dataset: Literal["auto", "mnist", "digits"] = "auto"  # of mnist and logistic
    hidden: int = 128  # units of the hidden layer (mnist, modular)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    batch_size: int = 64
    n_steps: int = 1876  # two epochs of MNIST in batches of 64
    n_sampled: int = 400  # steps of every matrix that is compared, one from each equal stretch
    n_checkpoints: int = 200  # points of the paths of logits and losses
    seed: int = 0  # of initialisation, data, their order and every draw
    keep_trajectory: bool = False  # gradients are deleted once they are analysed


_MNIST = Config(dataset="mnist")
DEFAULT = Config()
DECIDING_SETTINGS = (
    replace(_MNIST, learning_rate=0.01),
    _MNIST,
    replace(_MNIST, optimizer="adam", learning_rate=1e-3),
)
_OTHER = replace(_MNIST, n_steps=1000)
OTHERS = (
    replace(_OTHER, process="logistic"),
    replace(_OTHER, process="quadratic", learning_rate=0.5),
    replace(_OTHER, process="low_rank", learning_rate=0.05),
    replace(_OTHER, process="modular", optimizer="adam", learning_rate=3e-3),
    replace(_OTHER, process="planted", batch_size=1, n_steps=400),  # all of them are sampled
)
SMOKE = tuple(
    replace(
        config,
        dataset="digits",
        hidden=16,
        batch_size=min(config.batch_size, 16),
        n_steps=80 if config.process == "planted" else 160,
        n_sampled=80,
        n_checkpoints=40,
    )
    for config in (_MNIST, *OTHERS)
)
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": SMOKE,
    "default": (DEFAULT,),
    "paper": (*DECIDING_SETTINGS, *OTHERS),
}


@dataclass(frozen=True)
class Results:
    """One run: its configuration, and every number as plain JSON."""

    config: Config
    numbers: dict[str, Any]


_NAMES = {
    "mnist": "MLP on MNIST",
    "logistic": "softmax regression on MNIST",
    "quadratic": "noisy quadratic",
    "low_rank": "low-rank factorisation",
    "modular": "modular addition",
    "planted": "planted e_n/n",
}


def setting(config: Config) -> str:
    """The setting of a run without its seed: ``MLP on MNIST, SGD 0.1``."""
    optimizer = {"sgd": "SGD", "adam": "Adam"}[config.optimizer]
    if config.process == "planted":
        return _NAMES["planted"]
    return f"{_NAMES[config.process]}, {optimizer} {config.learning_rate:g}"


def setting_of(result: Results) -> str:
    """The setting of a run, with the data that were really used."""
    name = setting(result.config)
    return name if result.numbers["dataset"] != "digits" else name.replace("MNIST", "small digits")


def group_by_setting(results: Sequence[Results]) -> dict[str, list[Results]]:
    """The runs of every setting, settings in the order in which they come."""
    return grouped(results, setting_of)


def for_storage(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Every run's configuration and numbers; paths and profiles of a setting's first seed only."""
    rows = []
    for runs in group_by_setting(results).values():
        for i, result in enumerate(runs):
            kept = {k: v for k, v in result.numbers.items() if i == 0 or k != "drawn"}
            rows.append({"config": asdict(result.config), "numbers": kept})
    return rows


def summary(result: Results) -> dict[str, float]:
    """The numbers of a run that a sweep shows."""
    row = result.numbers["nulls"]["training"][DECIDING]
    frozen = [result.numbers["nulls"][place][DECIDING]["flip_count"] for place in PLACES]
    found = {
        "components above flips": row["flip_count"],
        "the same, frozen weights": min(frozen),
        "count above 10%": result.numbers["nulls"]["training"]["raw"]["count"],
        "the same, norm null": result.numbers["nulls"]["training"]["raw"]["norm_null"],
    }
    return {name: float(value) for name, value in found.items()}


def disk_bytes(config: Config) -> int:
    """Bytes that a run writes while it runs: its gradients, samples of updates and weights."""
    widths = {"mnist": 785 * config.hidden + 11 * config.hidden, "logistic": 7850}
    rows = config.n_steps + 2 * config.n_sampled + 6 * config.n_sampled
    return 4 * rows * widths.get(config.process, 16_000)
