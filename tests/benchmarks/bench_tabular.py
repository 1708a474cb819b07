"""Tables: the ensemble beside untuned boosters and AutoGluon, each run in a process of its own, one after another.

    .venv/bin/python tests/benchmarks/bench_tabular.py --data TABLES --peer PEERS/bin/python --seeds 3 --out result.json

TABLES holds the nine tables of `SETS`. PEERS is an environment with catboost, lightgbm, xgboost, pandas and pyarrow;
--autogluon names the Python of one with autogluon.tabular, which then gets the seconds that the ensemble may take.
Adult and the clothing reviews have a test part of their own; of the others a fifth, drawn by the seed, is it. Peers are
at their defaults but for the threads, with categories as categories (texts are categories to them). Quality is measured
on the test part, which nothing is chosen by. A run goes on with what --out holds: it can be made in pieces. At the end,
or with --table at once, it prints what --out holds as the table of the documentation.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
RATINGS = tuple(f"ratings_{i}" for i in range(1, 6))
SETS = {
    "adult": ("adult/train.csv.gz", "adult/test.csv.gz", "income", ()),
    "california": ("california_housing.csv", None, "median_house_value", ()),
    "titanic": ("titanic.csv", None, "Survived", ()),
    "diamonds": ("diamonds.csv.gz", None, "price", ()),
    "penguins": ("penguins.csv", None, "species", ()),
    "wine": ("wine_quality.csv", None, "quality", ()),
    "bike": ("bike_sharing_hour.csv.gz", None, "cnt", ("casual", "registered")),
    "clothing": (
        "womens_clothing_reviews/train.parquet", "womens_clothing_reviews/test.parquet", "Recommended IND", ("Rating",),
    ),
    "goodbooks": ("goodbooks_books.csv.gz", None, "average_rating", RATINGS),
}  # fmt: skip
CLASSES = ("adult", "titanic", "penguins", "clothing")
PEERS = ("catboost", "lightgbm", "xgboost")


def read(folder: Path, name: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The training and the test rows of a table, and its target."""
    first, second, target, left_out = SETS[name]
    frames = [
        (pd.read_parquet if ".parquet" in file else pd.read_csv)(folder / file) for file in (first, second) if file
    ]
    frames = [f.drop(columns=list(left_out)).dropna(subset=[target]).reset_index(drop=True) for f in frames]
    if len(frames) == 1:
        held = np.random.default_rng(seed).random(len(frames[0])) < 0.2
        frames = [frames[0][~held].reset_index(drop=True), frames[0][held].reset_index(drop=True)]
    return frames[0], frames[1], target


