"""Segmentation of street scenes with an ImageNet MobileNetV2 as encoder: fastai's `unet_learner` beside our recipe.

Each side runs in a process and an environment of its own, in turn; both learn from train.txt, and are judged on the whole
frames of val.txt: mean IoU over 11 classes, void left out, from one confusion matrix at the masks' own size. fastai gets at
least the seconds that ours took: it trains for as many epochs as fill them.

    .venv/bin/python tests/benchmarks/bench_segmentation.py --data CAMVID --peer PEERS/bin/python --out result.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist"
VOID = 11

FASTAI = r"""
import json, sys, time, warnings
warnings.filterwarnings("ignore")
data, seed, seconds, height, width, names = (*sys.argv[1:2], *map(int, sys.argv[2:6]), sys.argv[6].split(","))
from pathlib import Path
from fastai.vision.all import *
from torchvision.models import mobilenet_v2
import fastai, torch, torchvision, numpy as np
import torch.nn.functional as F
from fastai.vision.learner import default_split, model_meta
model_meta[mobilenet_v2] = {"cut": -1, "split": default_split, "stats": imagenet_stats}  # fastai's table lacks it
set_seed(seed, reproducible=True)
root, void, whole = Path(data), len(names), (360, 480)
lists = {part: (root / f"{part}.txt").read_text().split() for part in ("train", "val")}
held_out = set(lists["val"])
block = DataBlock(
    blocks=(ImageBlock, MaskBlock([*names, "void"])),
    get_x=lambda n: root / "images" / f"{n}.jpg", get_y=lambda n: root / "masks" / f"{n}.png",
    splitter=FuncSplitter(lambda n: n in held_out),
    batch_tfms=[*aug_transforms(size=(height, width)), Normalize.from_stats(*imagenet_stats)],
)
dls = block.dataloaders([*lists["train"], *lists["val"]], bs=8, num_workers=2)
loss = CrossEntropyLossFlat(axis=1, ignore_index=void)
learn = unet_learner(dls, mobilenet_v2, n_out=void, weights="IMAGENET1K_V1", loss_func=loss)
with learn.no_bar(), learn.no_logging():
    probe = time.time()
    learn.fine_tune(1, freeze_epochs=1)  # what two epochs take; trained from the start afterwards
    each = (time.time() - probe) / 2
    epochs = max(1, round(seconds / each) - 1)
    set_seed(seed, reproducible=True)
    learn = unet_learner(dls, mobilenet_v2, n_out=void, weights="IMAGENET1K_V1", loss_func=loss)
    begin = time.time()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(epochs, 2e-3)
    trained = time.time() - begin
counts = torch.zeros(void, void, dtype=torch.int64)
learn.model.eval()
with torch.no_grad():
    files = [root / "masks" / f"{n}.png" for n in lists["val"]]
    masks = [torch.from_numpy(np.array(PILMask.create(f))).long() for f in files]
    place = 0
    for x, _ in dls.valid:
        logits = F.interpolate(learn.model(x).as_subclass(torch.Tensor), size=whole, mode="bilinear")
        for ids in logits.argmax(dim=1):
            truth = masks[place]
            seen = truth != void
            counts += torch.bincount(truth[seen] * void + ids[seen], minlength=void * void).reshape(void, void)
            place += 1
right = counts.diagonal().double()
iou = right / (counts.sum(0) + counts.sum(1) - right)
print(json.dumps({"miou": float(iou.nanmean()), "pixel_accuracy": float(right.sum() / counts.sum()), "train_s": trained,
                  "epochs": epochs + 1, "size": [height, width], "parameters": sum(p.numel() for p in learn.model.parameters()),
                  "versions": {"fastai": fastai.__version__, "torch": torch.__version__}}))
"""

OURS = r"""
import json, sys
data, seed, out, names, void = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
from pathlib import Path
from recipes.segmentation import Options, run
options = Options(data=data, classes=names, ignore=void, arch="mobilenet_v2", pretrained=True, out=out, seed=seed)
tested = run(options)["miou"]
events = [json.loads(line) for line in (Path(out) / "events.jsonl").read_text().splitlines()]
begin = next(e["time"] for e in events if e["event"] == "start")
end = [e["time"] for e in events if e["event"] == "fit_end"][-1]
from applications.segmentation import Predictor, evaluate
predictor = Predictor(Path(out) / "bundle")
found = evaluate(predictor, data, "valid")
import torch
print(json.dumps({"miou": found["miou"], "pixel_accuracy": found["pixel_accuracy"], "train_s": end - begin, "test_miou": tested,
                  "epochs": len([e for e in events if e["event"] == "epoch"]),
                  "parameters": sum(p.numel() for p in predictor.model.parameters()),
                  "versions": {"torch": torch.__version__}}))
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
    parser.add_argument("--data", required=True, help="the folder with images/, masks/, train.txt and val.txt")
    parser.add_argument("--peer", required=True, help="the Python that has fastai")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--peer-size", default="180x240", help="fastai's frame, HEIGHTxWIDTH; its course takes half sides"
    )
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    data = str(Path(given.data).resolve())
    sides: dict[str, list[dict]] = {"ours": [], "fastai": []}
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            sides["ours"].append(measure(sys.executable, OURS, [data, str(seed), f"{folder}/run", NAMES, str(VOID)]))
        print("ours", seed, sides["ours"][-1], flush=True)
        seconds = str(round(sides["ours"][-1]["train_s"]))
        options = [data, str(seed), seconds, *given.peer_size.split("x"), NAMES]
        sides["fastai"].append(measure(given.peer, FASTAI, options))
        print("fastai", seed, sides["fastai"][-1], flush=True)
    result = {
        "what": "CamVid, 11 classes, MobileNetV2 encoder with ImageNet weights, official train and val",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "runs": sides,
    }
    for name, runs in sides.items():
        result[name] = {k: round(sum(r[k] for r in runs) / len(runs), 4) for k in ("miou", "pixel_accuracy", "train_s")}
        print(f"{name:8}", result[name])
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
