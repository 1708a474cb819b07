"""Validation of a file of boosted trees before XGBoost reads it.

XGBoost trusts its model files: a child index out of range reads foreign memory, a cycle never ends, a huge category
takes all memory, and each of them ends the process, not the call. `check_trees` reads the file first, with
`common.deploy.ubjson`, and refuses whatever XGBoost 3.2 does not write. The nodes of all trees are checked together, as
one flat array, so that a thousand trees cost about as much as their decoding.

Source: XGBoost 3.2, src/tree/tree_model.cc, src/gbm/gbtree_model.cc, src/learner.cc, src/data/cat_container.cc.

Floor: deploy; may import show and below. Used by: applications.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.deploy.ubjson import Fields, decode

VERSIONS = ((3, 2), (4, 0))
"""The supported versions: from the first, up to and without the second."""
MAX_TREE_DEPTH = 1024
MAX_CATEGORIES = 1 << 24
MAX_BITSET_BYTES = 256 << 20
DELETED = (1 << 31) - 1
"""The split index of a node that was pruned; its entry stays in the arrays."""

OBJECTIVES = {
    "binary:hinge": ("", ""),
    "binary:logistic": ("reg_loss_param", "scale_pos_weight"),
    "binary:logitraw": ("reg_loss_param", "scale_pos_weight"),
    "count:poisson": ("poisson_regression_param", "max_delta_step"),
    "multi:softmax": ("softmax_multiclass_param", "num_class"),
    "multi:softprob": ("softmax_multiclass_param", "num_class"),
    "reg:absoluteerror": ("", ""),
    "reg:gamma": ("reg_loss_param", "scale_pos_weight"),
    "reg:logistic": ("reg_loss_param", "scale_pos_weight"),
    "reg:pseudohubererror": ("pseudo_huber_param", "huber_slope"),
    "reg:quantileerror": ("quantile_loss_param", "quantile_alpha"),
    "reg:squarederror": ("reg_loss_param", "scale_pos_weight"),
    "reg:squaredlogerror": ("", ""),
    "reg:tweedie": ("tweedie_regression_param", "tweedie_variance_power"),
}
"""Objective: the group and the name of its one parameter, empty where it has none."""
NODE_ARRAYS = {
    "left_children": np.dtype(np.int32),
    "right_children": np.dtype(np.int32),
    "parents": np.dtype(np.int32),
    "split_indices": np.dtype(np.int32),
    "split_conditions": np.dtype(np.float32),
    "split_type": np.dtype(np.uint8),
    "default_left": np.dtype(np.uint8),
    "base_weights": np.dtype(np.float32),
    "loss_changes": np.dtype(np.float32),
    "sum_hessian": np.dtype(np.float32),
}
CATEGORY_ARRAYS = {
    "categories": np.dtype(np.int32),
    "categories_nodes": np.dtype(np.int32),
    "categories_segments": np.dtype(np.int64),
    "categories_sizes": np.dtype(np.int64),
}
FEATURE_TYPES = ("float", "int", "i", "q", "c")
CATEGORY_VALUES = {9: np.int8, 10: np.uint8, 11: np.int16, 13: np.int32, 15: np.int64}
"""XGBoost's type numbers of arrays, in the encoder of a frame's categories."""

Array = NDArray[Any]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TreeSummary:
    """The content of a checked file of trees.

    Attributes:
        booster: ``gbtree`` or ``dart``.
        objective: By XGBoost's name, such as ``multi:softprob``.
        features: Columns of the input.
        outputs: Numbers per row: classes, quantiles or targets; 1 for a binary class or a plain regression.
        rounds: Boosting rounds.
        trees: Trees of all rounds.
        nodes: Nodes of all trees, leaves included.
        depth: Edges from a root to the farthest leaf.
    """

    booster: str
    objective: str
    features: int
    outputs: int
    rounds: int
    trees: int
    nodes: int
    depth: int


def check_trees(data: bytes, name: str, *, features: int, outputs: int) -> TreeSummary:
    """Checks that nothing in an XGBoost model file can make XGBoost access memory out of bounds; returns a summary.

    Args:
        data: The file as ``Booster.save_raw("ubj")`` writes it.
        name: The file's name in errors.
        features: The number of columns that the model must take.
        outputs: The numbers per row that the model must return: classes, quantiles or targets, else 1.

    Returns:
        Counts and names for a report.

    Raises:
        BundleError: one sentence with the field, or the tree and the node, the value found and what it must be.
    """
    content = decode(data, name)
    file = Fields(name)
    top = file.fields(content, "the file", ("learner", "version"))
    version = file.integers(top["version"], "version")
    if version.size != 3 or not VERSIONS[0] <= tuple(version[:2].tolist()) < VERSIONS[1]:
        raise file.error(
            f"version is {version[:4].tolist()}, must be from 3.2 to before 4: save the model again with it"
        )
    file.same_bytes(content, data)
    learner = file.fields(
        top["learner"],
        "learner",
        ("attributes", "feature_names", "feature_types", "gradient_booster", "learner_model_param", "objective"),
    )
    objective = _objective(file, learner["objective"], outputs)
    _learner(file, learner, objective, features, outputs)
    booster, model = _booster(file, learner["gradient_booster"])
    forest = _forest(file, model["trees"], features)
    rounds = _rounds(file, model, outputs)
    _frame_categories(file, model["cats"], features)
    depth = 0
    if forest.sizes.size:
        depth = _structure(forest)
        _numbers(forest, features, learner["feature_types"])
        _categories(forest)
    return TreeSummary(
        booster=booster,
        objective=objective,
        features=features,
        outputs=outputs,
        rounds=rounds,
        trees=forest.sizes.size,
        nodes=int(forest.sizes.sum()),
        depth=depth,
    )


def _objective(file: Fields, value: Any, outputs: int) -> str:
    """Returns the objective's name and checks its parameter (XGBoost divides by the number of classes)."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise file.error(f"objective is {name!r:.60}, must be one of {', '.join(OBJECTIVES)}")
    group, parameter = OBJECTIVES[name]
    if not group:
        file.fields(value, "objective", ("name",))
        return name
    held = file.fields(file.fields(value, "objective", ("name", group))[group], f"objective.{group}", (parameter,))
    what = f"objective.{group}.{parameter}"
    if parameter == "num_class":
        file.count(held[parameter], what, outputs, outputs)
        return name
    listed = parameter == "quantile_alpha"
    found = file.floats(held[parameter] if listed else f"[{held[parameter]}]", what)
    if len(found) != (outputs if listed else 1):
        raise file.error(f"{what} has {len(found)} numbers, must have {outputs if listed else 1}")
    if min(found) < 0 or (listed and max(found) > 1):
        raise file.error(
            f"{what} is {held[parameter]!r:.60}, must lie in [0, {1 if listed else 'inf'}{']' if listed else ')'}"
        )
    return name


