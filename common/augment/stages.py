"""Stages of a batch pipeline: they turn a field into another kind on the device, such as a sound into a spectrogram.

A stage declares the kinds that it takes and gives; the pipeline checks, when it is built, that a field of that kind
exists at its place, and that every later operation supports the result.

Floor: augment; may import sources and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.augment.batch_transforms import BatchTransform
from common.blocks.block import Target
from common.blocks.values import Padded
from common.registry import register


class Stage(BatchTransform):
    """Base of the stages, which run in training and in evaluation alike."""

    takes: ClassVar[Target]
    gives: ClassVar[Target]

    def apply(self, value: Any) -> tuple[Any, Tensor | None]:
        """Returns the new field of a batch, and each sample's own extents along the axes after the channels.

        Args:
            value: A field of ``takes``.

        Returns:
            The field of ``gives``, and int32 (B, rank): each sample's size without padding (its frames, its height and
            width in pixels), or None where nothing is padded.
        """
        raise NotImplementedError


@register("batch_transform", "spectrogram_image")
@dataclass(frozen=True)
class SpectrogramImage(Stage):
    """A spectrogram (B, T, F) as a grey image (B, 1, F, T), frequencies upwards from the first row.

    Args:
        mean: Decibels to subtract.
        std: Decibels to divide by, above 0.
    """

    mean: float = 0.0
    std: float = 1.0
    takes: ClassVar[Target] = Target.SPECTROGRAM
    gives: ClassVar[Target] = Target.IMAGE

    def apply(self, value: Padded) -> tuple[Tensor, Tensor]:
        bands = torch.full_like(value.lengths, value.values.shape[2])
        image = (value.values - self.mean) / self.std * value.valid[:, :, None]
        return image.transpose(1, 2)[:, None], torch.stack([bands, value.lengths], dim=1).to(torch.int32)
