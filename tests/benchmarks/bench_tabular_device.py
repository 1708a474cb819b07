"""Tables on a GPU: how long the network takes there and on the CPU, and how fast a transformer reads texts.

python tests/benchmarks/bench_tabular_device.py --data TABLES --weights TRANSFORMER --out result.json

TABLES holds adult/train.csv.gz and womens_clothing_reviews/train.parquet. The network is trained for ten epochs on each
of three folds of Adult's training rows, once a device, after a warm-up; its out-of-fold loss stands beside the seconds. The
texts of the reviews are read by the transformer on both; the vectors are compared.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import pandas as pd
import torch

from applications.tabular import EnsembleConfig, read_source, tabular_learner
from common.data import NoSplitter
from common.text import TextEncoder, Tokenizer

TEXTS = ("Title", "Review Text")


def network(table: Path, device: str, rows: int, epochs: int) -> dict[str, float]:
    """Seconds and loss of the network alone."""
    source = read_source(table, "income")
    frame = source.frame.head(rows)
    dls = source.block(NoSplitter()).dataloaders(frame)
    config = EnsembleConfig(members=("network",), folds=3, epochs=epochs, device=device, budget_s=3600.0)
    learner = tabular_learner(dls, target="income", config=config, progress=False)
    learner.fit()
    record = learner.model.chosen.table[0]
    return {"seconds": record["seconds"], "loss": record["loss"], "rows": len(frame), "epochs": epochs}


def reading(tokens: torch.Tensor, weights: Path, device: str) -> tuple[dict[str, float], torch.Tensor]:
    """Texts a second, and their vectors."""
    encoder = TextEncoder.read(weights)
    encoder.embed(tokens[:64], torch.device(device))
    encoder._known.clear()
    began = time.perf_counter()
    vectors = encoder.embed(tokens, torch.device(device))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "texts": len(tokens), "texts_per_second": len(tokens) / seconds}, vectors


def main() -> None:
    """Runs both on each device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    found = {
        "what": "tables on a device", "device": name, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "texts": {}, "network": {},
    }  # fmt: skip
    frame = pd.read_parquet(given.data / "womens_clothing_reviews/train.parquet")
    said = [text for column in TEXTS for text in frame[column].dropna()][: given.texts]
    tokens = torch.from_numpy(Tokenizer.read(given.weights).encode_many(said))
    vectors = {}
    for device in devices:
        found["texts"][device], vectors[device] = reading(tokens, given.weights, device)
        print(device, found["texts"][device], flush=True)
    if "cuda" in vectors:
        found["texts"]["largest_difference"] = float((vectors["cpu"] - vectors["cuda"]).abs().max())
    table = given.data / "adult/train.csv.gz"
    for device in devices:
        network(table, device, 2000, 1)
    for device in devices:
        found["network"][device] = network(table, device, 1 << 30, 10)
        print(device, found["network"][device], flush=True)
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