def _learner(file: Fields, learner: dict[str, Any], objective: str, features: int, outputs: int) -> None:
    what = "learner_model_param"
    names = ("base_score", "boost_from_average", "num_class", "num_feature", "num_target")
    held = file.fields(learner[what], what, names)
    classes, targets = (outputs, 1) if objective.startswith("multi:") else (0, outputs)
    file.count(held["num_feature"], f"{what}.num_feature", features, features)
    file.count(held["num_class"], f"{what}.num_class", classes, classes)
    file.count(held["num_target"], f"{what}.num_target", targets, targets)
    file.count(held["boost_from_average"], f"{what}.boost_from_average", 0, 1)
    score = file.floats(held["base_score"], f"{what}.base_score")
    if len(score) not in (1, outputs):
        raise file.error(f"{what}.base_score has {len(score)} numbers, must have {outputs}")
    if objective in ("binary:logistic", "binary:logitraw", "reg:logistic") and not all(0 <= s <= 1 for s in score):
        raise file.error(f"{what}.base_score is {held['base_score']!r:.60}, must lie in [0, 1] for {objective}")
    attributes = learner["attributes"]
    if not isinstance(attributes, dict):
        raise file.error(f"attributes must be an object, got {type(attributes).__name__}")
    file.every(list(attributes.values()), "attributes", str, "texts")
    _columns(file, learner, features)


