"""What augmentation is worth: the classification recipe with its default augmentation and without, three seeds each.

Flowers (750 photos) from scratch and fine-tuned, and Fashion-MNIST from scratch; each run is a process of its own, the two
sides of a seed one after the other, judged once on the test part. Nothing is tuned for either side: without augmentation
photos are cut to their centre instead of at random, and nothing is turned, mirrored or lit.

    .venv/bin/python tests/benchmarks/bench_augmentation_gain.py --flowers FLOWERS --fashion FOLDER --weights WEIGHTS
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

RESULT = Path(__file__).with_name("results") / "augmentation_gain.json"


def run(data: str, seed: int, options: list[str]) -> dict[str, float]:
    """Runs the recipe once and returns its metrics."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "recipes.cli", "run", "classification", "--data", data, "--seed", str(seed)]
        done = subprocess.run([*command, "--out", f"{folder}/run", *options], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        return json.loads(Path(folder, "run", "metrics.json").read_text())


def main() -> None:
    """Runs each set with and without, and prints the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flowers", help="the folder with train/ and test/")
    parser.add_argument("--fashion", help="the folder of Fashion-MNIST's idx files")
    parser.add_argument("--weights", help="TORCH_HOME of the pretrained weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=str(RESULT))
    given = parser.parse_args()
    if given.weights:
        os.environ["TORCH_HOME"] = given.weights
    sets: dict[str, tuple[str, list[str]]] = {}
    if given.flowers:
        sets["flowers, MobileNetV2 fine-tuned"] = (given.flowers, ["--arch", "mobilenet_v2", "--pretrained"])
        sets["flowers, from scratch"] = (given.flowers, [])
    if given.fashion:
        sets["Fashion-MNIST, from scratch"] = (given.fashion, [])
    found: dict[str, dict[str, list[float]]] = {name: {"with": [], "without": []} for name in sets}
    for name, (data, options) in sets.items():
        for seed in range(given.seeds):
            for side, more in (("with", []), ("without", ["--no-augment"])):
                metrics = run(data, seed, [*options, *more])
                found[name][side].append(metrics["accuracy"])
                print(f"{name}: {side} augmentation, seed {seed}: {metrics['accuracy']:.4f}", flush=True)
        means = {side: statistics.mean(values) for side, values in found[name].items()}
        print(f"{name}: mean {means['with']:.4f} with, {means['without']:.4f} without", flush=True)
    result = {
        "what": "test accuracy of recipe classification with its default augmentation and without",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "accuracy": found,
        "mean": {name: {k: round(statistics.mean(v), 4) for k, v in sides.items()} for name, sides in found.items()},
    }
    Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
