"""The figures of one or many runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import phasescope as ps
from phasescope.experiments.gradient_nulls.claims import (
    deciding_settings,
    matched_ratio,
    norm_ratio,
)
from phasescope.experiments.gradient_nulls.config import (
    DECIDING,
    PLACES,
    SCHEMES,
    Results,
    group_by_setting,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Settings = dict[str, list[Results]]
_N_EPOCH = 938  # steps of an epoch of MNIST in batches of 64
_FROZEN = {place: f"frozen weights, {place}" for place in PLACES}


def figures(results: Sequence[Results]) -> dict[str, Figure]:
    """The figures over all runs, and those of one setting: the default's, or the first.

    Args:
        results: Runs of one or more settings and seeds.
    """
    settings = group_by_setting(results)
    shown = next(
        (name for name in settings if name.endswith("SGD 0.1") and name.startswith("MLP")),
        next(iter(settings)),
    )
    runs = settings[shown]
    drawn = {
        "components": _components(deciding_settings(settings)),
        "processes": _processes(settings),
        "spectra": _spectra(runs, shown),
        "heldout": _heldout(runs, shown),
        "windows": _windows(runs, shown),
        "sampling": _sampling(deciding_settings(settings)),
        "series": _series(deciding_settings(settings)),
        "overlaps": _overlaps(deciding_settings(settings)),
        "mass": _mass(runs, shown),
    }
    detail = next((run for run in runs if "drawn" in run.numbers), None)
    if detail is not None:
        drawn["profiles"] = _profiles(detail)
        drawn |= {f"path of {name}": _path(detail, name) for name in detail.numbers["turns"]}
    return drawn


def _over(runs: Sequence[Results], value: Callable[[dict[str, Any]], float]) -> np.ndarray:
    return np.array([value(run.numbers) for run in runs], dtype=np.float64)


def _components(settings: Settings) -> Figure:
    def flips(place: str) -> Callable[[dict[str, Any]], float]:
        return lambda n: n["nulls"][place][DECIDING]["flip_count"]

    groups = {
        name: {"training": _over(runs, flips("training"))}
        | {_FROZEN[place]: _over(runs, flips(place)) for place in PLACES}
        for name, runs in settings.items()
    }
    return ps.figures.seed_strips(
        groups,
        x_title="components above random signs",
        title="Components of a training, and of gradients at weights that do not move",
        seen="A row is a setting: the training, and as many gradients at frozen weights (hollow).",
        computed=(
            "Singular values of steps scaled to norm one and centred over steps that exceed the "
            "largest of 19 copies with a random sign for every entry."
        ),
        misleads=(
            "The count is of components that hold more energy than one step; it says nothing "
            "about weaker ones, and grows with the number of steps."
        ),
    )


def _processes(settings: Settings) -> Figure:
    groups = {
        name: {
            "count / norms alone": np.array([norm_ratio(run) for run in runs]),
            "count / frozen weights, norms matched": np.array(
                [matched_ratio(run, "centred") for run in runs]
            ),
        }
        for name, runs in settings.items()
    }
    return ps.figures.seed_strips(
        groups,
        x_title="count above 10%, over that of the null",
        line=1.0,
        log=True,
        title="One statistic of many optimisation processes",
        seen=(
            "A row is a process. Left of the line the training has fewer large singular values "
            "than the null. Filled: as recorded, over the norms alone; hollow: centred, over the "
            "least of three sets of frozen gradients with the same norms."
        ),
        computed="Singular values above a tenth of the largest, of as many steps throughout.",
        misleads=(
            "The norms alone assume infinitely many independent parameters; correlated minibatch "
            "noise has fewer large values without any training."
        ),
    )


def _spectra(runs: Sequence[Results], name: str) -> Figure:
    row = next(run for run in runs if "drawn" in run.numbers)
    values = row.numbers["drawn"]["spectra"]
    bundles = [
        ps.figures.Bundle(
            "training" if place == "training" else _FROZEN[place],
            np.arange(1, len(S)),
            np.array([S[:-1]]),
            is_null=place != "training",
        )
        for place, S in values.items()
    ]
    edge = row.numbers["nulls"]["training"][DECIDING]["edge"]
    ends = np.array([1, len(values["training"]) - 1])
    bundles.append(
        ps.figures.Bundle("random signs of the training", ends, np.full((1, 2), edge), is_null=True)
    )
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="index of the singular value (largest first)",
        y_title="singular value (steps have norm 1)",
        log_x=True,
        title=f"Singular values of a training and of frozen weights ({name})",
        seen=(
            "Steps scaled to norm one and centred, one seed; the horizontal line is where noise of "
            "independent parameters would begin in the training (frozen gradients have an edge of "
            "their own, lower where their mean holds much of the energy)."
        ),
        computed="Square roots of the eigenvalues of the Gram matrix of the sampled steps.",
        misleads=(
            "Frozen gradients of the middle and the end are of other weights than most steps of "
            "the training are."
        ),
    )


def _heldout(runs: Sequence[Results], name: str) -> Figure:
    bundles = []
    for row in runs[0].numbers["heldout"]:
        label = row["curve"]
        rows = [r for run in runs for r in run.numbers["heldout"] if r["curve"] == label]
        bundles.append(
            ps.figures.Bundle(
                label.removeprefix("null: "),
                np.array(row["k"]),
                np.array([r["median"] for r in rows]),
                is_null=label.startswith("null: "),
            )
        )
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="leading directions of the sampled steps",
        y_title="residual norm / norm of the step (median)",
        log_x=True,
        title=f"What the leading directions leave of other steps ({name})",
        seen=(
            "1: nothing is explained, 0: everything. Held out are other steps, a fifth of the "
            "training, and a training in another data order; beside gradients at frozen weights "
            "explained by others there, and random subspaces."
        ),
        computed=(
            "Each held-out step is projected on the leading parameter directions of the sample; "
            "isotropic: a random subspace of all parameters; diagonal: of as many as the "
            "parameters' variances amount to."
        ),
        misleads=(
            "Every sample explains itself. A residual below that of random subspaces needs no "
            "training: minibatch noise is correlated between parameters."
        ),
    )


def _windows(runs: Sequence[Results], name: str) -> Figure:
    rows = [run.numbers["windows"] for run in runs]
    first = np.array([w["first"] for w in rows[0]])
    bundles = [
        ps.figures.Bundle(
            f"{label} ({variant})",
            first,
            np.array([[w[variant][key] for w in run] for run in rows]),
            is_null=key == "norm_null",
        )
        for variant in ("raw", DECIDING)
        for key, label in (("count", "count"), ("norm_null", "norms alone"))
    ]
    return ps.figures.curves_beside_nulls(
        bundles,
        x_title="first step of the window",
        y_title="singular values above 10%",
        title=f"The count in windows of the training ({name})",
        seen="Windows as long as the sample, each half over the one before.",
        computed="Principal submatrices of one Gram matrix; centred within each window.",
        misleads="The largest value, to which all is compared, is another one in every window.",
    )


def _sampling(settings: Settings) -> Figure:
    groups = {
        name: {
            scheme: _over(
                runs, lambda n, s=scheme: float(np.mean([d[0] for d in n["sampling"][s]]))
            )
            for scheme in SCHEMES
        }
        for name, runs in settings.items()
    }
    return ps.figures.seed_strips(
        groups,
        x_title="singular values above 10%",
        title="Which steps are sampled",
        seen="A row is a setting, a lane a way to draw as many steps.",
        computed=(
            "Mean count over ten draws (one, if evenly spaced) of the gradients as recorded; rows "
            "of norm-weighted draws are divided by the root of their probability."
        ),
        misleads="Weighting makes the rows' norms equal, and the count grows by that alone.",
    )


def _series(settings: Settings) -> Figure:
    names = ("gradients", "updates", "increments", "weights")

    def row(runs: Sequence[Results]) -> Mapping[str, np.ndarray]:
        counts = {
            series: _over(runs, lambda n, s=series: n["series"]["rows"][s]["centred"]["count"])
            for series in names
        }
        walk = _over(runs, lambda n: n["series"]["rows"]["weights"]["walk"]["centred"]["count"])
        return counts | {"random walks of the updates": walk}

    return ps.figures.seed_strips(
        {name: row(runs) for name, runs in settings.items()},
        x_title="singular values above 10% (centred)",
        title="Gradients, updates, increments and weights of the same steps",
        seen="A row is a setting, a lane what was decomposed; walks are the null of the weights.",
        computed=(
            "Increments lead from one sampled step to the next; weights are minus the initial "
            "ones; walks sum independent updates of the recorded norms."
        ),
        misleads="Points of a walk are sums: their count is small whatever the training did.",
    )


def _overlaps(settings: Settings) -> Figure:
    pairs = list(next(iter(settings.values()))[0].numbers["series"]["overlaps"])
    groups = {
        pair: {
            name: _over(runs, lambda n, p=pair: n["series"]["overlaps"][p])
            for name, runs in settings.items()
        }
        for pair in pairs
    }
    groups |= {
        f"gradients and {_FROZEN[place]}": {
            name: _over(runs, lambda n, p=place: n["nulls"][p]["overlap"])
            for name, runs in settings.items()
        }
        for place in PLACES
    }
    return ps.figures.seed_strips(
        groups,
        x_title="overlap of the 10 leading directions (1: the same subspace)",
        log=True,
        title="Do the decompositions find the same directions",
        seen="A row is a pair of series, a lane a setting.",
        computed="Mean squared cosine between the leading parameter directions, centred.",
        misleads=(
            "Noise rotates directions: two halves of the same gradients say how much agreement "
            "there can be."
        ),
    )


def _mass(runs: Sequence[Results], name: str) -> Figure:
    tensors = runs[0].numbers["mass"]["tensors"]
    groups = {
        tensor: {
            "mean of the leading components": _over(
                runs, lambda n, i=i: float(np.mean([row[i] for row in n["mass"]["components"]]))
            ),
            "energy of all steps": _over(runs, lambda n, i=i: n["mass"]["all_steps"][i]),
            "share of the parameters": _over(runs, lambda n, i=i: n["mass"]["parameters"][i]),
        }
        for i, tensor in enumerate(tensors)
    }
    return ps.figures.seed_strips(
        groups,
        x_title="share",
        log=True,
        title=f"Where the leading components live ({name})",
        seen="A row is a tensor: its share of the leading components, beside its share of all.",
        computed="Squared entries of the 8 leading parameter directions, summed over the tensor.",
        misleads="A component above the noise in time may still be mostly noise in parameters.",
    )


def _profiles(run: Results) -> Figure:
    found, drawn = run.numbers["profiles"], run.numbers["drawn"]
    labels = tuple(
        f"component {i + 1}: centre at step {center:.0f}, z = {z:.1f}; "
        f"early quarter {100 * early:.0f}%, late quarter {100 * late:.0f}%"
        for i, (center, z, early, late) in enumerate(
            zip(
                found["center"]["observed"],
                found["center"]["z"],
                found["early"]["observed"],
                found["late"]["observed"],
                strict=True,
            )
        )
    )
    energy = np.array(drawn["profiles"])
    return ps.figures.component_profiles(np.array(drawn["sample"]), energy, labels)


def _path(run: Results, name: str) -> Figure:
    path = run.numbers["drawn"]["paths"][name]

    def array(key: str) -> np.ndarray:
        return np.array(path[key], dtype=np.float64)  # None becomes not-a-number

    epochs = range(_N_EPOCH, run.config.n_steps, _N_EPOCH)
    return ps.figures.path_and_bends(
        array("points"),
        array("walk"),
        np.array(path["steps"]),
        array("bends"),
        (array("bends_low"), array("bends_high")),
        turns=tuple(run.numbers["turns"][name]["turns"]),
        boundaries=tuple(epochs) if run.numbers["dataset"] == "mnist" else (),
        what=f"{name} of held-out examples",
    )