def _columns(file: Fields, learner: dict[str, Any], features: int) -> None:
    """Checks the names and types of the columns: given for all or for none."""
    for field in ("feature_names", "feature_types"):
        size = len(file.every(learner[field], field, str, "texts"))
        if size not in (0, features):
            raise file.error(f"{field} has {size} entries, must have {features} or none")
    seen: set[str] = set()
    for column, word in enumerate(learner["feature_names"]):
        if re.search(r"[\[\]<]", word) or word in seen:
            raise file.error(f"feature_names[{column}] is {word!r:.60}, must be unique and without [, ] and <")
        seen.add(word)
    for column, kind in enumerate(learner["feature_types"]):
        if kind not in FEATURE_TYPES:
            raise file.error(f"feature_types[{column}] is {kind!r:.60}, must be one of {', '.join(FEATURE_TYPES)}")


def _booster(file: Fields, value: Any) -> tuple[str, dict[str, Any]]:
    """Returns the booster's name, and the tree model inside."""
    name = value.get("name") if isinstance(value, dict) else None
    if name not in ("gbtree", "dart"):
        raise file.error(f"gradient_booster is {name!r:.60}, must be gbtree or dart: train with booster='gbtree'")
    weights: list[Any] | None = None
    if name == "dart":
        outer = file.fields(value, "gradient_booster", ("gbtree", "name", "weight_drop"))
        value, weights = outer["gbtree"], outer["weight_drop"]
    inner = file.fields(value, "gradient_booster", ("model", "name"))
    if inner["name"] != "gbtree":
        raise file.error(f"gradient_booster.gbtree.name is {inner['name']!r:.60}, must be 'gbtree'")
    names = ("cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees")
    model = file.fields(inner["model"], "gradient_booster.model", names)
    if not isinstance(model["trees"], list):
        raise file.error(f"trees must be a list, got {type(model['trees']).__name__}")
    if name == "dart":
        trees = len(model["trees"])
        weights = file.every(weights, "weight_drop", float, "numbers")
        if not all(map(math.isfinite, weights)):
            raise file.error("weight_drop must hold finite numbers only")
        if len(weights) != trees:
            raise file.error(f"weight_drop has {len(weights)} numbers, must have {trees}, one for each tree")
    return name, model


def _rounds(file: Fields, model: dict[str, Any], outputs: int) -> int:
    """Returns the number of rounds: each adds one tree per output and parallel tree."""
    trees = len(model["trees"])
    held = file.fields(model["gbtree_model_param"], "gbtree_model_param", ("num_parallel_tree", "num_trees"))
    file.count(held["num_trees"], "gbtree_model_param.num_trees", trees, trees)
    parallel = file.count(held["num_parallel_tree"], "gbtree_model_param.num_parallel_tree", 1, max(trees, 1))
    info = file.integers(model["tree_info"], "tree_info")
    if info.size != trees:
        raise file.error(f"tree_info has {info.size} entries, must have {trees}, one for each tree")
    wrong = (info < 0) | (info >= outputs)
    if wrong.any():
        at = int(wrong.argmax())
        raise file.error(f"tree_info[{at}] (the output of tree {at}) is {info[at]}, must lie in [0, {outputs})")
    ends = file.integers(model["iteration_indptr"], "iteration_indptr")
    step = outputs * parallel
    if not np.array_equal(ends, np.arange(0, trees + 1, step)) or trees % step:
        raise file.error(f"iteration_indptr must count from 0 to {trees} by {step}, got {ends[:8].tolist()}")
    return ends.size - 1


