"""Segmentation as a domain: the value from which command line, evaluation and server are made."""

from dataclasses import dataclass
from pathlib import Path

from applications.segmentation.data import read_pairs, read_source, scene_source
from applications.segmentation.learner import segmentation_learner
from applications.segmentation.sliding import predict_sliding
from common.blocks.spatial import IMAGE_ENDINGS, open_image
from common.deploy.domain import Domain
from common.deploy.predictor import Predictor
from common.errors import ConfigError
from common.sources.source import Source
from common.spec import option


@dataclass(frozen=True, kw_only=True)
class MaskReading:
    """The options for reading images and masks."""

    classes: str | None = option(None, "names of the classes by id, separated by commas (default: from the folder)")
    ignore: int | None = option(None, "the value in the masks that does not count (Pascal VOC: 255)")


def read(data: str | Path | None, reading: MaskReading, predictor: Predictor | None = None) -> Source:
    """Returns the images and masks of a source; a predictor, if given, decides the classes.

    Args:
        data: In any layout that `read_source` takes.
        reading: The reading options.
        predictor: The predictor to evaluate, or None.

    Raises:
        ConfigError: if the options name other classes than the predictor's.
    """
    if predictor is None:
        return read_source(data, classes=reading.classes, ignore=reading.ignore)
    if reading != predictor.reading:
        raise ConfigError(
            f"classes and ignore are the bundle's own, {predictor.reading.classes!r} and {predictor.reading.ignore!r}: "
            "they cannot be others when it is evaluated; leave them out"
        )
    return scene_source() if data is None else read_pairs(data)


DOMAIN = Domain(
    name="segmentation",
    recipes=("segmentation",),
    reading=MaskReading,
    read=read,
    endings=IMAGE_ENDINGS,
    opens=open_image,
    windows=predict_sliding,
    learner=segmentation_learner,
)
