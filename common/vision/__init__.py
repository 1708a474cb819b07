"""Vision: architectures by name, backbones as feature pyramids, and synthetic scenes."""

from common.vision.architectures import arch_names, find_weights
from common.vision.backbone import Backbone, backbone_names

__all__ = ["Backbone", "arch_names", "backbone_names", "find_weights"]
