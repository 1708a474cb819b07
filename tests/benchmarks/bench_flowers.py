"""Fine-tuning a pretrained MobileNetV2 on a folder of photos: fastai's `fine_tune(4)` beside our recipe.

Each side runs in a process and an environment of its own, in turn, once a seed; both split the validation images from
the training folder and are judged once on the test folder. Wall seconds are those of the training call with its
validation (imports and the reading of weights not counted), and of the whole process.

    .venv/bin/python tests/benchmarks/bench_flowers.py --data FLOWERS --peer PEERS/bin/python --out result.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FASTAI = r"""
import json, sys, time, warnings
start = time.time()
warnings.filterwarnings("ignore")
data, seed, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from fastai.vision.all import *
from torchvision.models import mobilenet_v2
import fastai, torch, torchvision
from fastai.vision.learner import default_split, model_meta
model_meta[mobilenet_v2] = {"cut": -1, "split": default_split, "stats": imagenet_stats}  # fastai's table lacks it
set_seed(seed, reproducible=True)
dls = ImageDataLoaders.from_folder(Path(data) / "train", valid_pct=0.2, seed=seed, item_tfms=Resize(224),
                                   batch_tfms=aug_transforms(), num_workers=workers)
learn = vision_learner(dls, mobilenet_v2, weights="IMAGENET1K_V1", metrics=accuracy)
with learn.no_bar(), learn.no_logging():
    begin = time.time()
    learn.fine_tune(4)
    trained = time.time() - begin
    test = learn.dls.test_dl(get_image_files(Path(data) / "test"), with_labels=True)
    loss, acc = learn.validate(dl=test)
    valid = learn.validate()[1]
print(json.dumps({"accuracy": acc, "valid_accuracy": valid, "train_s": trained, "process_s": time.time() - start,
                  "versions": {"fastai": fastai.__version__, "torch": torch.__version__}}))
"""

OURS = r"""
import json, sys, time
start = time.time()
data, seed, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
from pathlib import Path
from recipes.classification import Options, run
metrics = run(Options(data=data, arch="mobilenet_v2", pretrained=True, out=out, seed=seed))
events = [json.loads(line) for line in (Path(out) / "events.jsonl").read_text().splitlines()]
begin = next(e["time"] for e in events if e["event"] == "start")
end = [e["time"] for e in events if e["event"] == "fit_end"][-1]
valid = [e["accuracy"] for e in events if e["event"] == "epoch"][-1]
import torch
print(json.dumps({"accuracy": metrics["accuracy"], "valid_accuracy": valid, "train_s": end - begin,
                  "process_s": time.time() - start, "versions": {"torch": torch.__version__}}))
"""


def measure(python: str, code: str, arguments: list[str]) -> dict:
    """Runs one side in its own process and returns what it printed last."""
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, env=os.environ)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measures both sides in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with train/ and test/")
    parser.add_argument("--peer", required=True, help="the Python that has fastai")
    parser.add_argument("--workers", default="2", help="fastai's loader processes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    sides: dict[str, list[dict]] = {"fastai": [], "ours": []}
    data = str(Path(given.data).resolve())
    for seed in range(given.seeds):
        sides["fastai"].append(measure(given.peer, FASTAI, [data, str(seed), given.workers]))
        print("fastai", seed, sides["fastai"][-1], flush=True)
        with tempfile.TemporaryDirectory() as folder:
            sides["ours"].append(measure(sys.executable, OURS, [data, str(seed), f"{folder}/run"]))
        print("ours", seed, sides["ours"][-1], flush=True)
    result = {
        "what": "MobileNetV2, ImageNet weights, 224 px, 1 frozen + 4 epochs, flowers",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "fastai_workers": int(given.workers),
        "runs": sides,
    }
    for name, runs in sides.items():
        result[name] = {
            key: round(statistics.mean(run[key] for run in runs), 4)
            for key in ("accuracy", "valid_accuracy", "train_s", "process_s")
        }
        print(f"{name:8}", result[name])
    for key in ("train_s", "process_s"):
        ratios = [a[key] / b[key] for a, b in zip(sides["ours"], sides["fastai"], strict=True)]
        result[f"ratio_{key}"] = round(statistics.median(ratios), 4)
        print(f"ours / fastai, {key}: {result[f'ratio_{key}']} (median of {len(ratios)})")
    print("accuracy, ours - fastai:", round(result["ours"]["accuracy"] - result["fastai"]["accuracy"], 4))
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
