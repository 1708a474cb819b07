"""The body of the project's own small residual network: for small images and training from scratch on a CPU.

Floor: vision; may import train and below. Used by: applications.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016): (B, inputs, H, W) to (B, outputs, H / 2, W / 2).

    The shortcut averages 2x2 pixels before its 1x1 convolution (He et al. 2019, arXiv:1812.01187).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def small_body(channels: int, stem: int, widths: Sequence[int], *, stride: int = 1) -> nn.Sequential:
    """Returns a convolution and one residual block per width, each of which halves height and width.

    Args:
        channels: The channels of the input image.
        stem: The channels of the first convolution.
        widths: The channels of each block.
        stride: The stride of the first convolution: 1 keeps height and width.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, stem, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, *(Residual(inputs, outputs) for inputs, outputs in pairwise((stem, *widths))))