def quality(name: str, truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Accuracy, log loss and AUC of probabilities, or the RMSE of numbers."""
    if name not in CLASSES:
        return {"rmse": float(np.sqrt(np.mean((said - truth) ** 2)))}
    from sklearn.metrics import log_loss, roc_auc_score

    found = {"accuracy": float((said.argmax(1) == truth).mean()), "log_loss": float(log_loss(truth, said))}
    return found | ({"auc": float(roc_auc_score(truth, said[:, 1]))} if said.shape[1] == 2 else {})


def ours(name: str, train: pd.DataFrame, test: pd.DataFrame, target: str, seed: int, options: dict) -> dict:
    """The ensemble, and each of its members alone."""
    import torch

    sys.path.insert(0, str(ROOT))
    from applications.tabular import TabularClassifier, TabularRegressor

    torch.set_num_threads(options["threads"])
    kind = TabularClassifier if name in CLASSES else TabularRegressor
    ignore = tuple(options.get("ignore", ()))
    more = {name: options[name] for name in ("members", "tune", "text_encoder") if options.get(name)}
    model = kind(budget_s=options["budget"], random_state=seed, verbose=True, ignore=ignore, **more)
    x, y = train.drop(columns=target), train[target]
    began = time.perf_counter()
    model.fit(x, y)
    fitted = time.perf_counter()
    rows = test.drop(columns=target)
    said = model.predict_proba(rows) if name in CLASSES else model.predict(rows)
    took = {"fit_s": fitted - began, "predict_s": time.perf_counter() - fitted}
    truth = test[target].to_numpy()
    truth = np.searchsorted(model.classes_, truth) if name in CLASSES else truth
    ensemble = model.predictor_.model
    block = model.predictor_.encoder.blocks[0]
    alone = {n: quality(name, truth, p) for n, p in ensemble.members(block.encode_many(rows)).items()}
    weights = {record["member"]: record.get("weight", 0.0) for record in ensemble.chosen.table}
    return {**quality(name, truth, said), **took, "alone": alone, "weights": weights}


def peer(which: str, name: str, train: pd.DataFrame, test: pd.DataFrame, target: str, seed: int, options: dict) -> dict:
    """An untuned booster, or AutoGluon's medium quality."""
    classes = name in CLASSES
    if which == "autogluon":
        return autogluon(name, train, test, target, options)
    y, truth = train.pop(target), test.pop(target)
    if classes:
        levels = {value: i for i, value in enumerate(sorted(y.unique()))}
        y, truth = y.map(levels), truth.map(levels)
    texts = [c for c in train if not pd.api.types.is_numeric_dtype(train[c])]
    for column in texts:
        known = sorted(train[column].dropna().astype(str).unique())
        for frame in (train, test):
            values = frame[column].astype(object)
            if which == "catboost":
                frame[column] = values.where(values.notna(), "missing").astype(str)
            else:
                frame[column] = pd.Categorical(values.where(values.isna(), values.astype(str)), categories=known)
    if which == "catboost":
        import catboost

        kind = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
        model = kind(cat_features=texts, thread_count=options["threads"], verbose=0, allow_writing_files=False,
                     random_seed=seed)  # fmt: skip
    elif which == "lightgbm":
        import lightgbm

        kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
        model = kind(n_jobs=options["threads"], verbose=-1, random_state=seed)
        for frame in (train, test):
            frame.columns = [f"c{i}" for i in range(frame.shape[1])]  # it takes no blanks or signs in names
    else:
        import xgboost

        kind = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
        model = kind(tree_method="hist", enable_categorical=True, n_jobs=options["threads"], random_state=seed)
    began = time.perf_counter()
    model.fit(train, y)
    fitted = time.perf_counter()
    said = model.predict_proba(test) if classes else model.predict(test)
    took = {"fit_s": fitted - began, "predict_s": time.perf_counter() - fitted}
    return {**quality(name, truth.to_numpy(), np.asarray(said)), **took}


def autogluon(name: str, train: pd.DataFrame, test: pd.DataFrame, target: str, options: dict) -> dict:
    """AutoGluon's medium quality for the same seconds."""
    from autogluon.tabular import TabularPredictor

    folder = tempfile.mkdtemp()
    kind = "regression" if name not in CLASSES else "binary" if train[target].nunique() == 2 else "multiclass"
    began = time.perf_counter()
    model = TabularPredictor(label=target, path=folder, verbosity=0, problem_type=kind).fit(
        train, presets="medium_quality", time_limit=options["budget"], num_cpus=options["threads"]
    )
    fitted = time.perf_counter()
    said = model.predict_proba(test) if name in CLASSES else model.predict(test)
    took = {"fit_s": fitted - began, "predict_s": time.perf_counter() - fitted}
    truth = test[target].to_numpy()
    if name in CLASSES:
        truth = np.searchsorted(np.array(sorted(said.columns)), truth)
        said = said[sorted(said.columns)]
    shutil.rmtree(folder, ignore_errors=True)
    return {**quality(name, truth, said.to_numpy()), **took}


def child(given: dict) -> None:
    """One run; prints its result on a line of its own."""
    train, test, target = read(Path(given["data"]), given["name"], given["seed"])
    run = ours if given["which"] == "ours" else partial(peer, given["which"])
    found = run(given["name"], train, test, target, given["seed"], given["options"])
    print("RESULT " + json.dumps({**found, "rows": len(train)}))


def main() -> None:
    """Runs all of it, the sides one after another for each table and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer", help="the Python of an environment with the boosters")
    parser.add_argument("--autogluon", help="the Python of an environment with autogluon.tabular")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=240.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--members", help="of the ensemble, separated by commas")
    parser.add_argument("--tune", type=int, default=0, help="settings of trees that the ensemble tries")
    parser.add_argument("--text-encoder", help="a folder with a transformer that reads the ensemble's texts")
    parser.add_argument("--ignore", help="columns that the ensemble does not see, separated by commas")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of what --out holds, and measure nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(json.loads(given.child))
        return
    if given.table:
        print(as_table(json.loads(given.out.read_text())["results"]))
        return
    sides = {"ours": sys.executable}
    sides |= dict.fromkeys(PEERS, given.peer) if given.peer else {}
    sides |= {"autogluon": given.autogluon} if given.autogluon else {}
    options = {"threads": given.threads, "budget": given.budget}
    options |= {"members": given.members.split(",")} if given.members else {}
    options |= {"tune": given.tune} if given.tune else {}
    options |= {"text_encoder": given.text_encoder} if given.text_encoder else {}
    options |= {"ignore": given.ignore.split(",")} if given.ignore else {}
    results: list[dict] = []
    if given.out and given.out.exists():
        before = json.loads(given.out.read_text())
        if before["options"] != options:
            parser.error(f"{given.out} was made with other options: {before['options']}")
        results = [result for result in before["results"] if "error" not in result]
    known = {(result["table"], result["seed"], result["side"]) for result in results}
    for name in given.sets.split(","):
        for seed in range(given.seeds):
            for which, python in sides.items():
                if (name, seed, which) in known:
                    continue
                task = {"which": which, "name": name, "seed": seed, "data": str(given.data), "options": options}
                done = subprocess.run(
                    [python, "-W", "ignore", __file__, "--child", json.dumps(task)], capture_output=True, text=True
                )
                line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
                found = json.loads(line[7:]) if line else {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
                results.append({"table": name, "seed": seed, "side": which, **found})
                print(json.dumps(results[-1]), flush=True)
                if given.out:
                    write(given.out, options, results)
    print(as_table(results))


SHOWN = dict.fromkeys(CLASSES, ("auc", "accuracy")) | {"penguins": ("log_loss", "accuracy")}
LOWER = ("rmse", "log_loss")  # is better


def as_table(results: list[dict]) -> str:
    """Returns the results as a table in Markdown: means over the seeds, the deviation behind ±, the best in bold."""
    sides = [side for side in ("ours", *PEERS, "autogluon") if any(result["side"] == side for result in results)]
    lines = ["| table | metric | " + " | ".join(sides) + " | best member | seconds of " + ", ".join(sides) + " |"]
    lines.append("| --- " * (len(sides) + 4) + "|")
    for name in SETS:
        rows = [r for r in results if r["table"] == name and "error" not in r]
        for metric in SHOWN.get(name, ("rmse",)) if rows else ():
            found = {side: [r[metric] for r in rows if r["side"] == side] for side in sides}
            means = {side: float(np.mean(values)) for side, values in found.items() if values}
            sign = 1 if metric in LOWER else -1
            first = min(means.values(), key=lambda value: sign * value)
            cells = []
            for side in sides:
                shown = f"{figure(means[side])} ± {figure(float(np.std(found[side])))}" if side in means else ""
                cells.append(f"**{shown}**" if means.get(side) == first else shown)
            alone: dict[str, list[float]] = {}
            for result in rows:
                for member, values in result.get("alone", {}).items():
                    alone.setdefault(member, []).append(values[metric])
            whole = {member: float(np.mean(v)) for member, v in alone.items() if len(v) == len(found["ours"])}
            member = min(whole, key=lambda name: sign * whole[name]) if whole else ""
            best = f"{member} {figure(whole[member])}" if member else ""
            times = [float(np.mean([r["fit_s"] for r in rows if r["side"] == s])) if found[s] else 0.0 for s in sides]
            seconds = ", ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in times)
            lines.append(f"| {name} | {metric} | " + " | ".join(cells) + f" | {best} | {seconds} |")
    return "\n".join(lines)


def figure(value: float) -> str:
    """A number with as many decimals as tell something."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.4f}"


def write(out: Path, options: dict, results: list[dict]) -> None:
    """Writes what is known so far."""
    machine = {"python": platform.python_version(), "processor": platform.machine(), "cores": os.cpu_count()}
    out.write_text(json.dumps({"what": "tables", "options": options, "machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
