"""Small convolutional network for grey images.

Axes: n images, channels, height and width in pixels, classes.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ConvNet(nn.Module):
    """The network of PyTorch's MNIST example: two 3 x 3 convolutions and two full layers.

    conv1, ReLU, conv2, ReLU, 2 x 2 maximum, dropout .25, fc1, ReLU, dropout .5, fc2. Without
    padding; 1,199,882 parameters by default. Names and shapes of the parameters are those of the
    example, so its state dicts load. It differs in its output: logits, not log-probabilities.

    In training mode dropout draws from PyTorch's global generator of the device.

    Example:
        >>> import torch
        >>> model = ConvNet()
        >>> sum(parameter.numel() for parameter in model.parameters())
        1199882
        >>> model(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])

    References:
        pytorch/examples, mnist/main.py, class Net.
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        in_channels: int = 1,
        width: int = 32,
        n_classes: int = 10,
    ) -> None:
        """Build the layers, initialised as PyTorch does.

        Args:
            image_size: Height and width of the images, in pixels.
            in_channels: Channels of the images.
            width: Channels after the first convolution; the second gives twice, the first full
                layer four times as many.
            n_classes: Number of logits.

        Raises:
            ValueError: If the images are smaller than 6 pixels, or a width is not positive.
        """
        super().__init__()
        if image_size < 6:
            raise ValueError(
                "image_size must be at least 6 pixels, because two convolutions take 4 and the "
                f"maximum halves the rest, but it is {image_size}."
            )
        if min(in_channels, width, n_classes) < 1:
            raise ValueError(
                "in_channels, width and n_classes must be positive, but they are "
                f"{in_channels}, {width} and {n_classes}."
            )
        pooled_size = (image_size - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, width, 3)
        self.conv2 = nn.Conv2d(width, 2 * width, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(2 * width * pooled_size**2, 4 * width)
        self.fc2 = nn.Linear(4 * width, n_classes)

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Logits of a batch.

        Args:
            x: Images of the size and channels that the network was built for.

        Returns:
            Logits, in nats.
        """
        x = functional.relu(self.conv1(x))
        x = functional.relu(self.conv2(x))
        x = self.dropout1(functional.max_pool2d(x, 2))
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(self.dropout2(x))
