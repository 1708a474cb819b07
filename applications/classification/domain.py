"""Image classification as a domain: the value from which command line, evaluation and server are made."""

from dataclasses import dataclass
from pathlib import Path

from applications.classification.data import ImageSource, read_source
from applications.classification.learner import vision_learner
from common.blocks.spatial import IMAGE_ENDINGS, open_image
from common.deploy.domain import Domain
from common.deploy.predictor import Predictor
from common.spec import option


@dataclass(frozen=True, kw_only=True)
class ImageReading:
    """The options for reading images and labels."""

    image_column: str = option("image", "a table's column of image paths")
    label_column: str = option("label", "a table's column of labels")
    split_column: str = option("split", "a table's column of train, valid or test")
    label_delim: str | None = option(None, "what separates several labels of one image (makes it multi-label)")


def read(data: str | Path | None, reading: ImageReading, predictor: Predictor | None = None) -> ImageSource:
    """Returns the images and labels of a source, for training or for the evaluation of a predictor.

    Args:
        data: In any format that `read_source` takes.
        reading: The reading options.
        predictor: Ignored; part of the interface of all domains.
    """
    return read_source(
        data,
        image_column=reading.image_column,
        label_column=reading.label_column,
        split_column=reading.split_column,
        label_delim=reading.label_delim,
    )


DOMAIN = Domain(
    name="classification",
    recipes=("classification",),
    reading=ImageReading,
    read=read,
    endings=IMAGE_ENDINGS,
    opens=open_image,
    learner=vision_learner,
)