def _frame_categories(file: Fields, value: Any, features: int) -> None:
    """Checks the categories of the training frame: columns, segments and order must fit XGBoost's indexing."""
    held = file.fields(value, "cats", ("enc", "feature_segments", "sorted_idx"))
    columns = held["enc"]
    if not isinstance(columns, list) or len(columns) not in (0, features):
        raise file.error(f"cats.enc must be a list of {features} columns or none")
    counts = [_column(file, column, f"cats.enc[{i}]") for i, column in enumerate(columns)]
    ends = np.cumsum([0, *counts]) if counts else np.zeros(0, np.int64)
    segments = file.array(held["feature_segments"], "cats.feature_segments", np.dtype(np.int32))
    if not np.array_equal(segments, ends):
        raise file.error("cats.feature_segments must count the categories of the columns before each")
    order = file.array(held["sorted_idx"], "cats.sorted_idx", np.dtype(np.int32), sum(counts))
    for i, (begin, count) in enumerate(zip(ends.tolist(), counts, strict=False)):
        if not np.array_equal(np.sort(order[begin : begin + count]), np.arange(count)):
            raise file.error(f"cats.sorted_idx of column {i} must hold each of 0 to {count - 1} once")


def _column(file: Fields, value: Any, what: str) -> int:
    """Returns the number of categories of one column."""
    if isinstance(value, dict) and "offsets" in value:
        held = file.fields(value, what, ("offsets", "values"))
        values = file.array(held["values"], f"{what}.values", np.dtype(np.int8))
        offsets = file.array(held["offsets"], f"{what}.offsets", np.dtype(np.int32)).astype(np.int64)
        if offsets.size == 0 and values.size == 0:
            return 0
        if offsets.size == 0 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != values.size:
            raise file.error(f"{what}.offsets must rise from 0 to {values.size}, the bytes of the values")
        return offsets.size - 1
    held = file.fields(value, what, ("type", "values"))
    if type(held["type"]) is not int or held["type"] not in CATEGORY_VALUES:
        raise file.error(f"{what}.type is {held['type']!r:.60}, must be one of {sorted(CATEGORY_VALUES)}")
    return file.array(held["values"], f"{what}.values", np.dtype(CATEGORY_VALUES[held["type"]])).size


@dataclass(frozen=True)
class _Forest:
    """All trees of a file in flat arrays: node ``n`` of tree ``t`` has the flat position ``starts[t] + n``.

    Attributes:
        file: The field reader, for errors.
        sizes: The number of nodes of each tree.
        starts: The flat position of each tree's root.
        nodes: Each node array, concatenated over all trees.
        categories: Each category array, one entry per tree.
        deleted: The number of pruned nodes that each tree states.
    """

    file: Fields
    sizes: Ints
    starts: Ints
    nodes: dict[str, Array]
    categories: dict[str, list[Array]]
    deleted: Ints

    def local(self, at: int) -> tuple[int, int]:
        """Returns the tree and the node at a flat position."""
        tree = int(np.searchsorted(self.starts, at, side="right")) - 1
        return tree, at - int(self.starts[tree])

    def refuse(self, wrong: Bools, say: Callable[[int], str]) -> None:
        """Raises for the first node (by flat position) that is wrong."""
        if wrong.any():
            at = int(wrong.argmax())
            tree, node = self.local(at)
            raise self.file.error(f"tree {tree}, node {node}: {say(at)}")

    @property
    def gone(self) -> Bools:
        """The pruned nodes: XGBoost marks them by a split index and a default direction of all ones."""
        return (self.nodes["split_indices"] == DELETED) & (self.nodes["default_left"] == 1)


def _forest(file: Fields, trees: list[Any], features: int) -> _Forest:
    """Checks names, types and lengths of every tree's arrays, and joins them."""
    names = ("id", "tree_param", *NODE_ARRAYS, *CATEGORY_ARRAYS)
    sizes, deleted = np.zeros(len(trees), np.int64), np.zeros(len(trees), np.int64)
    for index, tree in enumerate(trees):
        what = f"tree {index}"
        if isinstance(tree, dict) and "leaf_weights" in tree:
            raise file.error(f"{what} has several numbers in a leaf: train with multi_strategy='one_output_per_tree'")
        held = file.fields(tree, what, names)
        if type(held["id"]) is not int or held["id"] != index:
            raise file.error(f"{what}: id is {held['id']!r:.60}, must be {index}")
        names_param = ("num_deleted", "num_feature", "num_nodes", "size_leaf_vector")
        param = file.fields(held["tree_param"], f"{what}: tree_param", names_param)
        size = sizes[index] = file.count(param["num_nodes"], f"{what}: num_nodes", 1, (1 << 31) - 1)
        deleted[index] = file.count(param["num_deleted"], f"{what}: num_deleted", 0, int(size) - 1)
        file.count(param["num_feature"], f"{what}: num_feature", features, features)
        file.count(param["size_leaf_vector"], f"{what}: size_leaf_vector", 1, 1)
        for field, dtype in NODE_ARRAYS.items():
            file.array(held[field], f"{what}: {field}", dtype, int(size))
        for field, dtype in CATEGORY_ARRAYS.items():
            file.array(held[field], f"{what}: {field}", dtype)
    nodes = {name: np.concatenate([t[name] for t in trees]) if trees else np.zeros(0) for name in NODE_ARRAYS}
    categories = {name: [t[name] for t in trees] for name in CATEGORY_ARRAYS}
    return _Forest(file, sizes, np.cumsum(sizes) - sizes, nodes, categories, deleted)


