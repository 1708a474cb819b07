"""Stages of a batch pipeline: what a field is becomes something else on the device, such as a sound its spectrogram.

A stage says what it takes and what it gives; the pipeline checks, when it is built, that something of that kind is
there at its place, and that every operation behind it supports what it gives.
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
    """Base of the stages, in training and in evaluation alike."""

    takes: ClassVar[Target]
    gives: ClassVar[Target]

    def apply(self, value: Any) -> tuple[Any, Tensor | None]:
        """Returns what a batch's field becomes, and each sample's own extents along the axes after the channels.

        Args:
            value: A field of ``takes``.

        Returns:
            The field of ``gives``, and int32 (B, rank): how far each sample reaches where samples differ and are padded
            (its frames, its height and width in pixels), or None where they do not.
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
