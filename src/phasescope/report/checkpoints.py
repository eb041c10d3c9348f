"""Someone's trained network of pairs: its progress measures beside those of untrained ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from phasescope.analysis.grokking import (
    ProgressMeasures,
    gradient_symmetricity,
    logits_from_embeddings,
    measure,
    observe,
)
from phasescope.datasets import Split, Task, modular_task, split_pairs
from phasescope.datasets.coordinates import OPERATIONS
from phasescope.models import PairTransformer, load_grokking_checkpoint
from phasescope.trajectory.schema import RUN_FILE

if TYPE_CHECKING:
    from rich.table import Table

_SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class CheckpointAnalysis:
    """What `analyse_checkpoint` found."""

    task: str
    """The task the network is measured on."""
    activation: str
    """The activation it was run with: a state dict does not say it."""
    split_known: bool
    """Whether training and test pairs were told apart; else all pairs count as training pairs."""
    trained: ProgressMeasures
    """Its row."""
    trained_symmetricity: float
    """Its gradient symmetricity."""
    untrained: tuple[ProgressMeasures, ...]
    """Rows of untrained networks of the same shape, with the same key frequencies."""
    untrained_symmetricity: tuple[float, ...]
    """Their gradient symmetricity."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, lists and dictionaries, ready for JSON."""
        return {
            "task": self.task,
            "activation": self.activation,
            "split_known": self.split_known,
            "trained": self.trained.to_dict()
            | {"gradient_symmetricity": self.trained_symmetricity},
            "untrained": [
                row.to_dict() | {"gradient_symmetricity": symmetricity}
                for row, symmetricity in zip(
                    self.untrained, self.untrained_symmetricity, strict=True
                )
            ],
        }


def analyse_checkpoint(
    path: str | os.PathLike[str],
    operation: str | None,
    *,
    activation: str | None = None,
    attention_rate: float | None = None,
    basis: str | None = None,
    train_fraction: float | None = None,
    split_seed: int = 0,
    n_untrained: int = 3,
) -> CheckpointAnalysis:
    """Progress measures of a trained network, beside untrained networks of its shape.

    Several measures that mark an algorithm are high at initialisation too; the untrained networks
    say how high.

    Args:
        path: A state dict in any layout that `load_grokking_checkpoint` reads, or a directory with
            one such file (.pt, .pth, .safetensors).
        operation: ``"add"``, ``"subtract"``, ``"multiply"`` or ``"divide"``, as it was trained; the
            modulus is its number of tokens.
        activation: See `load_grokking_checkpoint`.
        attention_rate: See `load_grokking_checkpoint`.
        basis: ``"additive"`` or ``"multiplicative"``; default the operation's own.
        train_fraction: Share of the pairs it was trained on, if they were drawn as
            `split_pairs` does; without it all pairs count as training pairs.
        split_seed: Seed of that split.
        n_untrained: How many untrained networks.

    Returns:
        Rows of numbers.

    Raises:
        ValueError: The file is not there or does not fit, a directory has none or several, or an
            argument is out of range.

    Example:
        >>> import tempfile
        >>> from phasescope.models import PairTransformer, save_pair_transformer
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> save_pair_transformer(PairTransformer(7, d_model=8, n_heads=2, d_mlp=16), path)
        >>> found = analyse_checkpoint(path, "add", n_untrained=1)
        >>> found.task, found.trained.orders, len(found.untrained)
        ('add modulo 7', (7,), 1)
    """
    path = _checkpoint_file(Path(path))
    if operation not in OPERATIONS:
        raise ValueError(
            f"{path.name} is a checkpoint, which does not say what it was trained on: the "
            f"operation must be one of {', '.join(OPERATIONS)} (--operation), but {operation!r} "
            "arrived."
        )
    if n_untrained < 1:
        raise ValueError(f"at least 1 untrained network is the control, but {n_untrained} arrived.")
    model = load_grokking_checkpoint(path, activation=activation, attention_rate=attention_rate)
    task = modular_task(operation, model.n_tokens)
    n_pairs = len(task.pairs)
    if train_fraction is None:
        split = Split(torch.arange(n_pairs), torch.arange(0))
    else:
        split = split_pairs(n_pairs, train_fraction, seed=split_seed)
    trained, symmetricity = _row(model, task, split, basis, None)
    controls = [
        _row(_untrained(model, seed), task, split, basis, trained.restricted_keys)
        for seed in range(n_untrained)
    ]
    return CheckpointAnalysis(
        task=task.name,
        activation=model.shape.activation,
        split_known=train_fraction is not None,
        trained=trained,
        trained_symmetricity=symmetricity,
        untrained=tuple(row for row, _ in controls),
        untrained_symmetricity=tuple(value for _, value in controls),
    )


