"""Data: the DataBlock, its blocks, items, splitters, item transforms and loaders."""

from common.data.batch import Batch
from common.data.blocks import Block, CategoryBlock, Counter, MultiCategoryBlock, RegressionBlock
from common.data.columns import ColumnsBlock
from common.data.datablock import DataBlock
from common.data.dataloaders import DataLoaders
from common.data.items import ColReader, RegexLabeller, get_files, get_image_files, parent_label, using_attr
from common.data.loader import Loader
from common.data.objects import BBoxBlock, InstanceBlock, Objects
from common.data.sequences import SignalBlock, SpectrogramBlock, TextBlock
from common.data.sources import Source
from common.data.spatial import ImageBlock, MaskBlock, PointBlock, imagenet_stats
from common.data.split_files import FileSplitter, ManifestSplitter
from common.data.splits import (
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
from common.data.transforms import RandomResizedCrop, Resize, ResizeMethod

__all__ = [
    "BBoxBlock",
    "Batch",
    "Block",
    "CategoryBlock",
    "ColReader",
    "ColSplitter",
    "ColumnsBlock",
    "Counter",
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
    "get_files",
    "get_image_files",
    "imagenet_stats",
    "parent_label",
    "using_attr",
]
