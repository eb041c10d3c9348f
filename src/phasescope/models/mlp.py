"""Multilayer perceptron, and models built from a seed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def seeded(build: Callable[[], Module], seed: int) -> Module:
    """The model that `build` returns when PyTorch's CPU generator starts from `seed`.

    PyTorch's layers draw their initial values from the global generator. Here it is seeded, and put
    back afterwards, so that neither the model depends on what was drawn before nor anything drawn
    later on the model.

    Only the CPU's generator is seeded and restored: build the model on the CPU and move it then.

    Args:
        build: Constructs the model, without arguments.
        seed: Seed of the initial values.

    Returns:
        The new model.

    Example:
        >>> first, second = seeded(MLP, 0), seeded(MLP, 0)
        >>> torch.equal(first.fc1.weight, second.fc1.weight)
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


class MLP(nn.Module):
    """Fully connected network with an activation between its layers, none after the last.

    The inputs are flattened. Layers are named `fc1`, `fc2`, ... and initialised as PyTorch does.

    Example:
        >>> model = MLP((64, 32, 10))
        >>> [name for name, _ in model.named_parameters()]
        ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 128, 10),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        """Build the layers.

        Args:
            sizes: Width of the input, of every hidden layer, and of the output.
            activation: Constructs the activation that follows every layer but the last.

        Raises:
            ValueError: If there are fewer than two sizes or one is not positive.
        """
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(
                "sizes must be at least two positive widths (input, hidden..., output), but they "
                f"are {tuple(sizes)}."
            )
        self.n_layers = len(sizes) - 1
        for number in range(1, self.n_layers + 1):
            self.add_module(f"fc{number}", nn.Linear(sizes[number - 1], sizes[number]))
        self.activation = activation()

    def forward(self, x: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch.

        Args:
            x: Inputs with as many features per sample as the first size.

        Returns:
            Logits, in nats.
        """
        x = x.flatten(1)
        for number in range(1, self.n_layers):
            x = self.activation(self.get_submodule(f"fc{number}")(x))
        return self.get_submodule(f"fc{self.n_layers}")(x)
