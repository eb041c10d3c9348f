"""Residual networks with the names and shapes of torchvision's.

Axes: n images, channels, height and width in pixels, classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, around which the input is added."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A residual network of basic blocks: by default ResNet-18 for images of 224 pixels.

    Names and shapes of parameters and buffers are those of torchvision's `resnet18` (and
    `resnet34` with ``n_blocks=(3, 4, 6, 3)``), so their state dicts load. Convolutions begin normal
    with variance 2 / fan-out, as there.

    Example:
        >>> import torch
        >>> model = ResNet(n_blocks=(1, 1), width=8, n_classes=10, small_images=True)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    References:
        He et al. (2015), "Deep residual learning for image recognition", arXiv:1512.03385.
        torchvision/models/resnet.py.
    """

    def __init__(
        self,
        *,
        n_blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        n_classes: int = 1000,
        in_channels: int = 3,
        small_images: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            n_blocks: Blocks of each stage, up to four; from the second on, a stage halves the image
                and doubles the channels.
            width: Channels of the first stage.
            n_classes: Number of logits.
            in_channels: Channels of the images.
            small_images: A 3 x 3 convolution at the start instead of 7 x 7 and pooling, as is usual
                for CIFAR.

        Raises:
            ValueError: A size is not positive, or there are more than four stages.
        """
        super().__init__()
        if not 1 <= len(n_blocks) <= 4 or min(*n_blocks, width, n_classes, in_channels) < 1:
            raise ValueError(
                "one to four stages and positive sizes are required, but n_blocks is "
                f"{tuple(n_blocks)}, width {width}, n_classes {n_classes}, in_channels "
                f"{in_channels}."
            )
        self.small_images, self.n_stages = small_images, len(n_blocks)
        kernel, stride, padding = (3, 1, 1) if small_images else (7, 2, 3)
        self.conv1 = nn.Conv2d(in_channels, width, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        n_in = width
        for stage, n in enumerate(n_blocks):
            n_out = width * 2**stage
            blocks = [
                _Block(n_in if i == 0 else n_out, n_out, 2 if stage and i == 0 else 1)
                for i in range(n)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            n_in = n_out
        self.fc = nn.Linear(n_in, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Logits of a batch.

        Args:
            x: Images.

        Returns:
            Logits, in nats.
        """
        return self.back(self.front(x, 0), 0)

    def front(
        self, x: Float[Tensor, "n channels height width"], stage: int
    ) -> Float[Tensor, "n _channels _height _width"]:
        """What a stage gives to the next.

        Args:
            x: Images.
            stage: The last stage that is used, from 1; 0 for the start alone.

        Returns:
            Activations, not negative.

        Example:
            >>> import torch
            >>> model = ResNet(n_blocks=(1, 1), width=8, n_classes=10, small_images=True)
            >>> model.front(torch.zeros(2, 3, 32, 32), 2).shape
            torch.Size([2, 16, 16, 16])
        """
        x = functional.relu(self.bn1(self.conv1(x)))
        if not self.small_images:
            x = functional.max_pool2d(x, 3, 2, 1)
        for i in range(1, stage + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return x

    def back(
        self, h: Float[Tensor, "n channels height width"], stage: int
    ) -> Float[Tensor, "n classes"]:
        """Logits from what a stage gives: `forward` is ``back(front(x, k), k)`` for every k.

        Args:
            h: Activations of the stage.
            stage: The stage, from 1; 0 for the start.

        Returns:
            Logits, in nats.

        Example:
            >>> import torch
            >>> model = ResNet(n_blocks=(1, 1), width=8, n_classes=10, small_images=True)
            >>> model.back(torch.zeros(2, 8, 32, 32), 1).shape
            torch.Size([2, 10])
        """
        for i in range(stage + 1, self.n_stages + 1):
            h = self.get_submodule(f"layer{i}")(h)
        return self.fc(functional.adaptive_avg_pool2d(h, 1).flatten(1))
