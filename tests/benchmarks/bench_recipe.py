"""A recipe as a person types it, once a seed: its metrics, the seconds of the whole process, the model's parameters.

    .venv/bin/python tests/benchmarks/bench_recipe.py --what "BCCD, MobileNetV2" --seeds 3 --out result.json \
        -- detection --data BCCD --arch mobilenet_v2 --pretrained --flip-vertical

README.md beside this file has the lines of every result.
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

ROOT = Path(__file__).resolve().parents[2]


def one_run(options: list[str], seed: int) -> dict:
    """Runs the recipe in a process of its own and returns what it left, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        command = [sys.executable, "-m", "recipes.cli", "run", *options, "--seed", str(seed), "--out", out]
        start = time.time()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        seconds = time.time() - start
        metrics = json.loads(Path(out, "metrics.json").read_text())
        from common.deploy import load

        bundle = load(Path(out, "bundle"))
        return {
            "seed": seed,
            "process_s": round(seconds, 1),
            "parameters": sum(p.numel() for p in bundle.model.parameters()),
            **metrics,
            **{f"valid_{name}": value for name, value in valid_metrics(bundle, options, metrics).items()},
        }


def valid_metrics(bundle: object, options: list[str], metrics: dict) -> dict:
    """The same metrics on the validation part, where the source has one beside the test part."""
    from common.deploy import Predictor, evaluate
    from common.errors import DataError

    data = options[options.index("--data") + 1] if "--data" in options else None
    try:
        found = evaluate(Predictor(bundle), data, "valid")
    except DataError:
        return {}
    return {} if all(metrics.get(name) == value for name, value in found.items()) else found


def device_name() -> str:
    """What it ran on: the GPU's name where there is one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def main() -> None:
    """Runs the recipe once a seed and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", required=True, help="what is measured, in words")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", help="a JSON file for the result")
    parser.add_argument("recipe", nargs="+", help="behind --: RECIPE and its options")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    runs = []
    for seed in range(given.seeds):
        runs.append(one_run(given.recipe, seed))
        print(runs[-1], flush=True)
    shown = [Path(word).name if "/" in word else word for word in given.recipe]
    import torch
    import torchvision

    result = {
        "what": given.what,
        "command": "cookbook run " + " ".join(shown),
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "mean": {
            name: round(statistics.mean(run[name] for run in runs), 4)
            for name in runs[0]
            if name != "seed" and all(name in run for run in runs)
        },
        "runs": runs,
    }
    print(json.dumps(result["mean"], indent=1))
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
