"""Backward passes of replicas, in every mode of DistributedDataParallel; see `several`."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from phasescope.trajectory.backward import BackwardEnd


class Branching(nn.Module):
    """Three layers; the middle one may be recomputed in the backward pass, a fourth is unused."""

    def __init__(self, *, recompute=None, unused=False):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.unused = nn.Linear(4, 1) if unused else None
        self.recompute = recompute

    def forward(self, x):
        x = self.first(x)
        if self.recompute is None:
            return self.last(self.middle(x))
        return self.last(checkpoint(self.middle, x, use_reentrant=self.recompute == "reentrant"))


MODES = {
    "plain": ({}, {}),
    "bucket view": ({"gradient_as_bucket_view": True}, {}),
    "static graph": ({"static_graph": True}, {}),
    "static graph, unused": ({"static_graph": True}, {"unused": True}),
    "static graph, recomputed": ({"static_graph": True}, {"recompute": "reentrant"}),
    "unused": ({"find_unused_parameters": True}, {"unused": True}),
    "recomputed": ({}, {"recompute": "not reentrant"}),
    "recomputed, reentrant": ({}, {"recompute": "reentrant"}),
}


def ends_of_backward(rank):
    """Per mode of DistributedDataParallel, what `BackwardEnd` found, and what was there at last."""
    found = {}
    for mode, (options, architecture) in MODES.items():
        torch.manual_seed(0)
        net = Branching(**architecture)
        model = DistributedDataParallel(net, **options)
        seen, local, rows = {}, {}, []

        def gradients(net=net):
            return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}

        for name, p in net.named_parameters():
            p.register_post_accumulate_grad_hook(
                lambda p, name=name, local=local: local.update({name: p.grad.clone()})
            )
        calls = []
        end = BackwardEnd(
            lambda calls=calls, seen=seen, now=gradients: (calls.append(1), seen.update(now()))
        )
        handles = end.watch(net.parameters())
        for i in range(3):
            model.zero_grad()
            if i == 2 and "static" not in mode:
                with model.no_sync():
                    model(torch.randn(8, 4) + rank).square().mean().backward()
            model(torch.randn(8, 4) + rank).square().mean().backward()
            rows.append((dict(seen), gradients(), dict(local)))
        for handle in handles:
            handle.remove()
        model(torch.randn(8, 4)).square().mean().backward()
        found[mode] = rows, len(calls)
    return found
