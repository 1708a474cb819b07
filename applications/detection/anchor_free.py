"""The project's own detector: one-stage, anchor-free, with any classification network as backbone."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from applications.detection.assignment import assign, detection_losses
from applications.detection.boxes import around_points, suppressed
from common.errors import in_range
from common.registry import register
from common.spec import Configured
from common.vision.backbone import Backbone, make_backbone

STRIDES = (8, 16, 32)
PRIOR = 0.01  # the initial score at every position (Lin et al. 2017, arXiv:1708.02002)
REACH = 2.0  # the initial distance from a position to each side of its box, in strides


@dataclass(frozen=True, kw_only=True)
class AnchorFreeConfig:
    """The configuration of an `AnchorFreeDetector`.

    Attributes:
        arch: The classification network of its backbone; see `common.vision.backbone_names`.
        classes: The number of classes.
        channels: The channels of the input image.
        width: Channels of the pyramid and the heads.
        depth: Layers of each head before the last one.
        least_score: Detections below this score are dropped.
        most_overlap: The IoU threshold of non-maximum suppression.
        most: The most detections in an image.
    """

    arch: str
    classes: int
    channels: int = 3
    width: int = 64
    depth: int = 2
    least_score: float = 0.01
    most_overlap: float = 0.6
    most: int = 100

    def __post_init__(self) -> None:
        in_range("classes", self.classes, 1, 100_000)
        in_range("channels", self.channels, 1, 64)
        in_range("width", self.width, 8, 1024)
        in_range("depth", self.depth, 0, 8)
        in_range("least_score", self.least_score, 0, 1)
        in_range("most_overlap", self.most_overlap, 0, 1)
        in_range("most", self.most, 1, 10_000)


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Returns a depthwise separable convolution: depthwise 5x5 and 1x1, with batch norms and activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


def head(width: int, depth: int, outputs: int, bias: float) -> nn.Sequential:
    """Returns ``depth`` separable convolutions and a 1x1 convolution whose initial output is about ``bias``."""
    last = nn.Conv2d(width, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(cast(Tensor, last.bias), bias)
    return nn.Sequential(*(separable(width, width) for _ in range(depth)), last)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


class Pyramid(nn.Module):
    """A feature pyramid with a top-down and a bottom-up path (Liu et al. 2018, PANet)."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, width, 1, bias=False), nn.BatchNorm2d(width)) for w in widths
        )
        self.down = nn.ModuleList(separable(width, width) for _ in widths[1:])
        self.up = nn.ModuleList(separable(width, width) for _ in widths[1:])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for i in range(len(maps) - 2, -1, -1):
            coarse = F.interpolate(maps[i + 1], size=maps[i].shape[2:], mode="nearest")
            maps[i] = self.down[i](maps[i] + coarse)
        for i in range(1, len(maps)):
            fine = F.adaptive_max_pool2d(maps[i - 1], tuple(maps[i].shape[2:]))
            maps[i] = self.up[i - 1](maps[i] + fine)
        return maps


@register("model", "anchor_free")
class AnchorFreeDetector(Configured, nn.Module):
    """A detector that predicts classes and distances to a box's sides at every position (as FCOS, Tian et al. 2019).

    Args:
        config: The detector's configuration.
        backbone: The backbone, with its weights; a new one with random weights when None.

    Shape:
        images float (B, channels, H, W), and targets ``boxes`` (B, N, 4) in pixels, ``labels`` (B, N) and ``valid``
        (B, N) or None, to ``losses`` (B,) where there are targets, and ``detections`` in evaluation: for each image
        ``boxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,).
    """

    config_type: ClassVar[type[Any]] = AnchorFreeConfig
    config: AnchorFreeConfig

    def __init__(self, config: AnchorFreeConfig, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone or make_backbone(config.arch, STRIDES, config.channels)
        width = config.width
        self.pyramid = Pyramid(self.backbone.widths, width)
        # Separate heads per stride: batch norms shared by all would mix the statistics of different strides.
        levels = self.backbone.strides
        self.scores = nn.ModuleList(head(width, config.depth, config.classes, _logit(PRIOR)) for _ in levels)
        # The bias is the inverse softplus of REACH, since `predictions` applies a softplus.
        self.sides = nn.ModuleList(head(width, config.depth, 4, math.log(math.expm1(REACH))) for _ in levels)

    def predictions(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns logits (B, A, classes), boxes (B, A, 4) and positions (A, 2) in pixels, and their strides (A,)."""
        logits, boxes, points, strides = [], [], [], []
        maps = self.pyramid(self.backbone(images))
        for stride, features, score_of, sides_of in zip(
            self.backbone.strides, maps, self.scores, self.sides, strict=True
        ):
            score = score_of(features)
            sides = F.softplus(sides_of(features).float()) * stride
            rows, columns = score.shape[2:]
            y, x = (torch.arange(n, device=score.device, dtype=torch.float32) for n in (rows, columns))
            place = torch.stack(torch.meshgrid((x + 0.5) * stride, (y + 0.5) * stride, indexing="xy"), dim=-1)
            logits.append(score.flatten(2).transpose(1, 2).float())
            points.append(place.reshape(-1, 2))
            boxes.append(around_points(points[-1], sides.flatten(2).transpose(1, 2)))
            strides.append(torch.full((rows * columns,), float(stride), device=score.device))
        return torch.cat(logits, dim=1), torch.cat(boxes, dim=1), torch.cat(points), torch.cat(strides)

    def forward(self, images: Tensor, targets: Any = None) -> dict[str, Any]:
        logits, boxes, points, strides = self.predictions(images)
        found: dict[str, Any] = {}
        if targets is not None:
            true = tuple(targets[name] for name in ("boxes", "labels", "valid"))
            goal = assign(logits.detach().sigmoid(), boxes.detach(), points, strides, *true)
            found["losses"] = detection_losses(logits, boxes, goal, whole=self.training)
        if not self.training:
            c = self.config
            found["detections"] = suppressed(
                boxes, logits.sigmoid(), least_score=c.least_score, most_overlap=c.most_overlap, most=c.most
            )
        return found

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the backbone's lower half, its upper half, and of pyramid and heads."""
        lower, upper = self.backbone.halves()
        own = {id(p) for p in (*lower, *upper)}
        return [lower, upper, [p for p in self.parameters() if id(p) not in own]]
