"""Layers and units of plain networks: a module with a matrix is a layer, its outputs are units."""

from __future__ import annotations

from torch import nn

from phasescope.components.description import Cut, Layer, Neurons
from phasescope.components.reading import ModelNames
from phasescope.models import MLP, ConvNet

# What may stand between two layers without mixing, moving or adding channels.
_KEEPS_CHANNELS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def plain_layers(names: ModelNames, embeddings: tuple[str, ...]) -> list[Layer]:
    """One layer for every module with a matrix of its own, in the order of the parameters.

    Args:
        names: The model.
        embeddings: Tensors that are no layers.
    """
    owners: dict[str, list[str]] = {}
    for name in names.tensors:
        if name not in embeddings:
            owners.setdefault(name.rpartition(".")[0], []).append(name)
    owners = {p: own for p, own in owners.items() if any(len(names.shapes[n]) > 1 for n in own)}
    readers = _readers(names, list(owners))
    layers = []
    for path, tensors in owners.items():
        neurons = _neurons(names, path, readers[path])
        if isinstance(neurons, str):
            layers.append(Layer(tuple(tensors), unknown={"neurons": neurons}))
        else:
            layers.append(Layer(tuple(tensors), neurons=neurons))
    return layers


def _readers(names: ModelNames, layers: list[str]) -> dict[str, str | None]:
    """Which layer reads each layer's outputs: empty for the last one, None where that is not known.

    Known are the networks of `phasescope.models`, and every nn.Sequential of layers with nothing
    between them that mixes or moves channels.
    """
    model = names.modules[""]
    if isinstance(model, MLP | ConvNet):
        return dict(zip(layers, [*layers[1:], ""], strict=True))
    found: dict[str, str | None] = dict.fromkeys(layers)
    last, is_flat = None, False
    for path in _steps(model, "") if isinstance(model, nn.Sequential) else []:
        module = names.modules[path]
        if path in found:
            # A full layer after a convolution reads channels only if the image was flattened.
            reads = is_flat or isinstance(module, _CONVOLUTIONS)
            if last is not None and (reads or not isinstance(names.modules[last], _CONVOLUTIONS)):
                found[last] = path
            last, is_flat = path, False
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            is_flat = True
        elif not isinstance(module, _KEEPS_CHANNELS):
            last = None
    if last is not None:
        found[last] = ""
    return found


def _steps(module: nn.Module, path: str) -> list[str]:
    """Paths of what a sequence runs, in order."""
    if not isinstance(module, nn.Sequential):
        return [path]
    inside = {f"{path}.{name}" if path else name: child for name, child in module.named_children()}
    return [step for name, child in inside.items() for step in _steps(child, name)]


def _neurons(names: ModelNames, path: str, reader: str | None) -> Neurons | str:
    """The outputs of a layer with what reads them, or why they cannot be told apart."""
    prefix = f"{path}." if path else ""
    module, weight, bias = names.modules[path], f"{prefix}weight", f"{prefix}bias"
    axis = 0 if isinstance(module, _CONVOLUTIONS) else names.rows_axis(path)
    if axis is None:
        return f"the outputs of a {type(module).__name__} are not known to be rows of a matrix."
    n = names.shapes[weight][axis]
    into = [Cut(weight, axis, range(n), 1)]
    if bias in names.tensors:
        into.append(Cut(bias, 0, range(n), 1))
    if reader == "":
        return Neurons(n, tuple(into))
    if reader is None:
        return Neurons(n, tuple(into), left_out="which layer reads them is not known")
    out = _columns(names, reader, n)
    if out is None:
        return Neurons(
            n, tuple(into), left_out=f"which inputs of {reader!r} read them is not known"
        )
    return Neurons(n, tuple(into), (out,))


def _columns(names: ModelNames, path: str, n: int) -> Cut | None:
    """Inputs of a layer, cut by the n channels that it reads."""
    module, weight = names.modules[path], f"{path}.weight"
    shape = names.shapes[weight]
    if isinstance(module, _CONVOLUTIONS):
        fits = module.groups == 1 and shape[1] == n
        return Cut(weight, 1, range(n), 1) if fits else None
    axis = names.rows_axis(path)
    if axis is None or shape[1 - axis] % n:
        return None
    width = shape[1 - axis] // n  # a flattened image lies channel by channel
    return Cut(weight, 1 - axis, range(0, n * width, width), width)
