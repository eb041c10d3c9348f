"""Parameters of which every process holds a part: `fully_shard`, tensor parallelism (DTensor).

A tensor is laid out over the dimensions of a mesh of processes. Along each of them it is sharded
(every process holds a slice), replicated (everyone holds all of it) or partial (the tensor is the
sum over the processes).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_STRETCH = 2**18
_TINY = 1e-30
# The groups that need no whole tensor.
_WITHOUT_WHOLE_TENSORS = ("norms", "probes")


def is_dtensor(tensor: Tensor) -> bool:
    """Whether a tensor is laid out over several processes."""
    # Looked up, not imported: without the module there is no tensor of its type.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_tensor(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; of an ordinary one, all of it."""
    if not is_dtensor(tensor):
        return tensor.detach()
    with torch.no_grad():
        part: Tensor = _dtensor(tensor).to_local()
    return part.detach()


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The part that this process holds of a tensor once it is laid out as another.

    A gradient may be laid out otherwise than its parameter, as a sum over processes that nobody has
    taken yet. Then all of them communicate here.
    """
    if is_dtensor(tensor) and is_dtensor(like):
        wanted = _dtensor(like).placements
        if _dtensor(tensor).placements != wanted:
            return local_tensor(_dtensor(tensor).detach().redistribute(placements=wanted))
    return local_tensor(tensor)


def laid_out_as(values: Tensor, like: Tensor) -> Tensor:
    """This process's values as the tensor, laid out as another, that they are a part of."""
    if not is_dtensor(like):
        return values
    from torch.distributed.tensor import DTensor

    layout = _dtensor(like)
    return DTensor.from_local(
        values.view(local_tensor(like).shape),
        layout.device_mesh,
        layout.placements,
        run_check=False,
        shape=layout.shape,
        stride=layout.stride(),
    )


def sharded_names(parameters: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors of which this process does not hold all.

    Example:
        >>> sharded_names({"weight": torch.zeros(2)})
        []
    """
    return [name for name, parameter in parameters.items() if _split_along(parameter)]


def communicates(parameters: Iterable[Tensor]) -> bool:
    """Whether a forward pass of this model may need the other processes."""
    return any(is_dtensor(p) and _dtensor(p).device_mesh.size() > 1 for p in parameters)


def check_sharded(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    groups: Collection[str],
    *,
    checkpoint: bool,
    on_failure: str,
) -> None:
    """Check that what is spread over several processes can be recorded as asked.

    Args:
        model: The model.
        optimizer: Its optimizer.
        parameters: The model's parameters by name.
        groups: The groups that `save` names.
        checkpoint: Whether checkpoints are asked for.
        on_failure: The recorder's argument.

    Raises:
        ValueError: Whole tensors are asked for where each process holds a part, or the model is
            wrapped by the older FSDP.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in model.modules()):
        raise ValueError(
            "FullyShardedDataParallel keeps its parameters as anonymous pieces of flat buffers, "
            "which cannot be recorded by name. Use torch.distributed.fsdp.fully_shard, whose "
            "parameters keep their names and shapes, and record 'norms'."
        )
    optimizers = sys.modules.get("torch.distributed.optim")
    if optimizers and isinstance(optimizer, getattr(optimizers, "ZeroRedundancyOptimizer", ())):
        asked = ["checkpoints"] if checkpoint else []
        asked += ["'moments'"] if "moments" in groups else []
        if asked:
            raise ValueError(
                f"{' and '.join(asked)} need the optimizer's whole state, but of a "
                "ZeroRedundancyOptimizer each process keeps a part. Leave them out, or use the "
                "optimizer that it shards."
            )
    names = sharded_names(parameters)
    if not names:
        return
    whole = sorted(group for group in groups if group not in _WITHOUT_WHOLE_TENSORS)
    if whole:
        raise ValueError(
            f"save= asks for {whole}, which needs whole tensors, but {len(names)} of the model's "
            f"{len(parameters)} parameters are sharded over processes ({names[0]!r}, ...), and "
            "gathering them at every step would cost more than the training. Record 'norms': they "
            "are those of the whole tensors, summed over the processes."
        )
    if on_failure == "continue":
        raise ValueError(
            "on_failure='continue' cannot be kept with sharded parameters: their norms are summed "
            "by all processes together, and the others would wait for one that stopped recording. "
            "Use on_failure='raise' and resume=True."
        )


