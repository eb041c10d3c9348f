"""The axes: lists of levels from the undisturbed training to nothing going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from phasescope.experiments.spectrum_controls.config import Config

BASE = Config(dataset="mnist")
# Learning rates of the best test accuracy, on seeds 1000 and following, which are not counted:
# .03, .1, .2, .3, .5, 1 of SGD gave .917, .930, .930, .928, .903, .225; .001, .003, .01 of Adam
# .920, .929, .914.
ADAM = replace(BASE, optimizer="adam", learning_rate=3e-3)


@dataclass(frozen=True)
class Axis:
    """An interpolation."""

    name: str
    """What is varied, and in which unit."""
    claim: str
    """Claim that names it; empty for a control that must change nothing."""
    labels: tuple[str, ...]
    """Names of the levels, the undisturbed one first."""
    configs: tuple[Config, ...]
    """Their configurations."""


def _axis(
    name: str,
    claim: str,
    field: str,
    values: Sequence[Any],
    labels: Sequence[str] | None = None,
    base: Config = BASE,
    **fixed: Any,
) -> Axis:
    """Levels that differ from the base in one field, those off its value in fixed ones too."""
    start = getattr(base, field)
    configs = [
        base if value == start else replace(base, **{**fixed, field: value}) for value in values
    ]
    texts = labels or [f"{value:g}".replace("0.", ".", 1) for value in values]
    return Axis(name, claim, tuple(texts), tuple(configs))


_MIXED = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
_MOVED = (0.0, 0.25, 0.5, 0.75, 1.0)
_NOISES = {"gaussian": "Gaussian", "phase": "phase-scrambled", "permuted": "permuted-pixel"}
_SCOPES = {
    "fresh": ("within each image", "A22"),
    "across": ("across images", "A22"),
    "fixed": ("alike in all images (control)", ""),
}
_SIDES = (28, 14, 7, 4, 2, 1)
_DIMENSIONS = (1000, 700, 500, 300, 100, 30, 10)
_NOISY = replace(BASE, noise=0.5)

_DATA = (
    *(
        _axis(f"{text} noise, share", "A22", "noise", _MIXED, noise_model=model)
        for model, text in _NOISES.items()
    ),
    *(
        _axis(
            f"{units} shuffled {text}, share", claim, "shuffled", _MOVED,
            shuffle=units, shuffle_scope=scope,
        )
        for scope, (text, claim) in _SCOPES.items()
        for units in ("pixels", "rows", "columns")
    ),
    _axis("labels drawn anew, share", "A22", "label_noise", _MIXED),
    _axis("number of classes", "A22", "n_classes", (10, 7, 5, 3, 2, 1)),
    _axis("side of the image, pixels", "A22", "side", _SIDES),
    _axis("side of images with noise .5, pixels", "A22", "side", _SIDES, base=_NOISY),
    _axis("training examples", "A22", "n_examples", (6000, 1800, 600, 180, 60)),
)  # fmt: skip
_TRAINING = (
    _axis("initialisation gain, falling", "A23", "init_gain", (1.0, 0.3, 0.1, 0.03, 0.01)),
    _axis("initialisation gain, rising", "A23", "init_gain", (1.0, 3.0, 10.0, 30.0, 100.0)),
    _axis(
        "learning rate, falling", "A23", "learning_rate",
        (0.1, 0.03, 0.01, 0.003, 0.001, 0.0001),
        labels=(".1", ".03", ".01", ".003", ".001", "1e-4"),
    ),
    _axis("learning rate, rising", "A23", "learning_rate", (0.1, 0.3, 0.5, 1.0, 3.0)),
    _axis("momentum", "A23", "momentum", (0.0, 0.5, 0.9, 0.99, 0.999)),
    _axis("β₂ of Adam", "A23", "beta2", (0.999, 0.99, 0.9, 0.5, 0.0), base=ADAM),
    _axis(
        "dimensions of the trained subspace", "A23", "subspace", (0, *_DIMENSIONS),
        labels=("all", *map(str, _DIMENSIONS)), base=ADAM,
    ),
    _axis("hidden units", "A23", "hidden", (32, 16, 8, 4, 2)),
)  # fmt: skip
AXES: tuple[Axis, ...] = (*_DATA, *_TRAINING)


def levels(axes: Sequence[Axis]) -> tuple[Config, ...]:
    """The configurations of some axes, each once: many axes share the undisturbed training."""
    return tuple(dict.fromkeys(config for axis in axes for config in axis.configs))


# Small levels of a few axes, and two axes at full size; the numbers differ, the code does not.
SMOKE = replace(
    BASE, dataset="digits", side=8, hidden=8, n_steps=60, n_recorded=20, batch_size=20,
    n_examples=200, n_seeds=2,
)  # fmt: skip
PRESETS: dict[str, tuple[Config, ...]] = {
    "smoke": (SMOKE, replace(SMOKE, label_noise=0.5), replace(SMOKE, label_noise=1.0)),
    "default": levels([axis for axis in AXES if axis.name.startswith("labels")]),
    "paper": levels(AXES),
}
