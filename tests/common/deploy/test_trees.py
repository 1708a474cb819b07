"""A genuine XGBoost model passes the check; one that could end the process is refused before XGBoost sees it."""

import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

import common.deploy.trees as trees
from common.deploy.trees import check_trees
from common.deploy.ubjson import decode, encode
from common.errors import BundleError

ROWS, COLUMNS = 300, 4
TYPES = ["c", "q", "q", "q"]
KINDS = {
    "binary": 1,
    "classes": 5,
    "classes, partitions": 5,
    "one category a split": 1,
    "softmax": 5,
    "regression": 1,
    "targets": 2,
    "quantiles": 3,
    "one quantile": 1,
    "forest": 1,
    "forest of classes": 5,
    "sliced forest": 5,
    "leaves": 1,
    "stopped": 1,
    "sliced": 1,
    "pruned": 1,
    "pruned categories": 1,
    "approx": 1,
    "dart": 1,
    "frame": 1,
    "no rounds": 1,
    "constant": 1,
    "one class": 1,
    "named": 1,
    "poisson": 1,
    "absolute": 1,
    "estimator": 5,
}


def matrix(x, label, types=TYPES, **more):
    return xgb.DMatrix(x, label, feature_types=types, enable_categorical=types is not None, **more)


def train_all():
    """One small booster of each kind, by name."""
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    x[:, 0] = numbers.integers(0, 12, ROWS)
    five, two = numbers.integers(0, 5, ROWS), numbers.integers(0, 2, ROWS)
    real = x[:, 1] + x[:, 0] % 3 + numbers.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "a": pd.Categorical(numbers.choice(["x", "yy", "ä"], ROWS)),
            "b": x[:, 1],
            "k": pd.Categorical(numbers.choice([5, -3, 7], ROWS)),
        }
    )

    def train(data, rounds=4, **more):
        return xgb.train({"nthread": 1, "max_depth": 3, **more}, data, rounds)

    quantiles = {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}
    classes = {"objective": "multi:softprob", "num_class": 5}
    binary = {"objective": "binary:logistic"}
    made = {
        "binary": train(matrix(x, two), 8, **binary),
        "classes": train(matrix(x, five), **classes),
        "classes, partitions": train(matrix(x, five), max_cat_to_onehot=1, **classes),
        "one category a split": train(matrix(x, two), max_cat_to_onehot=100, **binary),
        "softmax": train(matrix(x, five), objective="multi:softmax", num_class=5),
        "regression": train(matrix(x, real), max_depth=7),
        "targets": train(matrix(x, x[:, 1:3])),
        "quantiles": train(xgb.QuantileDMatrix(x, real), **quantiles),
        "one quantile": train(matrix(x, real), objective="reg:quantileerror", quantile_alpha=0.5),
        "forest": train(matrix(x, two), 1, num_parallel_tree=8, subsample=0.5, **binary),
        "forest of classes": train(matrix(x, five), 5, num_parallel_tree=8, subsample=0.5, **classes),
        "leaves": train(matrix(x, two), grow_policy="lossguide", max_leaves=9, max_depth=0, **binary),
        "pruned": train(matrix(x, real, None), tree_method="exact", gamma=8, max_depth=5),
        "approx": train(matrix(x, real), tree_method="approx", gamma=0.5),
        "dart": train(matrix(x, real), booster="dart", rate_drop=0.5),
        "frame": train(xgb.DMatrix(frame, real, enable_categorical=True)),
        "no rounds": train(matrix(x, real), 0),
        "constant": train(matrix(x, 0 * real)),
        "one class": train(matrix(x, 0 * two), **binary),
        "named": train(matrix(x, real, feature_names=["width", "höhe", "a b", "c"])),
        "poisson": train(matrix(x, five), objective="count:poisson"),
        "absolute": train(matrix(x, real), objective="reg:absoluteerror"),
        "estimator": xgb.XGBClassifier(n_estimators=3, nthread=1, max_depth=3).fit(x, five).get_booster(),
    }
    made["sliced forest"] = made["forest of classes"][1:5:2]
    valid = [(matrix(x, 1 - two), "valid")]
    made["stopped"] = xgb.train(
        {"nthread": 1, **binary}, matrix(x, two), 40, evals=valid, early_stopping_rounds=3, verbose_eval=False
    )
    made["sliced"] = made["stopped"][: made["stopped"].best_iteration + 1]
    with xgb.config_context(verbosity=0):
        prune = {"process_type": "update", "updater": "prune", "gamma": 5, "nthread": 1, "max_depth": 1}
        grown = train(matrix(x, real), 2, max_cat_to_onehot=1, max_depth=4)
        made["pruned categories"] = xgb.train(prune, matrix(x, real), 2, xgb_model=grown)
    return made


