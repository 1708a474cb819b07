"""Fashion-MNIST from scratch with the recipe as it is: test accuracy, wall seconds and parameters, a run a seed.

.venv/bin/python tests/benchmarks/bench_fashion_mnist.py --data /usr/share/datasets/fashion-mnist --out result.json
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


def main() -> None:
    """Runs the recipe once a seed and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of the idx files")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", help="a JSON file for the result")
    given = parser.parse_args()
    runs = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "recipes.cli", "run", "classification", "--data", given.data]
            start = time.time()
            subprocess.run([*command, "--seed", str(seed), "--out", f"{folder}/run"], check=True)
            seconds = time.time() - start
            metrics = json.loads(Path(folder, "run", "metrics.json").read_text())
            from common.deploy import load

            model = load(Path(folder, "run", "bundle")).model
            parameters = sum(p.numel() for p in model.parameters())
            runs.append({"seed": seed, "process_s": round(seconds, 1), "parameters": parameters, **metrics})
            print(runs[-1], flush=True)
    result = {
        "what": "Fashion-MNIST, recipe classification, from scratch",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "accuracy": round(statistics.mean(run["accuracy"] for run in runs), 4),
        "process_s": round(statistics.mean(run["process_s"] for run in runs), 1),
        "runs": runs,
    }
    print(result["accuracy"], result["process_s"])
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