def checkpoints_in(path: Path) -> list[Path]:
    """The files in a directory that may be checkpoints, by name; none in that of a recorded run.

    Args:
        path: The directory; in anything else there are none.

    Example:
        >>> checkpoints_in(Path("nowhere"))
        []
    """
    if not path.is_dir() or (path / RUN_FILE).is_file():
        return []
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def checkpoint_table(analysis: CheckpointAnalysis) -> Table:
    """The numbers of `analyse_checkpoint` as a table for the terminal.

    Args:
        analysis: What was found.

    Returns:
        A rich table: the network, and the range over the untrained ones.

    Example:
        >>> import tempfile
        >>> from phasescope.models import PairTransformer, save_pair_transformer
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> save_pair_transformer(PairTransformer(7, d_model=8, n_heads=2, d_mlp=16), path)
        >>> checkpoint_table(analyse_checkpoint(path, "add", n_untrained=1)).columns[1].header
        'this network'
    """
    from rich.table import Table

    row = analysis.trained
    group = " × ".join(f"Z{order}" for order in row.orders)
    title = f"{analysis.task}, {row.basis} basis ({group}), activation {analysis.activation}"
    table = Table(title=title)
    for name in ("", "this network", f"{len(analysis.untrained)} untrained"):
        table.add_column(name, justify="right" if name else "left")
    trained = _cells(row, analysis.trained_symmetricity, split_known=analysis.split_known)
    controls = [
        _cells(control, value, split_known=analysis.split_known)
        for control, value in zip(analysis.untrained, analysis.untrained_symmetricity, strict=True)
    ]
    for name, value in trained.items():
        table.add_row(name, _shown([value]), _shown([control[name] for control in controls]))
    for name, rule in row.keys.items():
        table.add_row(f"key frequencies by {name}", _frequencies(rule.base, rule.harmonics), "")
    counts = ", ".join(f"{k}: {n}" for k, n in row.neurons["post"].counts.items())
    table.add_row("pure neurons of each frequency", counts or "none", "")
    return table


def _checkpoint_file(path: Path) -> Path:
    """The file itself, or the only one in a directory."""
    found = [path] if path.is_file() else checkpoints_in(path)
    if len(found) == 1:
        return found[0]
    kinds = ", ".join(_SUFFIXES)
    required = f"the file of a checkpoint, or a directory with one ({kinds}), is required, but "
    if found:
        names = ", ".join(file.name for file in found[:6]) + (", ..." if found[6:] else "")
        raise ValueError(f"{required}{path} holds {len(found)}: {names}. Pass one of them.")
    if (path / RUN_FILE).is_file():
        saved = max(path.glob("checkpoints/*/*.safetensors"), default=None)
        raise ValueError(
            f"{required}{path} is a recorded run. Analyse it without an operation"
            + (f", or pass one of its checkpoints, such as {saved}." if saved else ".")
        )
    raise ValueError(f"{required}there is none {'in' if path.is_dir() else 'at'} {path}.")


def _row(
    model: PairTransformer,
    task: Task,
    split: Split,
    basis: str | None,
    keys: tuple[int, ...] | None,
) -> tuple[ProgressMeasures, float]:
    W_E = model.W_E.detach().double()[: model.n_tokens]
    row = measure(observe(model), task, split, basis=basis, keys=keys)
    return row, gradient_symmetricity(logits_from_embeddings(model), W_E)


def _untrained(model: PairTransformer, seed: int) -> PairTransformer:
    """A network of the same shape with random weights, by the convention its shape points to."""
    params, shape = dict(model.named_parameters()), model.shape
    with_equals = shape.n_context == 3
    plain = "progress_measures" if model.n_outputs > model.n_tokens else "transformerlens"
    return PairTransformer(
        model.n_tokens,
        d_model=model.W_E.shape[1],
        n_heads=shape.n_heads,
        d_head=params["blocks.0.attn.W_Q"].shape[-1],
        d_mlp=params["blocks.0.mlp.W_in"].shape[-1],
        n_layers=shape.n_layers,
        activation=shape.activation,
        init=plain if with_equals else "pizza",
        n_outputs=model.n_outputs,
        n_context=3 if with_equals else 2,
        attention_rate=shape.attention_rate,
        causal=shape.causal,
        all_biases="blocks.0.attn.b_O" in params,
        generator=torch.Generator().manual_seed(seed),
    )


def _cells(
    row: ProgressMeasures, symmetricity: float, *, split_known: bool
) -> dict[str, int | float]:
    """The numbers that a table shows, by the name it gives them."""
    where = "train" if split_known else "all pairs"
    cells = {f"loss, {where} (nats)": row.train.loss, f"accuracy, {where}": row.train.accuracy}
    if split_known:
        cells |= {"loss, test (nats)": row.test.loss, "accuracy, test": row.test.accuracy}
    if row.without_place is not None:
        cells["accuracy, operands outside the group"] = row.without_place.accuracy
    within = "" if row.without_place is None else " in the group"  # whose losses these are
    keys = ", ".join(map(str, row.restricted_keys)) or "none"
    cells |= {
        f"restricted loss, all pairs{within} (keys {keys})": row.restricted["all"].loss,
        f"excluded loss, {where}{within}": row.excluded["train"].loss,
        f"largest loss without one frequency, {where}{within}": max(row.excluded_per_frequency),
        "logits explained by cos w(a+b-c)": row.cube_fve,
        "logits: share that depends on a+b alone": row.sum_share,
        "logits: share that depends on a-b alone": row.difference_share,
        "power-Gini of W_E": row.sparsity.power_W_E,
        "power-Gini of W_L": row.sparsity.power_W_L,
        "nanda-Gini of W_E": row.sparsity.nanda_W_E,
        "nanda-Gini of W_L": row.sparsity.nanda_W_L,
        "pure neurons (> .85) before the activation": row.neurons["pre"].n,
        "pure neurons (> .85) behind it": row.neurons["post"].n,
        "constant neurons": row.neurons["post"].n_constant,
        "gradient symmetricity": symmetricity,
        "distance irrelevance": row.distance_irrelevance,
        "circularity": row.circularity,
        "norm of all weights": row.squared_norms["all"] ** 0.5,
        "softmax collapse in float32": row.float32.collapse,
        f"loss in float32, {where}{within} (nats)": row.float32.loss,
    }
    return cells


def _shown(values: list[int | float]) -> str:
    low, high = (_number(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"


def _frequencies(base: tuple[int, ...], harmonics: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, base)) or "none"
    return f"{shown} (harmonics {', '.join(map(str, harmonics))})" if harmonics else shown