class TensorNorms:
    """The L2 norm of every parameter's tensor.

    Of sharded parameters each process passes its parts, and all must call this together: the
    squares are summed over the processes, by one `all_reduce` for each group of them.

    Args:
        parameters: The tensors whose layout the measured ones have.

    Example:
        >>> norms = TensorNorms([torch.zeros(4), torch.zeros(2)])
        >>> norms([torch.ones(4), torch.tensor([3.0, 4.0])])
        [2.0, 5.0]
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        # Per group of processes, the tensors that are sharded over it; in the same order on all.
        groups: dict[Any, list[int]] = {}
        for index, parameter in enumerate(parameters):
            for dimension in _split_along(parameter):
                group = _dtensor(parameter).device_mesh.get_group(dimension)
                groups.setdefault(group, []).append(index)
        self._groups = {group: torch.tensor(indices) for group, indices in groups.items()}

    def __call__(self, parts: list[Tensor]) -> Tensor | list[float]:
        """The norms of the tensors of which these are the parts held here.

        They come as floats where each has been made by itself, as a vector where all were made
        together: this is called at every step, and turning one into the other takes as long as a
        norm.
        """
        found = _norms_one_by_one(parts)
        if found is not None:
            if not self._groups:
                return found
            return self._summed(torch.tensor(found, dtype=torch.float64)).tolist()
        wide = any(part.dtype == torch.float64 for part in parts)
        # Without it the norm of a half-precision tensor is rounded, or overflows, in that type.
        dtype = torch.float64 if wide else torch.float32
        # One call for all tensors; PyTorch's own gradient clipping uses it too.
        found = torch._foreach_norm(parts, 2, dtype)  # pyright: ignore[reportPrivateImportUsage]
        norms = torch.stack(list(found))
        return (self._summed(norms) if self._groups else norms).float()

    def _summed(self, norms: Tensor) -> Tensor:
        """Norms of whole tensors from those of the parts; a replicated part counts once."""
        # In float64: the square of a norm that float32 can hold may be beyond it.
        squares = norms.double().square()
        for group, indices in self._groups.items():
            index = indices.to(squares.device)
            part = squares[index]
            torch.distributed.all_reduce(part, group=group)
            squares[index] = part
        return squares.sqrt()


def _norms_one_by_one(parts: list[Tensor]) -> list[float] | None:
    """L2 norms of float32 tensors on the CPU, to 1e-6 at any size; None if one is another tensor.

    Dot products of stretches, added in float64, are twice as fast as PyTorch's own norm, which has
    lost 1e-4 at four million entries.
    """
    found = []
    for part in parts:
        if part.dtype is not torch.float32 or not part.is_cpu:
            return None
        flat = part if part.ndim == 1 else part.reshape(-1)
        if flat.numel() <= _STRETCH:
            square = flat.dot(flat).item()
        else:
            square = math.fsum(x.dot(x).item() for x in flat.split(_STRETCH))
        if _TINY < square < math.inf:
            found.append(math.sqrt(square))
        else:  # squares in float32 overflow or vanish
            found.append(float(torch.linalg.vector_norm(part, dtype=torch.float64)))
    return found


def _split_along(tensor: Tensor) -> list[int]:
    """The dimensions of the mesh along which the processes hold different values."""
    if not is_dtensor(tensor):
        return []
    mesh, placements = _dtensor(tensor).device_mesh, _dtensor(tensor).placements
    return [
        dimension
        for dimension, placement in enumerate(placements)
        if not placement.is_replicate() and mesh.size(dimension) > 1
    ]


def _dtensor(tensor: Tensor) -> Any:
    return tensor
