"""Trainings of sharded models in several processes; see `several`."""

import warnings

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import phasescope as ps
from phasescope.datasets import ShuffledBatches
from phasescope.trajectory.sharding import (
    TensorNorms,
    local_tensor,
    part_like,
    sharded_names,
)
from phasescope.trajectory.sketch import CountSketch


class Sharded(nn.Module):
    """Shapes that two processes cannot share evenly, and dropout."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 5), nn.LayerNorm(5)
        self.drop, self.last = nn.Dropout(0.2), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


SAVE = {
    "norms": ps.every(1),
    "norms/unclipped_gradients": ps.every(1),
    "probes": ps.every(3),
}


def training(
    rank, directory=None, *, shard=True, resume=False, on_step=None, dtype=torch.float32, stop=None
):
    """A training of a model that is sharded over the processes, or replicated on each.

    Returns the final weights (of a sharded model this process's part) and the norms of the
    gradient parts that this process held at the last update.
    """
    torch.manual_seed(0)
    model = Sharded().to(dtype)
    if shard:
        fully_shard(model.first)
        fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    data = torch.Generator().manual_seed(1)
    x = torch.randn(80, 6, generator=data, dtype=dtype)
    batches = ShuffledBatches(x[rank::2], x[rank::2, :1].sin(), 8, seed=rank, n_epochs=4)
    torch.manual_seed(100 + rank)
    recorder = None
    if directory is not None:
        recorder = ps.Recorder(
            directory,
            model,
            optimizer,
            save=SAVE,
            checkpoint=ps.every(5),
            state={"loader": batches},
            probes={"output": lambda m: m(x[:3])},
            resume=resume,
        ).attach()
    step, parts = recorder.step if recorder else 0, []
    for inputs, targets in batches:
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        parts = [local_tensor(p.grad).norm().item() for p in model.parameters()]
        optimizer.step()
        step += 1
        if recorder:
            recorder.end_step()
        if on_step is not None:
            on_step(step)
        if step == stop:
            break
    if recorder:
        recorder.close()
    weights = [local_tensor(p).clone() for p in model.parameters()]
    return {"weights": weights, "parts": parts, "random": torch.rand(3), "step": step}


def sharded_and_replicated(rank, folder):
    """One training four ways: sharded and not, recorded and not, in float64."""
    kept = {"dtype": torch.float64}
    return {
        "sharded": training(rank, folder / "sharded", **kept),
        "bare": training(rank, **kept),
        "replicated": training(rank, folder / "replicated", shard=False, **kept),
    }


def resumed(rank, directory):
    warnings.simplefilter("ignore", ps.errors.RecordingWarning)
    return training(rank, directory, resume=True)


def refusals(rank, directory):
    """What the recorder says to a sharded model, per thing that it cannot record."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns of what it imports

    model = Sharded()
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    older = FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device("cpu"))
    said = {}
    for name, arguments in {
        **{
            group: {"save": {group: ps.every(1)}}
            for group in ("gradients", "unclipped_gradients", "updates", "weights", "moments")
        },
        "decay": {"save": {"decay": ps.every(1), "norms": ps.every(1)}},
        "sketches": {"save": {"sketches": ps.every(1)}, "sketch": CountSketch(8)},
        "continue": {"save": {"norms": ps.every(1)}, "on_failure": "continue"},
        "older": {"save": {"norms": ps.every(1)}},
        "zero": {"save": {"moments/exp_avg": ps.every(1)}, "checkpoint": ps.every(5)},
    }.items():
        recorded, by = model, optimizer
        if name == "older":
            recorded, by = older, torch.optim.SGD(older.parameters(), lr=0.1)
        if name == "zero":
            recorded = nn.Linear(2, 2)
            by = ZeroRedundancyOptimizer(recorded.parameters(), torch.optim.Adam, lr=0.1)
        try:
            ps.Recorder(directory, recorded, by, **arguments)
        except ValueError as error:
            said[name] = str(error)
    return said


def fully_recorded_alone(rank, folder):
    """Of a mesh of one process every tensor is whole: recorded sharded, and not."""
    for name in ("sharded", "plain"):
        torch.manual_seed(0)
        model = Sharded()
        if name == "sharded":
            fully_shard(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
        groups = ("gradients", "unclipped_gradients", "updates", "decay", "weights", "moments")
        save = dict.fromkeys((*groups, "norms"), ps.every(1))
        torch.manual_seed(1)
        with ps.Recorder(folder / name, model, optimizer, save=save):
            for _ in range(4):
                optimizer.zero_grad()
                model(torch.randn(8, 6)).square().mean().backward()
                optimizer.step()


def norms_on_meshes(rank):
    """Norms of tensors laid out in many ways over four processes, and those of the whole ones."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    placements = [
        (Shard(0), Shard(1)),
        (Shard(0), Shard(0)),
        (Replicate(), Shard(0)),
        (Shard(1), Replicate()),
        (Replicate(), Replicate()),
    ]
    data = torch.Generator().manual_seed(0)
    whole = [torch.randn(5, 3, generator=data) * 10.0**i for i in range(len(placements))]
    pairs = zip(whole, placements, strict=True)
    tensors = [distribute_tensor(t, mesh, p) for t, p in pairs]
    # An ordinary tensor among them, and a mesh of two.
    tensors += [torch.full((4,), 3.0), distribute_tensor(whole[0], mesh["model"], (Shard(0),))]
    whole += [torch.full((4,), 3.0), whole[0]]
    # What tensor parallelism and fully_shard make together, and fully_shard on two dimensions.
    both = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
    parallelize_module(both, mesh["model"], plan)
    fully_shard(both, mesh=mesh["data"])
    hybrid = nn.Linear(7, 3)
    fully_shard(hybrid, mesh=mesh)
    for parameter in (*both.parameters(), *hybrid.parameters()):
        tensors.append(parameter.detach())
        whole.append(parameter.full_tensor().detach())
    # Terms of a sum: every process of a column of the mesh has one.
    terms = torch.randn(2, 5, 3, generator=data)
    mine = terms[mesh.get_coordinate()[0]]
    partial = DTensor.from_local(mine, mesh, (Partial(), Replicate()), run_check=False)
    parts = [local_tensor(tensor) for tensor in tensors]
    for like in tensors[:5]:
        tensors.append(like)
        parts.append(part_like(partial, like))
        whole.append(terms.sum(0))
    return {
        "found": TensorNorms(tensors)(parts),
        "whole": torch.stack([tensor.norm() for tensor in whole]),
        "local": torch.stack([part.norm() for part in parts]),
        "sharded": sharded_names({str(i): tensor for i, tensor in enumerate(tensors)}),
        "placements": [str(getattr(tensor, "placements", None)) for tensor in tensors],
    }
