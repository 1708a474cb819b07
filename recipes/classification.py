"""Image classification: from a folder of photos to a bundle that predicts.

Read from top to bottom: data, model, training, evaluation, bundle, report.
"""

from dataclasses import dataclass
from typing import Any

from recipes.options import CommonOptions, option

MANY = 10_000  # training images above which a run from scratch takes fewer epochs and larger batches


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """Options of the classification recipe."""

    arch: str = option("small_resnet", "small_resnet or one of torchvision's models, such as mobilenet_v2")
    pretrained: bool = option(False, "start from ImageNet weights and fine-tune")
    weights: str | None = option(None, "which of torchvision's weights, such as IMAGENET1K_V1")
    size: int | None = option(
        None, "pixels of a side (default: 224 for photos, 96 with small_resnet; idx images and digits keep theirs)"
    )
    epochs: int | None = option(
        None, "epochs (default: 4 with pretrained weights, else 40, or 10 for 10,000 images and more)"
    )
    lr: float | None = option(None, "peak learning rate (default: found for each way of training)")
    batch_size: int | None = option(None, "images a step (default: 32; 128 from scratch with 10,000 images and more)")
    augment: bool = option(True, "random flips, crops, turns and light in training")
    flip: bool = option(True, "mirror images left and right in training; --no-flip for digits and letters")
    mixup: float = option(0.0, "shape of mixup's Beta distribution; 0: none")
    cutmix: float = option(0.0, "share of the images with a piece of another pasted in; 0: none")
    label_smoothing: float | None = option(None, "share of the target spread over all classes (default 0.1, or 0.05)")
    valid_pct: float | None = option(None, "share of train that validates (default 0.2, at most 5000 images)")
    image_column: str = option("image", "a table's column of image paths")
    label_column: str = option("label", "a table's column of labels")
    split_column: str = option("split", "a table's column of train, valid or test")
    label_delim: str | None = option(None, "what separates several labels of one image (makes it multi-label)")
    precision: str = option("no", "no, bf16 or fp16")
    resume: bool = option(False, "go on from the newest sound checkpoint in OUT")

    def __post_init__(self) -> None:
        from common.errors import ConfigError, in_range

        for name in ("size", "epochs", "batch_size"):
            if (value := getattr(self, name)) is not None:
                in_range(name, value, 1, 1_000_000)
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr must be above 0 and finite, got {self.lr}")
        in_range("mixup", self.mixup, 0, 8)
        in_range("cutmix", self.cutmix, 0, 1)
        if self.label_smoothing is not None:
            in_range("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        if self.pretrained and self.arch == "small_resnet":
            raise ConfigError("pretrained needs an arch that has weights, such as --arch mobilenet_v2")
        if self.weights and not self.pretrained:
            raise ConfigError("weights needs --pretrained")


def chosen(given: Any, default: Any) -> Any:
    """What the user gave, else the default."""
    return default if given is None else given


def make_loaders(options: Options, source: Any) -> Any:
    """The four questions of the DataBlock, answered."""
    from common import DataBlock
    from common.data import CategoryBlock, ImageBlock, MultiCategoryBlock
    from common.data.loader import LoaderOptions
    from recipes.run import dirty_policy

    block = DataBlock(
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
    prepared = block.prepare(source.items, dirty_policy(options, "classification"))
    few = options.pretrained or len(prepared.split.train) < MANY
    making = LoaderOptions(batch_size=chosen(options.batch_size, 32 if few else 128), seed=options.seed)
    return prepared, prepared.loaders(making, 256, 2, None, "cpu", options.cache_dir)


def valid_share(options: Options, source: Any) -> float:
    """The share of the training images that validate: a fifth, but not more than 5,000 images."""
    return options.valid_pct if options.valid_pct is not None else min(0.2, 5000 / len(source.items))


def item_transforms(options: Options, source: Any) -> list[Any]:
    """Photos are cut to a different part each epoch; small images that lie in memory are taken whole."""
    from common.data import RandomResizedCrop, Resize

    if source.grey:
        return [Resize(options.size)] if options.size else []
    size = chosen(options.size, 96 if options.arch == "small_resnet" else 224)
    return [RandomResizedCrop(size, min_scale=0.35)] if options.augment else [Resize(size)]


def batch_transforms(options: Options, source: Any) -> list[Any]:
    """Mirrors and light for photos; small turns, shifts and zooms for digits and the like."""
    from common import Augment, CutMix, Mixup

    found: list[Any] = []
    if options.augment and source.grey:
        found.append(Augment(flip=options.flip and source.mirrored, translate=0.04, p_affine=1.0, padding="zeros"))
    elif options.augment:
        found.append(Augment(flip=options.flip, rotate=10, brightness=0.2, contrast=0.2))
    if options.cutmix:
        found.append(CutMix(p=options.cutmix))
    if options.mixup:
        found.append(Mixup(options.mixup))
    return found


def make_trainer(options: Options, dls: Any, out: Any) -> Any:
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


def train(options: Options, trainer: Any) -> None:
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
    from applications.classification import read_source
    from common import Predictor
    from common.vision.architectures import check_arch
    from recipes.run import folder_of, run_folder

    check_arch(options.arch)
    source = read_source(
        options.data,
        image_column=options.image_column,
        label_column=options.label_column,
        split_column=options.split_column,
        label_delim=options.label_delim,
    )
    prepared, dls = make_loaders(options, source)
    trainer = make_trainer(options, dls, folder_of(options, "classification"))
    with run_folder(options, "classification") as folder:
        prepared.split.write(folder.path / "split.csv", prepared.items)
        if options.resume:
            print(trainer.resume(folder.path / "checkpoints"))
        train(options, trainer)
        part = "test" if dls.has("test") else "valid"
        trainer.export(folder.bundle)
        predictor = Predictor(folder.bundle)
        if dls.has("test"):
            metrics = predictor.evaluate_source(source, "test", "raise" if options.on_error == "raise" else "skip")
        else:
            outputs = trainer.get_preds("valid")
            metrics = trainer.task.report(outputs.output, outputs.target)
        trainer.export(folder.bundle, metrics)
        metrics["items_per_second"] = trainer.history[-1]["items_per_second"]
        write_report(folder, trainer, prepared, part, metrics)
        return folder.finish(options, metrics)


def write_report(folder: Any, trainer: Any, prepared: Any, part: str, metrics: dict[str, float]) -> None:
    """What a person looks at: the figures beside a simple baseline, the curves, the data, and the mistakes."""
    from applications.classification import ClassificationInterpretation, Interpretation
    from applications.classification.data import baseline
    from common.data.splits import PARTS, Split
    from common.show import learning_curves

    page, task = folder.report, trainer.task
    rows = [{"model": "this model", "accuracy": metrics["accuracy"]}]
    if not task.multi_label:
        store = trainer.dls.train.store
        usable = Split(*(store.usable(prepared.split[name]) for name in PARTS))
        images, labels = prepared.raws
        rules = baseline(images, labels, usable, part)
        rows += [{"model": name.replace("_", " "), "accuracy": value} for name, value in rules.items()]
    page.table(f"Accuracy on the {part} part, beside simple rules", rows)
    page.table("Metrics", [{"metric": name, "value": value} for name, value in sorted(metrics.items())])
    page.table("Epochs", trainer.history)
    if left_out := trainer.dls.train.store.dirty.table():
        page.table(f"Items left out: {len(left_out)}", left_out)
    folder.picture("Learning curves", "curves", learning_curves(trainer.history, ["train_loss", "valid_loss"]))
    folder.picture("Training images as the model sees them", "batch", trainer.dls.show_batch(max_n=16))
    folder.picture(
        "One image in successive epochs", "augmented", trainer.dls.train.show_batch(max_n=8, nrows=1, unique=True)
    )
    seen = Interpretation(trainer, part) if task.multi_label else ClassificationInterpretation(trainer, part)
    if isinstance(seen, ClassificationInterpretation) and len(task.vocab) <= 40:
        folder.picture("Confusion matrix", "confusion", seen.plot_confusion_matrix(), f"on the {part} part")
    folder.picture("Largest losses", "top_losses", seen.plot_top_losses(9), "true / predicted, wrong ones in red")
    folder.picture("Results", "results", trainer.show_results(max_n=9, part=part))
