"""Data: the DataBlock, its blocks, items, splitters, item transforms and loaders."""

from common.blocks.batch import Batch
from common.blocks.block import Block, CategoryBlock, EpochSeed, MultiCategoryBlock, RegressionBlock
from common.blocks.columns import ColumnsBlock
from common.blocks.item_transforms import RandomResizedCrop, Resize, ResizeMethod
from common.blocks.objects import BBoxBlock, InstanceBlock, Objects
from common.blocks.sequences import SignalBlock, SpectrogramBlock, TextBlock
from common.blocks.spatial import ImageBlock, MaskBlock, PointBlock, imagenet_stats
from common.data.datablock import DataBlock
from common.data.dataloaders import DataLoaders
from common.data.loader import Loader
from common.data.order import ByGroup, ByLength, TokenBudget
from common.sources.items import ColReader, RegexLabeller, get_files, get_image_files, parent_label, using_attr
from common.sources.source import Source
from common.sources.split_files import FileSplitter, ManifestSplitter
from common.sources.splits import (
    ColSplitter,
    FuncSplitter,
    GrandparentSplitter,
    GroupSplitter,
    HoldOutFolder,
    IndexSplitter,
    KFoldSplitter,
    NoSplitter,
    RandomSplitter,
    Split,
    StratifiedGroupSplitter,
    StratifiedSplitter,
    TimeSplitter,
)

__all__ = [
    "BBoxBlock",
    "Batch",
    "Block",
    "ByGroup",
    "ByLength",
    "CategoryBlock",
    "ColReader",
    "ColSplitter",
    "ColumnsBlock",
    "EpochSeed",
    "DataBlock",
    "DataLoaders",
    "FileSplitter",
    "FuncSplitter",
    "GrandparentSplitter",
    "GroupSplitter",
    "HoldOutFolder",
    "ImageBlock",
    "IndexSplitter",
    "InstanceBlock",
    "KFoldSplitter",
    "Loader",
    "ManifestSplitter",
    "MaskBlock",
    "MultiCategoryBlock",
    "NoSplitter",
    "Objects",
    "PointBlock",
    "RandomResizedCrop",
    "RandomSplitter",
    "RegexLabeller",
    "RegressionBlock",
    "Resize",
    "ResizeMethod",
    "SignalBlock",
    "SpectrogramBlock",
    "Source",
    "Split",
    "StratifiedGroupSplitter",
    "StratifiedSplitter",
    "TextBlock",
    "TimeSplitter",
    "TokenBudget",
    "get_files",
    "get_image_files",
    "imagenet_stats",
    "parent_label",
    "using_attr",
]
