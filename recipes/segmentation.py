"""Segmentation: from images and masks to a bundle that says what each pixel is.

Read from top to bottom: data, model, training, evaluation, bundle, report.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from recipes.options import VisionOptions, chosen, option

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from applications.segmentation import SegmentationSource, SegmentationTask
    from common import DataBlock, DataLoaders, Trainer
    from common.augment.batch_transforms import BatchTransform
    from common.data.prepared import Prepared
    from common.task.task import Outputs
    from recipes.run import RunFolder

MOST_PX = 360 * 480  # the most pixels of the whole frame, where no size is given
CROP = 2 / 3  # the side of a training crop, as a share of the frame's
SCENES = 1000, 150, 150  # training, validation and test scenes, where no data is given
QUICK = 800, 100, 100


@dataclass(frozen=True, kw_only=True)
class Options(VisionOptions):
    """Options of the segmentation recipe."""

    arch: str = option(
        "small_resnet",
        "small_resnet or one of torchvision's classifiers such as mobilenet_v2, for a U-Net over it; "
        "or one of its segmenters such as deeplabv3_mobilenet_v3_large",
    )
    pretrained: bool = option(False, "start the body from ImageNet weights")
    size: str | None = option(None, "pixels of the frame, N or HEIGHTxWIDTH (default: the images', at most 360x480's)")
    crop: str | None = option(None, "pixels of what is seen of it in training (default: two thirds of each side)")
    epochs: int | None = option(None, "epochs (default: 24 with pretrained weights, else 40; scenes 10)")
    lr: float | None = option(None, "peak learning rate (default: 3e-3 with pretrained weights, else 1e-2)")
    batch_size: int | None = option(None, "images a step (default 8)")
    loss: str = option("cross_entropy+dice", "cross_entropy, focal, dice, or several such as cross_entropy+0.5*dice")
    class_weights: bool = option(True, "let pixels of rare classes count more in training (mildly)")
    classes: str | None = option(None, "names of the classes by id, separated by commas (default: from the folder)")
    ignore: int | None = option(None, "the value in the masks that does not count (Pascal VOC: 255)")
    valid_pct: float | None = option(
        None, "share of train that validates where the data has no such part (default 0.2)"
    )

    def __post_init__(self) -> None:
        from recipes.frames import size_of

        super().__post_init__()
        for name in ("size", "crop"):
            size_of(name, getattr(self, name))


def find_source(options: Options) -> "SegmentationSource":
    """The images and masks; without data, scenes."""
    from applications.segmentation import read_source, scene_source

    if options.data is None:
        return scene_source(QUICK if options.quick else SCENES, options.seed)
    return read_source(options.data, classes=options.classes, ignore=options.ignore)


def make_block(options: Options, source: "SegmentationSource") -> "DataBlock":
    """The four questions of the DataBlock, answered."""
    from common import DataBlock
    from common.data import ImageBlock, Resize
    from recipes.frames import frame_of

    size, method = frame_of(options.size, source, MOST_PX)
    return DataBlock(
        blocks=(ImageBlock, source.block()),
        get_x=source.get_x,
        get_y=source.get_y,
        splitter=source.splitter(chosen(options.valid_pct, 0.2), options.seed),
        item_tfms=Resize(size, method),
        batch_tfms=batch_transforms(options, source, size),
    )


def make_loaders(options: Options, source: "SegmentationSource") -> "tuple[Prepared, DataLoaders]":
    """The items decoded on the first pass, kept, and put into batches."""
    from common.data.loader import LoaderOptions
    from recipes.run import dirty_policy

    prepared = make_block(options, source).prepare(source.items, dirty_policy(options, "segmentation"))
    making = LoaderOptions(batch_size=chosen(options.batch_size, 8), seed=options.seed)
    return prepared, prepared.loaders(making, 16, 2, None, "cpu", options.cache_dir)


def batch_transforms(options: Options, source: "SegmentationSource", size: tuple[int, int]) -> "list[BatchTransform]":
    """Random crops, flips and lighting; scenes are used whole."""
    from common import Augment
    from recipes.frames import size_of

    if not options.augment:
        return []
    flip = options.flip and source.mirrored
    if options.data is None:
        return [Augment(flip=flip, translate=0.06, hue=0.2)]
    crop = size_of("crop", options.crop) or (round(size[0] * CROP), round(size[1] * CROP))
    shape, area = crop[1] / crop[0], crop[0] * crop[1] / (size[0] * size[1])
    return [
        Augment(
            flip=flip,
            size=crop,
            min_scale=min(1.0, area * 0.5),  # a crop of half the area is enlarged 1.4 times per side
            max_scale=min(1.0, area * 2),
            ratio=(shape * 0.8, shape * 1.25),
            brightness=0.25,
            contrast=0.25,
            saturation=0.25,
            whole=True,
        )
    ]


def make_trainer(options: Options, dls: "DataLoaders", counts: "np.ndarray", out: "Path") -> "Trainer":
    """The model by name for these classes, and how it is trained."""
    from applications.segmentation import class_weights, segmentation_learner
    from common import TrainerOptions

    return segmentation_learner(
        dls,
        options.arch,
        pretrained=options.pretrained,
        weights=options.weights,
        loss=options.loss,
        class_weights=class_weights(counts) if options.class_weights else (),
        options=TrainerOptions(
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            weight_decay=0.01,
            out=out,
            checkpoint=not options.quick,
        ),
    )


def train(options: Options, trainer: "Trainer") -> None:
    """One cycle; a pretrained backbone has lower rates, the lowest in its first layers."""
    full = 10 if options.data is None else 24 if options.pretrained else 40
    short = 7 if options.data is None else max(1, full // 10)
    epochs = chosen(options.epochs, short if options.quick else full)
    lr = chosen(options.lr, 3e-3 if options.pretrained else 1e-2)
    trainer.fit_one_cycle(epochs, slice(lr / 10, lr) if options.pretrained else lr)


def run(options: Options) -> dict[str, float]:
    """Runs the recipe and returns its metrics."""
    from applications.segmentation import check_arch, ignored_share, make_task, pixel_counts
    from applications.segmentation.domain import MaskReading
    from common.sources.items import take
    from recipes.run import carry_out, folder_of, reading_of

    check_arch(options.arch)
    source = find_source(options)
    prepared, dls = make_loaders(options, source)
    usable = dls.train.store.usable(prepared.split.train)
    counts = pixel_counts(make_task(dls), [take(prepared.raws[1], int(row)) for row in usable])
    trainer = make_trainer(options, dls, counts, folder_of(options, "segmentation"))
    trainer.reading = reading_of(MaskReading, options)
    report = partial(write_report, counts)
    share = ignored_share(counts, len(usable))
    said = [f"ignored: {share:.1%} of the training pixels"] if source.ignore is not None else []
    return carry_out(options, "segmentation", source, prepared, trainer, train, report, said)


def write_report(
    counts: "np.ndarray",
    folder: "RunFolder",
    trainer: "Trainer",
    prepared: "Prepared",
    part: str,
    outputs: "Outputs",
    metrics: dict[str, float],
) -> None:
    """The report: metrics next to two simple baselines, per class, samples, and the largest errors."""
    from applications.segmentation import baseline, show_maps
    from common.show import learning_curves
    from recipes.run import worst_ids

    page, task = folder.report, cast("SegmentationTask", trainer.task)
    with folder.section("Simple rules"):
        rules = {"this model": metrics, **baseline(task, counts, outputs.target)}
        page.table(f"On the {part} part, beside simple rules", [
            {"model": name.replace("_", " "), "miou": found["miou"], "pixel_accuracy": found["pixel_accuracy"]}
            for name, found in rules.items()
        ])  # fmt: skip
        shown = "; ".join(f"{name.replace('_', ' ')}: {found['miou']:.3f}" for name, found in rules.items())
        folder.answer(f"mIoU on {len(outputs.output):,} images of the {part} part, {shown}")
    with folder.section("Classes"):
        page.table(f"Classes on the {part} part", task.per_class(outputs.output, outputs.target))
    folder.training(trainer, metrics)
    with folder.section("Mean IoU by epoch"):
        folder.picture("Mean IoU by epoch", "miou", learning_curves(trainer.history, ["miou", "pixel_accuracy"]))
    caption = "the true mask on the left, the predicted one on the right"
    with folder.section("Results"):
        folder.picture("Results", "results", show_maps(trainer, part=part, outputs=outputs), caption)
    with folder.section("Largest losses"):
        worst = show_maps(trainer, part=part, ids=worst_ids(outputs, 6), outputs=outputs)
        folder.picture("Largest losses", "top_losses", worst, caption)