def _structure(forest: _Forest) -> int:
    """Checks that exactly one path leads from the root to each node not deleted; returns the longest, in edges."""
    offsets = np.repeat(forest.starts, forest.sizes)
    local = np.arange(offsets.size) - offsets
    size = np.repeat(forest.sizes, forest.sizes)
    left, right = (forest.nodes[side].astype(np.int64) for side in ("left_children", "right_children"))
    leaf, gone, root = left == -1, forest.gone, local == 0
    for field, child in (("left_children", left), ("right_children", right)):
        forest.refuse(child == local, lambda at, field=field: f"{field} names the node itself")
        forest.refuse(
            (child != -1) & ((child <= 0) | (child >= size)),
            lambda at, field=field, child=child: f"{field} is {child[at]}, must be -1 or lie in [1, {size[at]})",
        )
    forest.refuse(leaf != (right == -1), lambda at: f"children are {left[at]} and {right[at]}: a leaf has -1 and -1")
    forest.refuse(gone & (root | ~leaf), lambda at: "a root or a node with children is marked as deleted")
    inner = np.flatnonzero(~leaf)
    above, below = np.concatenate([inner, inner]), np.concatenate([left[inner], right[inner]])
    below += np.concatenate([offsets[inner], offsets[inner]])
    uses = np.bincount(below, minlength=local.size)

    def parents(at: int) -> str:
        return " and ".join(str(n) for n in local[above[below == at][:3]])

    forest.refuse(uses > 1, lambda at: f"is a child of more than one: nodes {parents(at)}")
    forest.refuse(gone & (uses > 0), lambda at: f"is marked as deleted, but is a child of node {parents(at)}")
    forest.refuse(~root & ~gone & (uses == 0), lambda at: "is not reached from the root: no node has it as a child")
    counted = np.add.reduceat(gone, forest.starts, dtype=np.int64)
    if (counted != forest.deleted).any():
        tree = int((counted != forest.deleted).argmax())
        raise forest.file.error(f"tree {tree}: num_deleted is {forest.deleted[tree]}, {counted[tree]} nodes are marked")
    parent = np.full(local.size, -1)
    parent[below] = local[above]
    stored = forest.nodes["parents"].astype(np.int64)
    fits = np.where(gone, (stored >= 0) & (stored < size), stored == parent) | (root & (stored == (1 << 31) - 1))
    forest.refuse(~fits, lambda at: f"parents is {stored[at]}, must be {'in the tree' if gone[at] else parent[at]}")
    return _depth(forest, np.where(leaf, -1, left + offsets), np.where(leaf, -1, right + offsets))


def _depth(forest: _Forest, left: Ints, right: Ints) -> int:
    """Walks all trees breadth-first; unreached nodes are on a cycle. ``left``, ``right``: flat, -1 for leaves."""
    seen = np.zeros(left.size, np.bool_)
    level, depth = forest.starts, 0
    while True:
        seen[level] = True
        level = level[left[level] != -1]
        if not level.size:
            break
        if depth == MAX_TREE_DEPTH:
            tree, _ = forest.local(int(level[0]))
            raise forest.file.error(f"tree {tree} is deeper than {MAX_TREE_DEPTH} levels")
        level, depth = np.concatenate([left[level], right[level]]), depth + 1
    forest.refuse(~seen & ~forest.gone, lambda at: "is not reached from the root: it lies on or below a cycle")
    return depth