@pytest.fixture(scope="module")
def boosters():
    return train_all()


@pytest.fixture(scope="module")
def models(boosters):
    """The bytes of each kind."""
    return {kind: bytes(booster.save_raw("ubj")) for kind, booster in boosters.items()}


def check(data, kind="classes", columns=COLUMNS):
    return check_trees(data, "trees.ubj", features=3 if kind == "frame" else columns, outputs=KINDS[kind])


def refused(data, match, kind="classes"):
    with pytest.raises(BundleError, match=match) as caught:
        check(data, kind)
    text = str(caught.value)
    assert text.startswith("trees.ubj")
    assert "\n" not in text
    assert len(text) < 400


def tampered(raw, edit):
    """The model with its content changed by a function and written again, as a careful forger would."""
    content = decode(raw, "trees.ubj")
    edit(content)
    return encode(content)


def model_of(content):
    booster = content["learner"]["gradient_booster"]
    return booster.get("gbtree", booster)["model"]


# ------------------------------------------------------------------ genuine models


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_genuine_model_is_taken_and_counted(boosters, models, kind):
    found, booster = check(models[kind], kind), boosters[kind]
    dumps = booster.get_dump()
    nodes = [line for dump in dumps for line in dump.splitlines()]
    gone = sum(int(tree["tree_param"]["num_deleted"]) for tree in model_of(decode(models[kind], "x"))["trees"])
    assert found.rounds == booster.num_boosted_rounds()
    assert found.trees == len(dumps)
    assert found.nodes == len(nodes) + gone
    assert found.depth == max((len(line) - len(line.lstrip("\t")) for line in nodes), default=0)
    assert (gone > 0) == kind.startswith("pruned")


@pytest.mark.parametrize("objective", [o for o in trees.OBJECTIVES if not o.startswith(("multi", "reg:quantile"))])
def test_every_listed_objective_is_taken(objective):
    x = np.random.default_rng(0).normal(size=(50, 2))
    y = (x[:, 0] > 0) + float(objective == "reg:gamma")
    booster = xgb.train({"nthread": 1, "objective": objective}, xgb.DMatrix(x, y), 2)
    found = check_trees(bytes(booster.save_raw("ubj")), "x.ubj", features=2, outputs=1)
    assert (found.objective, found.rounds) == (objective, 2)


def test_a_model_of_other_columns_or_outputs_is_refused(models):
    with pytest.raises(BundleError, match=r"learner_model_param\.num_feature is 4, must be 5"):
        check(models["binary"], "binary", 5)
    for outputs in (1, 4):
        with pytest.raises(BundleError, match=rf"num_class is 5, must be {outputs}$"):
            check_trees(models["classes"], "trees.ubj", features=4, outputs=outputs)
    with pytest.raises(BundleError, match="quantile_alpha has 3 numbers, must have 1"):
        check_trees(models["quantiles"], "trees.ubj", features=4, outputs=1)
    with pytest.raises(BundleError, match="num_target is 2, must be 1"):
        check_trees(models["targets"], "trees.ubj", features=4, outputs=1)


