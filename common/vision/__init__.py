"""Vision: architectures by name, their bodies as feature pyramids, and scenes to learn on."""

from common.vision.architectures import arch_names, find_weights
from common.vision.backbone import Backbone, backbone_names

__all__ = ["Backbone", "arch_names", "backbone_names", "find_weights"]
