"""Run directories with known predictions, written as a training run writes them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SE = {"reduction": 16, "round_to": 1, "squeeze": "avg", "gate": "sigmoid", "placement": "standard",
      "stages": None, "bias": True}  # fmt: skip


def config(model: str = "se_resnet20", lr: float = 0.1, **se: Any) -> dict[str, Any]:
    return {
        "seed": 0,
        "name": "run",
        "runs_dir": "runs",
        "model": {"name": model},
        "se": SE | se if model.startswith("se_") else None,
        "data": {"name": "digits", "batch_size": 32, "preprocessing": {"size": 8}},
        "optimizer": {"name": "sgd", "lr": lr},
        "trainer": {"max_epochs": 3, "devices": 1},
        "logger": {"wandb": None},
    }


def write_run(
    path: Path,
    values: dict[str, Any],
    seed: int,
    right: Sequence[bool],
    *,
    top5: float = 99.0,
    weights: str = "raw",
    status: str = "finished",
    error: str | None = None,
    overrides: Sequence[str] = (),
    parameters: int = 271_807,
    macs: int = 2_518_624,
    rate: float = 1000.0,
) -> Path:
    """Write a run that got the images ``right`` right; its summary holds what that amounts to."""
    (path / "predictions").mkdir(parents=True)
    (path / "config.yaml").write_text(json.dumps(values | {"seed": seed}))  # JSON is YAML
    record = {"seed": seed, "status": status, "error": error, "overrides": list(overrides)}
    (path / "run.json").write_text(json.dumps(record))
    if status != "finished":
        return path
    right = np.asarray(right, bool)
    prefix = {"raw": "val", "ema": "val_ema"}[weights]
    figures = {f"{prefix}/top1": 100 * float(right.mean()), f"{prefix}/top5": top5}
    summary = {
        "best": figures,
        "last": figures,
        "parameters": parameters,
        "macs": macs,
        "images_per_second": rate,
        "data": {"val_images": len(right)},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    with (path / "predictions" / f"last_{weights}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "label", "predicted", "correct", "confidence", "loss"])
        for index in reversed(range(len(right))):  # the order in the file means nothing
            label, correct = str(index % 10), int(right[index])
            writer.writerow([index, f"digits/{index}", label, label if correct else "x", correct, 0.5, 0.5])
    return path
