"""The public surface: every public name is listed here once, has a docstring, and answers with shapes or an example."""

import dataclasses
import importlib
import inspect

import pytest

from common.train import Metric

SURFACE = {
    "common": """Augment Bundle CutMix DataBlock DataLoaders Mixup Normalize Predictor Trainer TrainerOptions aug_transforms
        load_learner""",
    "common.data": """BBoxBlock Batch Block ByGroup ByLength CategoryBlock ColReader ColSplitter ColumnsBlock EpochSeed DataBlock DataLoaders
        FileSplitter FuncSplitter GrandparentSplitter GroupSplitter HoldOutFolder ImageBlock IndexSplitter InstanceBlock
        KFoldSplitter Loader ManifestSplitter MaskBlock MultiCategoryBlock NoSplitter Objects PointBlock Source RandomResizedCrop RandomSplitter RegexLabeller
        RegressionBlock Resize ResizeMethod SignalBlock SpectrogramBlock Split StratifiedGroupSplitter StratifiedSplitter TextBlock
        TimeSplitter TokenBudget get_files get_image_files imagenet_stats parent_label using_attr""",
    "common.augment": "Augment BatchPipeline CutMix Drawn Mixup Mosaic Normalize SpecAugment SpectrogramImage Stage aug_transforms",
    "common.train": """Accuracy AccuracyMulti AtOnce ClassificationTask Constant EarlyStop ErrorRate EventLog F1Score
        F1ScoreMulti FittedModel Hook Interrupted Learner Metric OneCycle ProgressBar RegressionTask RootMeanSquaredError Task TensorBoardLog TopKAccuracy
        Trainer TrainerOptions accuracy accuracy_multi error_rate rmse top_k_accuracy""",
    "common.deploy": "Bundle BundlePart Domain Inputs Predictor evaluate export files_of load load_learner predict_files",
    "common.show": "Picture Report learning_curves line_figure matrix_figure show_batch show_results",
    "applications.tabular": """EnsembleConfig TableSource TabularClassification TabularClassifier TabularDataLoaders
        TabularEnsemble TabularNetwork TabularRegression TabularRegressor adversarial_validation baseline
        dependence_figure evaluate importance_figure leakage make_task member_metrics partial_dependence
        permutation_importance read_inputs read_source shap_importance shap_values slices table_source
        tabular_learner""",
    "applications.classification": """Augment CategoryBlock ClassificationInterpretation ClassificationTask ColReader
        ColSplitter DataBlock DataLoaders F1Score F1ScoreMulti GrandparentSplitter ImageBlock ImageDataLoaders ImageSource
        Interpretation Mixup MultiCategoryBlock Normalize Path Predictor RandomResizedCrop RandomSplitter RegexLabeller
        Resize ResizeMethod Trainer TrainerOptions accuracy accuracy_multi arch_names aug_transforms cnn_learner
        convnext_tiny create_model efficientnet_b0 error_rate evaluate fine_tune_upper fit_head get_image_files
        imagenet_stats load_learner make_task mobilenet_v2 parent_label partial pd read_source resnet101 resnet18 resnet34
        resnet50 using_attr vision_learner""",
    "applications.detection": """APTable AnchorFreeConfig AnchorFreeDetector Augment BBoxBlock DataBlock DataLoaders DetectionSource
        DetectionTask ImageBlock InstanceBlock Matches Mosaic Objects Predictor RandomSplitter Resize Thresholds
        TorchvisionDetector Trainer TrainerOptions arch_names average_precision check_arch choose_thresholds
        coco_results create_model detection_learner evaluate ground_truth load_learner make_task match
        predict_sliding read_source scene_source""",
    "applications.segmentation": """Augment DataBlock DataLoaders ImageBlock MaskBlock MeanIoU Mixup Normalize Path PixelAccuracy Predictor
        RandomResizedCrop RandomSplitter Resize ResizeMethod SegmentationSource SegmentationTask Trainer
        TrainerOptions arch_names aug_transforms baseline check_arch class_weights create_model evaluate
        get_image_files ids_of ignored_share imagenet_stats load_learner make_task mobilenet_v2 pixel_counts predict_sliding
        read_source resnet18 resnet34 resnet50 scene_source segmentation_learner show_maps unet_learner""",
    "common.text": "TextEncoder Tokenizer",
    "common.vision": """Backbone arch_names backbone_names find_weights""",
}
OURS = ("common", "applications", "recipes")


def public(module):
    return {name: getattr(importlib.import_module(module), name) for name in importlib.import_module(module).__all__}


@pytest.mark.parametrize("module", list(SURFACE))
def test_the_public_names_are_those_written_here(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(SURFACE[module].split())


def described():
    for module in SURFACE:
        for name, value in public(module).items():
            home = getattr(value, "__module__", "") or ""
            if callable(value) and home.split(".")[0] in OURS:
                yield pytest.param(value, id=f"{module}.{name}")


@pytest.mark.parametrize("value", list(described()))
def test_a_public_name_has_a_docstring_that_ends_its_first_line(value):
    text = inspect.getdoc(value) or inspect.getdoc(type(value)) or ""
    assert text
    assert text.splitlines()[0].rstrip()[-1] in ".:;", text.splitlines()[0]


@pytest.mark.parametrize("value", list(described()))
def test_a_public_callable_says_what_its_arguments_are(value):
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    try:
        signature = inspect.signature(value)
    except ValueError:
        return
    text = inspect.getdoc(value) or ""
    text += inspect.getdoc(value.__init__) or "" if inspect.isclass(value) else ""
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name.startswith("_"):
            continue
        if inspect.isclass(value) and issubclass(value, Exception):
            continue
        assert name in text, f"{value.__qualname__} does not say what {name} is"


@pytest.mark.parametrize("value", list(described()))
def test_configuration_is_frozen(value):
    if (
        inspect.isclass(value)
        and dataclasses.is_dataclass(value)
        and value.__name__ != "Report"
        and not issubclass(value, Metric)
    ):
        assert value.__dataclass_params__.frozen, value
