"""Weight matching of two models, beside the package rebasin; times and what it does to barriers."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from rows import Row, summary
from torch import Tensor, nn
from torch.nn import functional

import phasescope as ps
from phasescope.models import MLP, ResNet, seeded


def rows(*, quick: bool, scratch: Path) -> list[Row]:
    width = 16 if quick else 512
    turns = 1 if quick else 5
    x, y = _digits()
    perceptrons = [
        _trained(seeded(lambda: MLP((64, width, width, width, 10)), s), x, y, 2 if quick else 30)
        for s in (0, 1)
    ]
    large = [seeded(lambda: MLP((784, width, width, width, 10)), s) for s in (0, 1)]
    blocks, channels = ((1, 1), 8) if quick else ((2, 2, 2, 2), 64)
    networks = [
        seeded(lambda: ResNet(n_blocks=blocks, width=channels, n_classes=10), s).eval()
        for s in (0, 1)
    ]
    return [
        _row(
            f"Match 784-{width}-{width}-{width}-10 perceptrons, untrained",
            large,
            torch.ones(2, 784),
            2.0,
            turns,
            quick,
        ),
        _row(
            f"Match 64-{width}-{width}-{width}-10 perceptrons, trained on digits",
            perceptrons,
            x[:2],
            2.0,
            turns,
            quick,
            measure=ps.StateMeasure(perceptrons[0], {"digits": (x, y)}),
        ),
        _row(
            f"Match ResNet-18 of width {channels}, untrained",
            networks,
            torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
            60.0,
            1,
            quick,
        ),
    ]


def _row(
    title: str,
    models: list[nn.Module],
    x: Tensor,
    goal: float,
    turns: int,
    quick: bool,
    measure: ps.StateMeasure | None = None,
) -> Row:
    """Ours with the derivation of the symmetry, and theirs with its tracing."""
    first, second = ({n: v.detach() for n, v in m.state_dict().items()} for m in models)
    found: dict[str, dict[str, Tensor]] = {"as they are": second}

    def ours() -> None:
        symmetry = ps.permutation_symmetry(models[0], (x,))
        matched = ps.match_weights(symmetry, first, second)
        found["ours"] = symmetry.permuted(second, matched.permutations)

    def theirs() -> None:
        from rebasin import PermutationCoordinateDescent

        copies = [_copy(m) for m in models]
        PermutationCoordinateDescent(*copies, x).rebasin()
        found["rebasin"] = {n: v.detach() for n, v in copies[1].state_dict().items()}

    processor = time.process_time()
    times = {"ours": _timed(ours, turns)}
    processor = (time.process_time() - processor) / turns
    note = f"{processor:.2g} s of processor time; "
    if find_spec("rebasin") is None:
        note += "rebasin is not installed; "
    else:
        try:
            times["rebasin"] = _timed(theirs, 1)
        except Exception as error:  # it does not run on every model
            note += f"rebasin failed: {type(error).__name__}; "
    detail: dict = {name: summary(t) for name, t in times.items()}
    detail["processor_s"] = processor
    detail["similarity"] = {n: _similarity(first, s) for n, s in found.items()}
    if measure is not None:
        detail["barriers"] = {
            n: ps.path_values(measure, ps.linear_path(first, s)).barrier("digits loss")
            for n, s in found.items()
        }
        note += "; ".join(f"barrier {n} {b:.3f}" for n, b in detail["barriers"].items())
    other = detail["rebasin"]["median"] if "rebasin" in times else None
    name = "rebasin 0.0.47" if other is not None else ""
    ours_s = detail["ours"]["median"]
    return Row(
        title,
        ours_s,
        other,
        name,
        goal,
        "ours",
        detail=detail,
        note=note.removesuffix("; "),
        quick=quick,
    )


def _timed(call: Callable[[], None], turns: int) -> list[float]:
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _copy(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def _similarity(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    a, b = (
        torch.cat([v.double().flatten() for n, v in s.items() if v.is_floating_point()])
        for s in (first, second)
    )
    return functional.cosine_similarity(a, b, 0).item()


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.data).float() / 16, torch.from_numpy(digits.target).long()


def _trained(model: nn.Module, x: Tensor, y: Tensor, n_epochs: int) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_epochs):
        for rows_ in torch.randperm(len(x), generator=generator).split(100):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows_]), y[rows_]).backward()
            optimizer.step()
    return model
