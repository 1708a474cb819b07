"""Object detection as a domain: the value from which command line, evaluation and server are made."""

from dataclasses import dataclass
from pathlib import Path

from applications.detection.data import DetectionSource, read_source
from applications.detection.learner import detection_learner
from applications.detection.sliding import predict_sliding
from common.blocks.spatial import IMAGE_ENDINGS, open_image
from common.deploy.domain import Domain
from common.deploy.predictor import Predictor
from common.spec import option


@dataclass(frozen=True, kw_only=True)
class BoxReading:
    """The options for reading images and boxes."""

    annotations: str | None = option(None, "the COCO file, where the folder holds several for one set of images")


def read(data: str | Path | None, reading: BoxReading, predictor: Predictor | None = None) -> DetectionSource:
    """Returns the images and boxes of a source, with masks if the predictor predicts masks.

    Args:
        data: In any format that `read_source` takes.
        reading: The reading options.
        predictor: The predictor to evaluate, or None.
    """
    source = read_source(data, annotations=reading.annotations)
    masks = predictor is not None and len(predictor.encoder.y_blocks) > 1
    return source.with_masks() if masks else source


DOMAIN = Domain(
    name="detection",
    recipes=("detection",),
    reading=BoxReading,
    read=read,
    endings=IMAGE_ENDINGS,
    opens=open_image,
    windows=predict_sliding,
    learner=detection_learner,
)
