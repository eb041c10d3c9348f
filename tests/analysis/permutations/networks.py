"""Small networks of every kind, and a call for each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from phasescope.models import MLP, ConvNet, PairTransformer


class Residual(nn.Module):
    """Convolutions with batch norm, a shortcut that is a convolution and one that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10)
        self.shortcut = nn.Conv2d(6, 10, 1, stride=2)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)), inplace=True)
        x = functional.relu(x + self.bn1(self.conv1(x)))
        x = functional.relu(self.shortcut(x) + self.bn2(self.conv2(x)))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Tied(nn.Module):
    """An autoencoder that decodes with the transpose of what it encodes with."""

    def __init__(self) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x @ self.W.T + self.b) @ self.W


class Recurrent(nn.Module):
    """A hidden layer that is read by itself: one group on both axes of a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again, self.out = nn.Linear(4, 7), nn.Linear(7, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.into(x))
        for _ in range(3):
            h = torch.tanh(self.again(h)) + h
        return self.out(h)


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2),
        nn.SiLU(),
        nn.ConvTranspose2d(4, 4, 2, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    )


def gpt2(**settings: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **ends, **settings))


X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
PAIRS = torch.tensor([[0, 1], [3, 2]])
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "mlp": (lambda: MLP((6, 7, 5, 4)), (X[0, :, :2].reshape(-1, 6),)),
    "convnet": (lambda: ConvNet(image_size=8, width=3), (X[:, :1, :8, :8],)),
    "residual": (Residual, (X,)),
    "grouped": (grouped, (X,)),
    "pair": (lambda: PairTransformer(5, d_model=8, n_heads=2, d_mlp=6), (PAIRS,)),
    "deep pair": (
        lambda: PairTransformer(
            5, d_model=8, n_heads=2, d_mlp=6, n_layers=2, activation="gelu_ln", all_biases=True
        ),
        (PAIRS,),
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), (X[0, :, :8, :8],)),
    "gpt2": (gpt2, (torch.tensor([[1, 2, 3, 4]]),)),
    "tied": (Tied, (X[0, 0, :, :8],)),
    "recurrent": (Recurrent, (X[0, 0, :, :4],)),
}
