"""Image classification: from a folder of photos to a bundle that predicts.

Read from top to bottom: data, model, training, evaluation, bundle, report.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from recipes.options import VisionOptions, chosen, option

if TYPE_CHECKING:
    from pathlib import Path

    from applications.classification import ClassificationTask, ImageSource
    from common import DataBlock, DataLoaders, Trainer
    from common.augment.batch_transforms import BatchTransform
    from common.blocks.item_transforms import ItemTransform
    from common.data.prepared import Prepared
    from common.task.task import Outputs
    from recipes.run import RunFolder

MANY = 10_000  # training images above which a run from scratch takes fewer epochs and larger batches


@dataclass(frozen=True, kw_only=True)
class Options(VisionOptions):
    """Options of the classification recipe."""

    size: int | None = option(
        None, "pixels of a side (default: 224 for photos, 96 with small_resnet; idx images and digits keep theirs)"
    )
    epochs: int | None = option(
        None, "epochs (default: 4 with pretrained weights, else 40, or 10 for 10,000 images and more)"
    )
    batch_size: int | None = option(None, "images a step (default: 32; 128 from scratch with 10,000 images and more)")
    flip: bool = option(True, "mirror images left and right in training; --no-flip for digits and letters")
    mixup: float = option(0.0, "shape of mixup's Beta distribution; 0: none")
    cutmix: float = option(0.0, "share of the images with a piece of another pasted in; 0: none")
    label_smoothing: float | None = option(None, "share of the target spread over all classes (default 0.1, or 0.05)")
    valid_pct: float | None = option(None, "share of train that validates (default 0.2, at most 5000 images)")
    image_column: str = option("image", "a table's column of image paths")
    label_column: str = option("label", "a table's column of labels")
    split_column: str = option("split", "a table's column of train, valid or test")
    label_delim: str | None = option(None, "what separates several labels of one image (makes it multi-label)")

    def __post_init__(self) -> None:
        from common.errors import in_range

        super().__post_init__()
        if self.size is not None:
            in_range("size", self.size, 1, 1_000_000)
        in_range("mixup", self.mixup, 0, 8)
        in_range("cutmix", self.cutmix, 0, 1)
        if self.label_smoothing is not None:
            in_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True)


def find_source(options: Options) -> "ImageSource":
    """The images and their labels; without data, handwritten digits."""
    from applications.classification.domain import ImageReading, read
    from recipes.run import reading_of

    return read(options.data, reading_of(ImageReading, options))


def make_block(options: Options, source: "ImageSource") -> "DataBlock":
    """The four questions of the DataBlock, answered."""
    from common import DataBlock
    from common.data import CategoryBlock, ImageBlock, MultiCategoryBlock

    return DataBlock(
        blocks=(
            ImageBlock("L" if source.grey and options.arch == "small_resnet" else "RGB"),
            MultiCategoryBlock if options.label_delim else CategoryBlock,
        ),
        get_x=source.get_x,
        get_y=source.get_y,
        splitter=source.splitter(valid_share(options, source), options.seed, stratify=not options.label_delim),
        item_tfms=item_transforms(options, source),
        batch_tfms=batch_transforms(options, source),
    )


def make_loaders(options: Options, source: "ImageSource") -> "tuple[Prepared, DataLoaders]":
    """The items decoded on the first pass, kept, and put into batches."""
    from common.data.loader import LoaderOptions
    from recipes.run import dirty_policy

    prepared = make_block(options, source).prepare(source.items, dirty_policy(options, "classification"))
    few = options.pretrained or len(prepared.split.train) < MANY
    making = LoaderOptions(batch_size=chosen(options.batch_size, 32 if few else 128), seed=options.seed)
    return prepared, prepared.loaders(making, 256, 2, None, "cpu", options.cache_dir)


def valid_share(options: Options, source: "ImageSource") -> float:
    """The share of validation images in train: a fifth, but not more than 5,000 images."""
    return options.valid_pct if options.valid_pct is not None else min(0.2, 5000 / len(source.items))


def item_transforms(options: Options, source: "ImageSource") -> "list[ItemTransform]":
    """Photos get a different random crop in each epoch; small grey images are used whole."""
    from common.data import RandomResizedCrop, Resize

    if source.grey:
        return [Resize(options.size)] if options.size else []
    size = chosen(options.size, 96 if options.arch == "small_resnet" else 224)
    return [RandomResizedCrop(size, min_scale=0.35)] if options.augment else [Resize(size)]


def batch_transforms(options: Options, source: "ImageSource") -> "list[BatchTransform]":
    """Flips, small rotations and lighting for photos; small shifts for digits and other grey images."""
    from common import Augment, CutMix, Mixup

    found: list[BatchTransform] = []
    if options.augment and source.grey:
        found.append(Augment(flip=options.flip and source.mirrored, translate=0.04, p_affine=1.0, padding="zeros"))
    elif options.augment:
        found.append(Augment(flip=options.flip, rotate=10, brightness=0.2, contrast=0.2))
    if options.cutmix:
        found.append(CutMix(p=options.cutmix))
    if options.mixup:
        found.append(Mixup(options.mixup))
    return found


def make_trainer(options: Options, dls: "DataLoaders", out: "Path") -> "Trainer":
    """The model by name with a head for these classes, and how it is trained."""
    from applications.classification import vision_learner
    from common import TrainerOptions

    return vision_learner(
        dls,
        options.arch,
        pretrained=options.pretrained,
        weights=options.weights,
        label_smoothing=chosen(options.label_smoothing, 0.1 if dls.train.n < MANY else 0.05),
        dropout=0.2 if options.pretrained else 0.0,
        options=TrainerOptions(
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            weight_decay=0.01 if options.pretrained else 0.05,
            freeze_norm=options.pretrained,
            out=out,
            checkpoint=not options.quick,
        ),
    )


def train(options: Options, trainer: "Trainer") -> None:
    """Pretrained weights are fine-tuned; random ones are trained with one cycle."""
    from applications.classification import fine_tune_upper

    if options.pretrained:
        fine_tune_upper(trainer, chosen(options.epochs, 1 if options.quick else 4), chosen(options.lr, 3e-3))
    else:
        full = 40 if trainer.dls.train.n < MANY else 10
        epochs = chosen(options.epochs, full // 2 if options.quick else full)
        trainer.fit_one_cycle(epochs, chosen(options.lr, 5e-3), pct_start=0.2)


def run(options: Options) -> dict[str, float]:
    """Runs the recipe and returns its metrics."""
    from applications.classification.domain import ImageReading
    from common.vision.architectures import check_arch
    from recipes.run import carry_out, folder_of, reading_of

    check_arch(options.arch)
    source = find_source(options)
    prepared, dls = make_loaders(options, source)
    trainer = make_trainer(options, dls, folder_of(options, "classification"))
    trainer.reading = reading_of(ImageReading, options)
    return carry_out(options, "classification", source, prepared, trainer, train, write_report)


def write_report(
    folder: "RunFolder",
    trainer: "Trainer",
    prepared: "Prepared",
    part: str,
    outputs: "Outputs",
    metrics: dict[str, float],
) -> None:
    """The report: metrics next to a simple baseline, learning curves, samples, and the largest errors."""
    from applications.classification import ClassificationInterpretation, Interpretation
    from applications.classification.data import baseline
    from common.sources.splits import PARTS, Split
    from recipes.run import interval

    page, task = folder.report, cast("ClassificationTask", trainer.task)
    found = {"this model": metrics["accuracy"]}
    if not task.multi_label:
        with folder.section("Simple rules"):
            store = trainer.dls.train.store
            usable = Split(*(store.usable(prepared.split[name]) for name in PARTS))
            images, labels = prepared.raws
            rules = baseline(images, labels, usable, part)
            found |= {name.replace("_", " "): value for name, value in rules.items()}
    low, high = interval(metrics["accuracy"], len(outputs.target))
    rules = "; ".join(f"{name} {value:.3f}" for name, value in found.items() if name != "this model")
    where = f"on {len(outputs.target):,} items of the {part} part"
    folder.answer(f"accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}) {where}; {rules}")
    rows = [{"model": name, "accuracy": value} for name, value in found.items()]
    page.table(f"Accuracy on the {part} part, beside simple rules", rows)
    folder.training(trainer, metrics)
    looking = Interpretation if task.multi_label else ClassificationInterpretation
    seen = looking(trainer, part, outputs)
    if isinstance(seen, ClassificationInterpretation) and len(task.vocab) <= 40:
        with folder.section("Confusion matrix"):
            folder.picture("Confusion matrix", "confusion", seen.plot_confusion_matrix(), f"on the {part} part")
    with folder.section("Largest losses"):
        folder.picture("Largest losses", "top_losses", seen.plot_top_losses(9), "true / predicted, wrong ones in red")
    with folder.section("Results"):
        folder.picture("Results", "results", trainer.show_results(max_n=9, part=part, outputs=outputs))
