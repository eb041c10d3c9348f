"""A process that records a training and prints its own peak memory, in bytes."""

import json
import sys

import torch
from gram_process import peak_bytes
from torch import nn

import phasescope as ps
from phasescope.models import MLP


def train(model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int) -> None:
    x, y = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
    for _ in range(n_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


if __name__ == "__main__":
    folder, n_steps = sys.argv[1], int(sys.argv[2])
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    train(model, optimizer, 50)
    without = peak_bytes()
    save = {"gradients": ps.every(1)}
    with ps.Recorder(f"{folder}/run", model, optimizer, save=save, n_steps=n_steps):
        train(model, optimizer, n_steps)
    print(json.dumps({"peak_bytes": peak_bytes(), "without_bytes": without}))