def _numbers(forest: _Forest, features: int, feature_types: list[str]) -> None:
    """Checks that split indices name columns, flags are 0 or 1, thresholds and leaf values are finite."""
    for field in ("split_type", "default_left"):
        values = forest.nodes[field]
        forest.refuse(values > 1, lambda at, field=field, values=values: f"{field} is {values[at]}, must be 0 or 1")
    index, gone = forest.nodes["split_indices"], forest.gone
    forest.refuse(
        ~gone & ((index < 0) | (index >= features)),
        lambda at: f"split_indices is {index[at]}, must lie in [0, {features}), the columns",
    )
    for field in ("split_conditions", "base_weights", "sum_hessian"):
        values = forest.nodes[field]
        forest.refuse(
            ~gone & ~np.isfinite(values),
            lambda at, field=field, values=values: f"{field} is {values[at]}, must be finite",
        )
    kinds = np.array(feature_types or ["q"] * features)
    categorical = (kinds == "c")[np.where(gone, 0, index)]
    inner, split = forest.nodes["left_children"] != -1, forest.nodes["split_type"]
    forest.refuse(
        inner & (categorical != (split == 1)),
        lambda at: f"split_type is {split[at]}, in feature_types its column {index[at]} is {str(kinds[index[at]])!r}",
    )


def _categories(forest: _Forest) -> None:
    """Checks that categorical nodes are in order, their segments contiguous, and their bit sets fit in memory."""
    marked = forest.nodes["split_type"] == 1
    held = forest.categories
    counts = np.add.reduceat(marked, forest.starts, dtype=np.int64).tolist()
    for tree, count in enumerate(counts):
        for field in ("categories_nodes", "categories_segments", "categories_sizes"):
            forest.file.array(held[field][tree], f"tree {tree}: {field}", CATEGORY_ARRAYS[field], count)
    position = np.flatnonzero(marked)
    tree_of = np.repeat(np.arange(len(counts)), counts)
    node = position - forest.starts[tree_of]
    nodes, segments, sizes = (
        np.concatenate(held[field]).astype(np.int64)
        for field in ("categories_nodes", "categories_segments", "categories_sizes")
    )
    room = np.array([values.size for values in held["categories"]], np.int64)
    every = np.concatenate(held["categories"])

    def refuse(wrong: Bools, say: Callable[[int], str]) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            raise forest.file.error(f"tree {tree_of[at]}, node {node[at]}: {say(at)}")

    refuse(nodes != node, lambda at: f"split_type is 1, categories_nodes has {nodes[at]} in its place")
    refuse(
        (sizes < 1) | (sizes > room[tree_of]),
        lambda at: f"categories_sizes is {sizes[at]}, must lie in [1, {room[tree_of[at]]}]",
    )
    before, used = np.cumsum(sizes) - sizes, np.zeros(room.size, np.int64)
    np.add.at(used, tree_of, sizes)
    if (used != room).any():
        tree = int((used != room).argmax())
        raise forest.file.error(
            f"tree {tree}: categories has {room[tree]} values, categories_sizes add up to {used[tree]}"
        )
    begin = before - (np.cumsum(room) - room)[tree_of]
    refuse(segments != begin, lambda at: f"categories_segments is {segments[at]}, must be {begin[at]}")
    if not sizes.size:
        return
    largest, least = np.maximum.reduceat(every, before), np.minimum.reduceat(every, before)
    refuse(least < 0, lambda at: f"categories holds {least[at]}, must not be negative")
    refuse(largest >= MAX_CATEGORIES, lambda at: f"categories holds {largest[at]}, must be below {MAX_CATEGORIES}")
    needed = int((largest.astype(np.int64) // 32 + 1).sum()) * 4
    if needed > MAX_BITSET_BYTES:
        raise forest.file.error(f"the categories need {needed} bytes of bit sets, more than {MAX_BITSET_BYTES}")
