"""Object detection: from photos with boxes to a bundle that says what is where.

Read from top to bottom: data, model, training, thresholds, evaluation, bundle, report.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from recipes.options import VisionOptions, chosen, option

if TYPE_CHECKING:
    from pathlib import Path

    from applications.detection import DetectionSource, DetectionTask
    from applications.detection.evaluation import ClassPrecision
    from applications.detection.matching import Threshold
    from common import DataBlock, DataLoaders, Trainer
    from common.augment.batch_transforms import BatchTransform
    from common.data.prepared import Prepared
    from common.task.task import Outputs
    from recipes.run import RunFolder

MOST_PX = 240 * 320  # the most pixels of the model's input, where no size is given
SCENES = 800, 100, 100  # training, validation and test scenes, where no data is given
QUICK = 400, 60, 60


@dataclass(frozen=True, kw_only=True)
class Options(VisionOptions):
    """Options of the detection recipe."""

    arch: str = option(
        "small_resnet",
        "small_resnet or one of torchvision's classifiers such as mobilenet_v2, for our detector over it; "
        "or one of its detectors such as fcos_resnet50_fpn or maskrcnn_resnet50_fpn",
    )
    pretrained: bool = option(False, "start from ImageNet weights; torchvision's detectors from their COCO weights")
    size: str | None = option(None, "pixels of the frame, N or HEIGHTxWIDTH (default: the images', at most 240x320's)")
    epochs: int | None = option(None, "epochs (default: 40 with pretrained weights, else 80; scenes 13)")
    lr: float | None = option(None, "peak learning rate (default 4e-3; torchvision's detectors 2e-4)")
    batch_size: int | None = option(None, "images a step (default 8)")
    flip_vertical: bool = option(False, "mirror top and bottom too (microscope, satellite)")
    mosaic: float = option(0.0, "share of the images put together from four")
    annotations: str | None = option(None, "the COCO file, where the folder holds several for one set of images")
    valid_pct: float | None = option(
        None, "share of train that validates where the data has no such part (default 0.2)"
    )

    @property
    def masks(self) -> bool:
        """Whether the model predicts masks."""
        from applications.detection.torchvision_detector import gives_masks

        return gives_masks(self.arch)

    def __post_init__(self) -> None:
        from common.errors import in_range
        from recipes.frames import size_of

        super().__post_init__()
        size_of("size", self.size)
        in_range("mosaic", self.mosaic, 0, 1)


def find_source(options: Options) -> "DetectionSource":
    """The images and their boxes; without data, scenes."""
    from applications.detection import scene_source
    from applications.detection.domain import BoxReading, read
    from recipes.run import reading_of

    if options.data is None:
        source = scene_source(QUICK if options.quick else SCENES, options.seed)
    else:
        source = read(options.data, reading_of(BoxReading, options))
    return source.with_masks() if options.masks else source


def make_block(options: Options, source: "DetectionSource") -> "DataBlock":
    """The four questions of the DataBlock, answered."""
    from common import DataBlock
    from common.data import BBoxBlock, ImageBlock, InstanceBlock, Resize
    from recipes.frames import frame_of

    size, method = frame_of(options.size, source, MOST_PX)
    return DataBlock(
        blocks=(ImageBlock, BBoxBlock(source.vocab, outlined=options.masks), *[InstanceBlock] * options.masks),
        get_x=source.get_x,
        get_y=source.get_y,
        n_inp=1,
        splitter=source.splitter(chosen(options.valid_pct, 0.2), options.seed),
        item_tfms=Resize(size, method, pad_mode="zeros"),
        batch_tfms=batch_transforms(options, source),
    )


def make_loaders(options: Options, source: "DetectionSource") -> "tuple[Prepared, DataLoaders]":
    """The items decoded on the first pass, kept, and put into batches."""
    from common.data.loader import LoaderOptions
    from recipes.run import dirty_policy

    prepared = make_block(options, source).prepare(source.items, dirty_policy(options, "detection"))
    making = LoaderOptions(batch_size=chosen(options.batch_size, 8), seed=options.seed)
    return prepared, prepared.loaders(making, 16, 2, None, "cpu", options.cache_dir)


def batch_transforms(options: Options, source: "DetectionSource") -> "list[BatchTransform]":
    """Flips, zooms, shifts and colour changes; digits are not mirrored."""
    from common.augment import Augment, Mosaic

    if not options.augment:
        return []
    scenes = options.data is None
    moved = Augment(
        flip=options.flip and source.mirrored,
        flip_vertical=options.flip_vertical,
        zoom=1.2 if scenes else 1.4,
        zoom_least=0.8,
        translate=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.5 if scenes else 0.0,
        padding="zeros",
        min_visibility=0.3,
    )
    return [moved, Mosaic(options.mosaic)] if options.mosaic else [moved]


def make_trainer(options: Options, dls: "DataLoaders", source: "DetectionSource", out: "Path") -> "Trainer":
    """The model by name for these classes, and how it is trained."""
    from applications.detection import detection_learner
    from common import TrainerOptions

    return detection_learner(
        dls,
        options.arch,
        pretrained=options.pretrained,
        weights=options.weights,
        category_ids=source.numbers(dls.vocab),
        options=TrainerOptions(
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            weight_decay=0.05,
            clip_norm=10.0,
            out=out,
            checkpoint=not options.quick,
        ),
    )


def train(options: Options, trainer: "Trainer") -> None:
    """One cycle; then each class gets the score threshold with the best F1 on the validation part."""
    from applications.detection import TorchvisionDetector, choose_thresholds

    full = 13 if options.data is None else 40 if options.pretrained else 80
    short = 14 if options.data is None else max(1, full // 10)
    epochs = chosen(options.epochs, short if options.quick else full)
    theirs = isinstance(trainer.model, TorchvisionDetector)
    trainer.fit_one_cycle(epochs, chosen(options.lr, 2e-4 if theirs else 4e-3))
    found, task = trainer.get_preds("valid"), cast("DetectionTask", trainer.task)
    table = choose_thresholds(task.records(found.output), found.target, task.vocab)
    usual = chosen(table.overall.score, 0.5)
    trainer.task = replace(task, thresholds=tuple(chosen(one.score, usual) for one in table.classes))


def run(options: Options) -> dict[str, float]:
    """Runs the recipe and returns its metrics."""
    from applications.detection import check_arch
    from applications.detection.domain import BoxReading
    from recipes.run import carry_out, folder_of, reading_of

    check_arch(options.arch)
    source = find_source(options)
    prepared, dls = make_loaders(options, source)
    trainer = make_trainer(options, dls, source, folder_of(options, "detection"))
    trainer.reading = reading_of(BoxReading, options)
    return carry_out(options, "detection", source, prepared, trainer, train, write_report)


def write_report(
    folder: "RunFolder",
    trainer: "Trainer",
    prepared: "Prepared",
    part: str,
    outputs: "Outputs",
    metrics: dict[str, float],
) -> None:
    """The report: average precision per class, thresholds, samples, hits and misses."""
    from applications.detection import average_precision, choose_thresholds, coco_results, ground_truth
    from common.files import dump_json, write_text
    from common.show import line_figure, show_results
    from recipes.run import worst_ids

    page, task = folder.report, cast("DetectionTask", trainer.task)
    records = task.records(outputs.output)
    objects = sum(len(record["objects"]) for record in task.decode(outputs.output))
    shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("ap50", "ap") if name in metrics)
    folder.answer(f"{shown} on {len(records):,} images of the {part} part, in which it tells of {objects:,} things")
    sizes = [(record["height"], record["width"]) for record in records]
    truth = ground_truth(outputs.target, task.vocab, sizes=sizes, category_ids=task.category_ids)
    write_text(folder.path / "predictions.json", dump_json(coco_results(records)))
    write_text(folder.path / "ground_truth.json", dump_json(truth))
    best = choose_thresholds(records, outputs.target, task.vocab)
    with folder.section("Average precision"):
        table = average_precision(records, outputs.target, task.vocab)
        page.table(f"Average precision on the {part} part", [class_row(row) for row in table.classes])
    page.table("The score from which a thing is told: the best F1 of the validation part", [
        {"class": name, "score": score} for name, score in zip(task.vocab, task.thresholds, strict=True)
    ])  # fmt: skip
    page.table(f"The best F1 on the {part} part", [f1_row(row) for row in (*best.classes, best.overall)])
    folder.training(trainer, metrics)
    with folder.section("Precision over recall"):
        curves = {
            row.label or "all": (row.recalls.tolist(), row.precisions.tolist())
            for row in (*best.classes[:9], best.overall)
        }
        folder.picture("Precision over recall", "precision_recall", line_figure(curves, "recall", "precision"))
    caption = "found in green, missed in orange, not there in red"
    with folder.section("Results"):
        results = show_results(trainer, max_n=12, part=part, outputs=outputs)
        folder.picture("Results", "results", results, caption)
    with folder.section("Largest losses"):
        worst = show_results(trainer, part=part, ids=worst_ids(outputs, 9), outputs=outputs)
        folder.picture("Largest losses", "top_losses", worst, caption)


def class_row(row: "ClassPrecision") -> dict[str, object]:
    """One class of the table of average precisions; a class without objects has none."""
    numbers = {name: chosen(getattr(row, name), "") for name in ("ap", "ap50", "ar_100")}
    return {"class": row.label, "objects": row.objects, **numbers}


def f1_row(row: "Threshold") -> dict[str, object]:
    """One class of the table of thresholds."""
    found = {name: getattr(row, name) for name in ("precision", "recall", "f1")}
    score = "" if row.score is None else row.score
    return {"class": row.label or "all", "objects": row.objects, "score": score, **found}