@pytest.mark.parametrize(
    ("more", "outputs", "match"),
    [
        ({"booster": "gblinear"}, 1, "gradient_booster is 'gblinear', must be gbtree or dart: train with booster='gbtree'"),
        ({"objective": "rank:ndcg"}, 1, "objective is 'rank:ndcg', must be one of binary:hinge, "),
        (
            {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
            2,
            "tree 0 has several numbers in a leaf: train with multi_strategy='one_output_per_tree'",
        ),
    ],
)  # fmt: skip
def test_a_genuine_model_of_another_kind_is_refused_with_a_remedy(more, outputs, match):
    x = np.random.default_rng(0).normal(size=(50, COLUMNS))
    groups = np.arange(50) // 10 if "objective" in more else None
    data = xgb.DMatrix(x, x[:, :outputs] > 0, qid=groups)
    with xgb.config_context(verbosity=0):
        raw = bytes(xgb.train({"nthread": 1, **more}, data, 2).save_raw("ubj"))
    with pytest.raises(BundleError, match=match):
        check_trees(raw, "trees.ubj", features=COLUMNS, outputs=outputs)


def test_json_and_the_old_binary_form_are_refused(boosters):
    refused(bytes(boosters["classes"].save_raw("json")), "not readable UBJSON: byte 1")
    refused(b"binf" + b"\0" * 100, "not readable UBJSON: byte 0")


def test_another_form_of_the_same_content_is_refused(models):
    raw = models["classes"]
    key = b"L" + (7).to_bytes(8, "big") + b"learner"
    assert raw.startswith(b"{" + key)
    refused(b"{i\x07learner" + raw[1 + len(key) :], "byte 1: XGBoost does not write this form of UBJSON")
    refused(b"N" + raw, "byte 0: XGBoost does not write")
    refused(raw[:-1] + b"N}", "byte \\d+: XGBoost does not write")


# ------------------------------------------------------------------ one thing changed in a tree
# Tree 2 of "classes" is changed. Its root splits, its node 1 too; node 3 and the last node are leaves.

TREE = 2


def put(field, at, value):
    """Sets one element of one array of the tree; ``at`` may be a function of the tree."""

    def edit(tree):
        tree[field] = tree[field].copy()
        tree[field][at(tree) if callable(at) else at] = value(tree) if callable(value) else value

    return edit


def replace(field, make):
    def edit(tree):
        tree[field] = make(tree[field])

    return edit


def param(field, value):
    def edit(tree):
        tree["tree_param"][field] = value

    return edit


def several(*edits):
    def edit(tree):
        for one in edits:
            one(tree)

    return edit


def detach_a_cycle(tree):
    """Makes node 1 a leaf, and its former children parents of each other."""
    left, right = tree["left_children"].copy(), tree["right_children"].copy()
    a, b = int(left[1]), int(right[1])
    left[1] = right[1] = -1
    left[a], right[a] = b, int(tree["left_children"].size - 1)
    left[b], right[b] = a, int(tree["left_children"].size - 2)
    tree["left_children"], tree["right_children"] = left, right


def cycle_apart(tree):
    """Six more nodes, two of them each other's parent, that hang from nothing else."""
    n = tree["left_children"].size
    for field, more in {
        "left_children": [n + 1, n, -1, -1],
        "right_children": [n + 2, n + 3, -1, -1],
        "parents": [n + 1, n, n, n + 1],
        **{field: [0] * 4 for field in trees.NODE_ARRAYS if not field.endswith(("children", "parents"))},
    }.items():
        tree[field] = np.concatenate([tree[field], np.array(more, tree[field].dtype)])
    tree["tree_param"]["num_nodes"] = str(n + 4)


def cut_off(tree):
    """Makes node 1 a leaf and leaves its subtree where it is."""
    put("left_children", 1, -1)(tree)
    put("right_children", 1, -1)(tree)


def first_category(tree):
    return int(tree["categories_nodes"][0])


def last(tree):
    return tree["left_children"].size - 1


HUGE = 2147483647
NODES = {
    "left child out of range": (put("left_children", 1, 10**6), "node 1: left_children is 1000000, must be -1 or lie"),
    "right child out of range": (put("right_children", 0, HUGE), "node 0: right_children is 2147483647, must be -1"),
    "child one past the end": (put("left_children", 0, lambda t: last(t) + 1), "node 0: left_children is"),
    "negative child": (put("left_children", 1, -2), "node 1: left_children is -2, must be -1 or lie in"),
    "most negative child": (put("right_children", 1, -HUGE - 1), "node 1: right_children is -2147483648, must be"),
    "root as a child": (put("right_children", 1, 0), "node 1: right_children is 0, must be -1 or lie in"),
    "self-loop": (put("left_children", 1, 1), "node 1: left_children names the node itself"),
    "self-loop of the root": (put("right_children", 0, 0), "node 0: right_children names the node itself"),
    "self-loop of a leaf": (put("left_children", last, last), "left_children names the node itself"),
    "cycle to an ancestor": (
        several(put("left_children", 3, 1), put("right_children", 3, last)),
        "node 1: is a child of more than one: nodes 0 and 3",
    ),
    "cycle apart": (cycle_apart, r"node \d+: is not reached from the root: it lies on or below a cycle"),
    "cycle made of a subtree": (detach_a_cycle, r"node \d+: "),
    "shared child": (
        put("left_children", 2, lambda t: t["left_children"][1]),
        r"node \d+: is a child of more than one",
    ),
    "both children alike": (
        put("left_children", 0, lambda t: t["right_children"][0]),
        "node 2: is a child of more than one: nodes 0 and 0",
    ),
    "unreachable subtree": (cut_off, "is not reached from the root: no node has it as a child"),
    "half a leaf": (put("left_children", 1, -1), r"node 1: children are -1 and \d+: a leaf has -1 and -1"),
    "parent out of range": (put("parents", 1, 10**6), "node 1: parents is 1000000, must be 0"),
    "wrong parent": (put("parents", 1, 2), "node 1: parents is 2, must be 0"),
    "no parent": (put("parents", 1, -1), "node 1: parents is -1, must be 0"),
    "root with a parent": (put("parents", 0, 1), "node 0: parents is 1, must be -1"),
    "feature out of range": (put("split_indices", 0, 4), r"node 0: split_indices is 4, must lie in \[0, 4\)"),
    "negative feature": (put("split_indices", 1, -1), "node 1: split_indices is -1, must lie in"),
    "feature of a leaf out of range": (put("split_indices", last, 99), "split_indices is 99, must lie in"),
    "split type 2": (put("split_type", 0, 2), "node 0: split_type is 2, must be 0 or 1"),
    "direction 7": (put("default_left", 1, 7), "node 1: default_left is 7, must be 0 or 1"),
    "threshold not a number": (put("split_conditions", 1, np.nan), "node 1: split_conditions is nan, must be finite"),
    "infinite leaf": (put("split_conditions", last, np.inf), "split_conditions is inf, must be finite"),
    "weight not a number": (put("base_weights", 0, np.nan), "node 0: base_weights is nan, must be finite"),
    "infinite hessian": (put("sum_hessian", 0, -np.inf), "node 0: sum_hessian is -inf, must be finite"),
    "hidden node": (
        several(put("split_indices", last, HUGE), put("default_left", last, 1)),
        r"is marked as deleted, but is a child of node \d+",
    ),
    "deleted root": (
        several(put("split_indices", 0, HUGE), put("default_left", 0, 1)),
        "node 0: a root or a node with children is marked as deleted",
    ),
    "category on a number": (
        several(put("split_indices", first_category, 1)),
        r"node \d+: split_type is 1, in feature_types its column 1 is 'q'",
    ),
    "unlisted categorical node": (
        put("split_type", last, 1),
        r"categories_nodes has \d+ values, must have \d+",
    ),
    "listed node without the type": (put("split_type", first_category, 0), "split_type is 0, in feature_types"),
    "another categorical node": (
        put("categories_nodes", 0, last),
        r"node \d+: split_type is 1, categories_nodes has \d+ in its place",
    ),
    "categorical node out of range": (put("categories_nodes", 0, -5), "categories_nodes has -5 in its place"),
    "segment beyond the end": (
        put("categories_segments", 0, 1 << 40),
        "categories_segments is 1099511627776, must be 0",
    ),
    "negative segment": (put("categories_segments", 0, -1), "categories_segments is -1, must be 0"),
    "size beyond the end": (
        put("categories_sizes", 0, 1 << 62),
        "categories_sizes is 4611686018427387904, must lie in",
    ),
    "negative size": (put("categories_sizes", 0, -1), "categories_sizes is -1, must lie in"),
    "size zero": (put("categories_sizes", 0, 0), "categories_sizes is 0, must lie in"),
    "sizes short of the categories": (
        replace("categories", lambda c: np.concatenate([c, c[:1]])),
        r"categories has \d+ values, categories_sizes add up to \d+",
    ),
    "negative category": (put("categories", 0, -1), "categories holds -1, must not be negative"),
    "huge category": (put("categories", 0, HUGE), "categories holds 2147483647, must be below 16777216"),
    "category at the bound": (put("categories", 0, 1 << 24), "categories holds 16777216, must be below 16777216"),
    "no nodes": (param("num_nodes", "0"), "num_nodes is 0, must be 1 to 2147483647"),
    "more nodes than there are": (param("num_nodes", "1000000"), r"left_children has \d+ values, must have 1000000"),
    "nodes as a number": (param("num_nodes", 5), "num_nodes must be a whole number as text, got 5"),
    "nodes with a sign": (param("num_nodes", "+5"), "num_nodes must be a whole number as text"),
    "negative nodes": (param("num_nodes", "-1"), "num_nodes must be a whole number as text, got '-1'"),
    "deleted nodes": (param("num_deleted", "1"), "num_deleted is 1, 0 nodes are marked"),
    "features of the tree": (param("num_feature", "400"), "num_feature is 400, must be 4"),
    "leaf vector": (param("size_leaf_vector", "3"), "size_leaf_vector is 3, must be 1"),
    "unknown parameter": (param("num_roots", "2"), "tree_param has the unknown field 'num_roots'"),
    "another id": (replace("id", lambda _: 0), "id is 0, must be 2"),
    "huge id": (replace("id", lambda _: 10**9), "id is 1000000000, must be 2"),
    "id as a text": (replace("id", lambda _: "2"), "id is '2', must be 2"),
    "unknown field": (lambda t: t.update(more=1), "has the unknown field 'more'"),
}


@pytest.mark.parametrize("what", list(NODES))
def test_one_change_in_a_tree_is_refused_with_the_tree_and_the_place(models, what):
    edit, match = NODES[what]
    data = tampered(models["classes"], lambda content: edit(model_of(content)["trees"][TREE]))
    refused(data, f"^trees\\.ubj: tree {TREE}[,:]? .*{match}")


def test_a_self_loop_is_refused(models):
    edit = put("left_children", 1, 1)
    data = tampered(models["binary"], lambda content: edit(model_of(content)["trees"][5]))
    refused(data, r"^trees\.ubj: tree 5, node 1: left_children names the node itself$", "binary")


@pytest.mark.parametrize("field", [*trees.NODE_ARRAYS, "categories_nodes", "categories_segments", "categories_sizes"])
def test_an_array_of_another_length_type_or_absent_is_refused(models, field):
    def changed(edit):
        return tampered(models["classes"], lambda content: edit(model_of(content)["trees"][TREE]))

    for make in (lambda a: a[:-1], lambda a: np.concatenate([a, a[:1]]), lambda a: a[:0]):
        refused(changed(replace(field, make)), rf"tree {TREE}: {field} has \d+ values, must have \d+")
    other = {"float32": np.int32, "int32": np.int64, "int64": np.int32, "uint8": np.int8}
    refused(
        changed(replace(field, lambda a: a.astype(other[str(a.dtype)]))), rf"tree {TREE}: {field} must be an array of"
    )
    refused(changed(replace(field, lambda a: a.tolist())), rf"tree {TREE}: {field} must be an array of \w+, got list")
    refused(changed(lambda tree: tree.pop(field)), rf"tree {TREE} lacks {field}")


def test_pruned_nodes_must_stay_marked_and_in_the_tree(models):
    def changed(edit):
        return tampered(models["pruned"], lambda content: edit(model_of(content)["trees"][0]))

    def gone(tree):
        return int(np.flatnonzero(tree["split_indices"] == HUGE)[-1])

    refused(changed(put("split_indices", gone, 0)), "is not reached from the root: no node has it", "pruned")
    refused(changed(put("default_left", gone, 0)), "is not reached from the root: no node has it", "pruned")
    refused(changed(put("parents", gone, HUGE)), "parents is 2147483647, must be in the tree", "pruned")
    refused(changed(put("parents", gone, -1)), "parents is -1, must be in the tree", "pruned")
    refused(changed(put("left_children", gone, 1)), r"node \d+: ", "pruned")
    check(changed(put("split_conditions", gone, np.nan)), "pruned")


def chain(depth):
    """A tree in which each left child splits again."""
    size = 2 * depth + 1
    left, right, parents = np.full((3, size), -1, np.int32)
    left[0:-1:2] = np.arange(1, size, 2)
    right[0:-1:2] = np.arange(2, size, 2)
    parents[1::2] = parents[2::2] = np.arange(0, size - 1, 2)
    return left, right, parents


@pytest.mark.parametrize("depth", [1, 1024, 1025, 50_000])
def test_the_depth_is_bounded(models, depth):
    def edit(content):
        tree = model_of(content)["trees"][1]
        arrays = dict(zip(("left_children", "right_children", "parents"), chain(depth), strict=True))
        for field, dtype in trees.NODE_ARRAYS.items():
            tree[field] = arrays.get(field, np.zeros(2 * depth + 1, dtype))
        tree["split_indices"] += 1
        for field, dtype in trees.CATEGORY_ARRAYS.items():
            tree[field] = np.zeros(0, dtype)
        tree["tree_param"]["num_nodes"] = str(2 * depth + 1)

    data = tampered(models["regression"], edit)
    if depth > trees.MAX_TREE_DEPTH:
        refused(data, "tree 1 is deeper than 1024 levels", "regression")
    else:
        assert check(data, "regression").depth == max(depth, check(models["regression"], "regression").depth)


def test_the_memory_of_all_categories_is_bounded(models, monkeypatch):
    data = tampered(models["classes"], lambda c: put("categories", 0, (1 << 24) - 1)(model_of(c)["trees"][TREE]))
    check(data)
    monkeypatch.setattr(trees, "MAX_BITSET_BYTES", 1 << 20)
    refused(data, r"the categories need \d+ bytes of bit sets, more than 1048576")
    check(models["classes"])


# ------------------------------------------------------------------ one thing changed outside the trees


def at(path, value):
    """Sets what lies at a dotted path; ``...`` takes it away."""

    def edit(content):
        *outer, inner = (int(part) if part.isdigit() else part for part in path.split("/"))
        for part in outer:
            content = content[part]
        if value is ...:
            del content[inner]
        else:
            content[inner] = value(content[inner]) if callable(value) else value

    return edit


LEARNER = "learner/learner_model_param"
MODEL = "learner/gradient_booster/model"
DART = "learner/gradient_booster/gbtree/model"
CATS = f"{MODEL}/cats"
FILE = {
    "no learner": ("classes", at("learner", ...), "the file lacks learner"),
    "more at the top": ("classes", at("Config", {}), "the file has the unknown field 'Config'"),
    "no version": ("classes", at("version", ...), "the file lacks version"),
    "old version": ("classes", at("version", [1, 7, 6]), r"version is \[1, 7, 6\], must be from 3\.2"),
    "next version": ("classes", at("version", [4, 0, 0]), r"version is \[4, 0, 0\], must be from 3\.2"),
    "short version": ("classes", at("version", [3]), r"version is \[3\]"),
    "version of texts": ("classes", at("version", ["3", "2", "0"]), "version must be a list of whole numbers"),
    "learner is a list": ("classes", at("learner", []), "learner must be an object, got list"),
    "no objective": ("classes", at("learner/objective", ...), "learner lacks objective"),
    "unknown objective": ("classes", at("learner/objective/name", "multi:x"), "objective is 'multi:x', must be one of"),
    "objective as a list": ("classes", at("learner/objective", []), "objective is None, must be one of"),
    "no classes": (
        "classes",
        at("learner/objective/softmax_multiclass_param/num_class", "0"),
        r"objective\.softmax_multiclass_param\.num_class is 0, must be 5",
    ),
    "quantiles above 1": (
        "quantiles",
        at("learner/objective/quantile_loss_param/quantile_alpha", "[1E-1,5E-1,9E0]"),
        r"quantile_alpha is '\[1E-1,5E-1,9E0\]', must lie in \[0, 1\]",
    ),
    "fewer quantiles": (
        "quantiles",
        at("learner/objective/quantile_loss_param/quantile_alpha", "[1E-1,5E-1]"),
        "quantile_alpha has 2 numbers, must have 3",
    ),
    "negative weight": (
        "binary",
        at("learner/objective/reg_loss_param/scale_pos_weight", "-1"),
        "scale_pos_weight is '-1', must lie in",
    ),
    "more features": ("classes", at(f"{LEARNER}/num_feature", "4000000000"), "num_feature is 4000000000, must be 4"),
    "features as a number": ("classes", at(f"{LEARNER}/num_feature", 4), "num_feature must be a whole number as text"),
    "more classes": ("classes", at(f"{LEARNER}/num_class", "500"), "num_class is 500, must be 5"),
    "classes in a regression": ("regression", at(f"{LEARNER}/num_class", "3"), "num_class is 3, must be 0"),
    "more targets": ("regression", at(f"{LEARNER}/num_target", "7"), "num_target is 7, must be 1"),
    "score not a number": ("binary", at(f"{LEARNER}/base_score", "[nan]"), "base_score must hold finite numbers as text"),
    "score infinite": ("binary", at(f"{LEARNER}/base_score", "[1E39]"), "base_score must hold finite numbers as text"),
    "score empty": ("binary", at(f"{LEARNER}/base_score", ""), "base_score must hold finite numbers as text, got ''"),
    "score as a number": ("binary", at(f"{LEARNER}/base_score", 0.5), "base_score must hold finite numbers as text"),
    "score not a probability": ("binary", at(f"{LEARNER}/base_score", "[1.5E0]"), r"must lie in \[0, 1\]"),
    "too many scores": ("binary", at(f"{LEARNER}/base_score", "[1E-1,1E-1]"), "base_score has 2 numbers, must have 1"),
    "average 2": ("binary", at(f"{LEARNER}/boost_from_average", "2"), "boost_from_average is 2, must be 0 to 1"),
    "attributes of numbers": ("stopped", at("learner/attributes/best_iteration", 3), "attributes must be a list of texts"),
    "attributes as a list": ("classes", at("learner/attributes", []), "attributes must be an object, got list"),
    "fewer names": ("named", at("learner/feature_names", lambda n: n[:-1]), "feature_names has 3 entries, must have 4"),
    "names of numbers": ("named", at("learner/feature_names", [1, 2, 3, 4]), "feature_names must be a list of texts"),
    "a name twice": ("named", at("learner/feature_names/3", "width"), r"feature_names\[3\] is 'width', must be unique"),
    "fewer types": ("classes", at("learner/feature_types", ["c"]), "feature_types has 1 entries, must have 4 or none"),
    "no types": ("classes", at("learner/feature_types", []), "split_type is 1, in feature_types its column 0 is 'q'"),
    "unknown type": ("classes", at("learner/feature_types/1", "x"), r"feature_types\[1\] is 'x', must be one of float"),
    "linear": ("classes", at("learner/gradient_booster/name", "gblinear"), "gradient_booster is 'gblinear', must be gbtree"),
    "booster as a list": ("classes", at("learner/gradient_booster", []), "gradient_booster is None"),
    "weights in no dart": (
        "classes",
        at("learner/gradient_booster/weight_drop", []),
        "gradient_booster has the unknown field 'weight_drop'",
    ),
    "fewer weights": (
        "dart",
        at("learner/gradient_booster/weight_drop", lambda w: w[:-1]),
        "weight_drop has 3 numbers, must have 4, one for each tree",
    ),
    "weights not numbers": (
        "dart",
        at("learner/gradient_booster/weight_drop/1", float("nan")),
        "weight_drop must hold finite numbers only",
    ),
    "weights of texts": ("dart", at("learner/gradient_booster/weight_drop/1", "1"), "weight_drop must be a list of numbers"),
    "dart in dart": ("dart", at("learner/gradient_booster/gbtree/name", "dart"), r"gbtree\.name is 'dart', must be"),
    "tree of dart": ("dart", at(f"{DART}/trees/3/left_children", lambda a: a * 1000), "tree 3, node 0: left_children"),
    "more trees": ("classes", at(f"{MODEL}/gbtree_model_param/num_trees", "1000000"), "num_trees is 1000000, must be 20"),
    "a tree less": ("classes", at(f"{MODEL}/trees", lambda t: t[:-1]), "num_trees is 20, must be 19"),
    "trees as an object": ("classes", at(f"{MODEL}/trees", {}), "trees must be a list, got dict"),
    "a tree as a list": ("classes", at(f"{MODEL}/trees/3", []), "tree 3 must be an object, got list"),
    "parallel trees": ("classes", at(f"{MODEL}/gbtree_model_param/num_parallel_tree", "0"), "is 0, must be 1 to 20"),
    "other parallel trees": (
        "forest",
        at(f"{MODEL}/gbtree_model_param/num_parallel_tree", "3"),
        "iteration_indptr must count from 0 to 8 by 3",
    ),
    "output out of range": (
        "classes",
        at(f"{MODEL}/tree_info/7", 5),
        r"tree_info\[7\] \(the output of tree 7\) is 5, must lie in \[0, 5\)",
    ),
    "negative output": ("classes", at(f"{MODEL}/tree_info/7", -1), r"tree_info\[7\] .* is -1"),
    "huge output": ("binary", at(f"{MODEL}/tree_info/0", 1 << 40), r"tree_info\[0\] .* is 1099511627776"),
    "fewer outputs": ("classes", at(f"{MODEL}/tree_info", lambda i: i[1:]), "tree_info has 19 entries, must have 20"),
    "outputs of texts": ("classes", at(f"{MODEL}/tree_info/0", "0"), "tree_info must be a list of whole numbers"),
    "rounds beyond the trees": (
        "classes",
        at(f"{MODEL}/iteration_indptr/4", 1000),
        "iteration_indptr must count from 0 to 20 by 5",
    ),
    "rounds that fall": ("classes", at(f"{MODEL}/iteration_indptr", [0, 10, 5, 15, 20]), "iteration_indptr must count"),
    "no rounds": ("classes", at(f"{MODEL}/iteration_indptr", []), r"iteration_indptr must count from 0 to 20 by 5, got \[\]"),
    "no categories of a frame": ("classes", at(CATS, ...), r"gradient_booster\.model lacks cats"),
    "fewer columns of a frame": ("frame", at(f"{CATS}/enc", lambda e: e[:-1]), "cats.enc must be a list of 3 columns"),
    "segments of a frame": (
        "frame",
        at(f"{CATS}/feature_segments", lambda s: s + np.int32(1)),
        "cats.feature_segments must count",
    ),
    "more segments": (
        "frame",
        at(f"{CATS}/feature_segments", lambda s: np.append(s, s[-1:])),
        "cats.feature_segments must count",
    ),
    "order out of range": (
        "frame",
        at(f"{CATS}/sorted_idx", lambda o: o * np.int32(1000)),
        "cats.sorted_idx of column 0 must hold each of 0 to 2 once",
    ),
    "shorter order": ("frame", at(f"{CATS}/sorted_idx", lambda o: o[:-1]), "cats.sorted_idx has 5 values, must have 6"),
    "offsets beyond the text": (
        "frame",
        at(f"{CATS}/enc/0/offsets", lambda o: o * np.int32(100)),
        r"cats\.enc\[0\]\.offsets must rise from 0 to",
    ),
    "offsets that fall": (
        "frame",
        at(f"{CATS}/enc/0/offsets", lambda o: o[[0, 2, 1, 3]]),
        r"cats\.enc\[0\]\.offsets must rise from 0 to",
    ),
    "text without offsets": ("frame", at(f"{CATS}/enc/0/offsets", ...), r"cats\.enc\[0\] lacks type"),
    "another type of categories": ("frame", at(f"{CATS}/enc/2/type", 9), r"cats\.enc\[2\]\.values must be an array of int8"),
    "unknown type of categories": ("frame", at(f"{CATS}/enc/2/type", 77), r"cats\.enc\[2\]\.type is 77, must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(FILE))
def test_one_change_outside_the_trees_is_refused_with_the_field(models, what):
    kind, edit, match = FILE[what]
    refused(tampered(models[kind], edit), match, kind)


# ------------------------------------------------------------------ what passes does not end the process

USE = """
import sys
import warnings
from pathlib import Path

import numpy as np
import xgboost as xgb

warnings.simplefilter("ignore")
xgb.set_config(verbosity=0)
for file in sys.argv[1:]:
    print(file, flush=True)
    try:
        booster = xgb.Booster({"nthread": 1}, model_file=bytearray(Path(file).read_bytes()))
        x = np.random.default_rng(0).normal(size=(40, booster.num_features())).astype(np.float32)
        x[:, 0] = np.arange(40) % 15
        x[::7] = np.nan
        names, types = booster.feature_names, booster.feature_types
        data = xgb.DMatrix(x, feature_names=names, feature_types=types, enable_categorical=True)
        booster.predict(data)
        booster.predict(data, pred_leaf=True)
        booster.predict(data, pred_contribs=True)
        booster.get_dump(with_stats=True)
        booster.save_raw("ubj")
        booster[:1].predict(data)
    except (xgb.core.XGBoostError, ValueError, IndexError):
        continue
print("whole")
"""


def survives(files, folder):
    """Uses each file in another process, which must live to its end."""
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.ubj")
        paths[-1].write_bytes(data)
    run = subprocess.run([sys.executable, "-c", USE, *map(str, paths)], capture_output=True, text=True, timeout=300)
    said = run.stdout.split()
    assert run.returncode == 0, f"ended with {run.returncode} in {said[-1:]}: {run.stderr[-500:]}"
    assert said[-1] == "whole"


def passing(changed, kind):
    """Those of the files that the check takes; any error but a BundleError of one sentence ends the test."""
    taken = []
    for data in changed:
        try:
            check(data, kind)
        except BundleError as error:
            text = str(error)
        else:
            taken.append(data)
            continue
        assert "\n" not in text
        assert len(text) < 400
    return taken


def flips(raw, count, draw):
    for _ in range(count):
        data = bytearray(raw)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        yield bytes(data)


def edits(raw, count, draw):
    """Copies with one or two elements of an array of one tree set to a value that is bad in some place."""
    whole = [-(2**31), -2, -1, 0, 1, 2, 3, 5, 8, 13, 2**24 - 1, 2**24, 2**31 - 1]
    real = [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e38, -1e38, 1e-45, 5.0]

    def change(content):
        tree = draw.choice(model_of(content)["trees"])
        for _ in range(draw.randint(1, 2)):
            field = draw.choice([name for name, value in tree.items() if isinstance(value, np.ndarray) and value.size])
            tree[field] = tree[field].copy()
            known = (
                [draw.choice(real)] if tree[field].dtype.kind == "f" else [draw.choice(whole), *tree[field].tolist()]
            )
            value = draw.choice([known[0], draw.choice(known)])
            tree[field][draw.randrange(tree[field].size)] = value % 256 if tree[field].dtype == np.uint8 else value

    for _ in range(count):
        yield tampered(raw, change)


def test_a_flipped_bit_or_a_changed_number_is_refused_or_harmless(models, tmp_path):
    flipped = passing(flips(models["sliced"], 300, random.Random(0)), "sliced")
    changed = passing(edits(models["classes"], 100, random.Random(1)), "classes")
    assert len(flipped) < 150
    assert len(changed) < 50
    survives([models["sliced"], models["classes"], *flipped, *changed], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_many_changes_of_each_kind_are_refused_or_harmless(models, kind, tmp_path):
    draw = random.Random(kind)
    taken = passing(flips(models[kind], 100, draw), kind)
    if kind != "no rounds":
        taken += passing(edits(models[kind], 100, draw), kind)
    survives(taken, tmp_path)
