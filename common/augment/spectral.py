"""The operations on spectrograms: time and frequency masking, time shift, gain.

Floor: augment; may import sources and below. Used by: its own room.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from common.augment.operations import Operation, Support, support
from common.blocks.values import Padded

SPECTRAL = support(
    spectrogram="transforms",
    image="unsupported",
    mask="unsupported",
    boxes="unsupported",
    points="unsupported",
    signal="unsupported",
)


class Spectral(Operation):
    """An operation on spectrograms in decibels, float32 (B, T, F), padded from different lengths in frames."""

    support: ClassVar[dict[str, Support]] = SPECTRAL

    def applied(self, values: Tensor, length: Tensor, numbers: Tensor) -> Tensor:
        """Returns the changed spectrograms, as if every sample were chosen.

        Args:
            values: float32 (B, T, F).
            length: int64 (B,): how many frames of each are not padding.
            numbers: Uniform numbers, float64 (B, k).
        """
        raise NotImplementedError


def _mean(values: Tensor, length: Tensor) -> Tensor:
    """The mean over a sample's frames without padding, (B, 1, 1); summed in float64 so that padding changes nothing."""
    own = (torch.arange(values.shape[1], device=values.device)[None] < length[:, None])[..., None]
    total = torch.where(own, values, 0).to(torch.float64).sum(dim=2).sum(dim=1)
    return (total / (length * values.shape[2]).clamp(min=1)).to(values.dtype)[:, None, None]


def _covered(side: int, within: Tensor, most: Tensor, numbers: Tensor) -> Tensor:
    """Which of ``side`` positions are covered by a band, bool (B, side); each pair of numbers gives one band.

    Each band is up to ``most`` (B,) long and lies within the first ``within`` (B,) positions.
    """
    at = torch.arange(side, device=numbers.device)[None]
    found = torch.zeros(len(numbers), side, dtype=torch.bool, device=numbers.device)
    for k in range(0, numbers.shape[1], 2):
        long = torch.floor(numbers[:, k] * (most + 1))
        start = torch.floor(numbers[:, k + 1] * (within - long + 1))
        found = found | ((at >= start[:, None]) & (at < (start + long)[:, None]))
    return found


@dataclass(frozen=True)
class TimeMask(Spectral):
    """Masks up to ``bands`` time intervals, each up to ``share`` of the length, with the mean (Park et al. 2019)."""

    share: float = 0.1
    bands: int = 2
    name: ClassVar[str] = "time_mask"
    label: ClassVar[str] = "time masking"

    @property
    def numbers(self) -> int:
        return 2 * self.bands

    def applied(self, values: Tensor, length: Tensor, numbers: Tensor) -> Tensor:
        most = torch.floor(length * self.share)
        covered = _covered(values.shape[1], length.to(torch.float64), most, numbers)
        return torch.where(covered[:, :, None], _mean(values, length), values)


@dataclass(frozen=True)
class FrequencyMask(Spectral):
    """Masks up to ``bands`` frequency bands, each up to ``share`` of all, with the mean (Park et al. 2019)."""

    share: float = 0.15
    bands: int = 2
    name: ClassVar[str] = "frequency_mask"
    label: ClassVar[str] = "frequency masking"

    @property
    def numbers(self) -> int:
        return 2 * self.bands

    def applied(self, values: Tensor, length: Tensor, numbers: Tensor) -> Tensor:
        side = torch.full_like(numbers[:, 0], float(values.shape[2]))
        covered = _covered(values.shape[2], side, torch.floor(side * self.share), numbers)
        return torch.where(covered[:, None, :], _mean(values, length), values)


@dataclass(frozen=True)
class TimeShift(Spectral):
    """Shifts the sound cyclically by up to ``share`` of its length either way."""

    share: float = 0.1
    name: ClassVar[str] = "time_shift"
    label: ClassVar[str] = "time shift"
    draws: ClassVar[int] = 1

    def applied(self, values: Tensor, length: Tensor, numbers: Tensor) -> Tensor:
        most = torch.floor(length * self.share)
        move = (torch.floor(numbers[:, 0] * (2 * most + 1)) - most).to(torch.int64)
        at = torch.arange(values.shape[1], device=values.device)[None]
        within = torch.remainder(at - move[:, None], length.clamp(min=1)[:, None])
        source = torch.where(at < length[:, None], within, at)
        return values.gather(1, source[:, :, None].expand_as(values))


@dataclass(frozen=True)
class Gain(Spectral):
    """Makes the sound louder or softer by up to ``decibels`` either way."""

    decibels: float = 6.0
    name: ClassVar[str] = "gain"
    label: ClassVar[str] = "gain"
    draws: ClassVar[int] = 1

    def applied(self, values: Tensor, length: Tensor, numbers: Tensor) -> Tensor:
        return values + ((numbers[:, 0] * 2 - 1) * self.decibels).to(values.dtype)[:, None, None]


def change(value: Padded, operation: Spectral, numbers: Tensor, chosen: Tensor) -> Padded:
    """Returns a batch's spectrograms after one operation; padding is unchanged.

    Args:
        value: float32 (B, T, F).
        operation: The operation.
        numbers: Its uniform numbers (B, k).
        chosen: bool (B,): the samples that it changes.
    """
    made = operation.applied(value.values, value.lengths, numbers)
    keep = chosen[:, None, None] & value.valid[:, :, None]
    return Padded(torch.where(keep, made, value.values), value.valid)
