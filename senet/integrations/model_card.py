"""The model card of an export: what a network is, what it was trained on, what it reached and what it expects."""

from pathlib import Path
from typing import Any

import numpy as np

from senet.models import count_macs, count_parameters
from senet.nn import SEConfig
from senet.rundir import RunDir
from senet.weights.trained import Trained

USES = {
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {"images": images})[0]  # float32 (B, C, H, W), any B""",
    "torch": """import torch
network = torch.export.load("model.pt2").module()
logits = network(images)  # float32 (B, C, H, W), any B""",
    "timm": """import senet.integrations.timm  # only for architectures that begin with senet_
import timm
network = timm.create_model("local-dir:DIR", pretrained=True).eval()""",
}


def model_card(trained: Trained, model: Path, export: str, to: str) -> str:
    """Return the card as Markdown.

    Args:
        trained: what was exported.
        model: what the user named; where it is a run directory, its figures are told.
        export: what was written and how it was compared, in words.
        to: the form of the export.
    """
    record: dict[str, Any] = trained.network.record
    pre, names = trained.preprocessing, trained.class_names()
    widths = sorted({f"{c} → {h}" for c, h in trained.network.se_widths().values() if h}, key=_first)
    se = record["se"]
    options = ", ".join(f"{key}={value}" for key, value in record["options"].items())
    network = [
        f"- architecture: {record['name']}" + (f" ({options})" if options else ""),
        f"- parameters: {count_parameters(trained.network):,}; multiply-adds: "
        f"{count_macs(trained.network, pre.channels, pre.size):,} at {pre.size} px",
        *([_block(SEConfig(**se))] if se else []),
        *([f"- channels → hidden: {', '.join(widths)}"] if widths else []),
    ]
    images = [
        f"- {pre.colour}, shorter side to {pre.resize} px ({pre.interpolation}, antialiased), centre crop {pre.size} px"
        if pre.resize
        else f"- {pre.colour}, {pre.size} x {pre.size} px, cropped or padded, not resized",
        f"- (pixels / 255 - mean) / std; mean {list(pre.mean)}, std {list(pre.std)}",
    ]
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    front = "---\nlibrary_name: senet\npipeline_tag: image-classification\n---\n"
    parts = {
        "Network": network,
        "Images it expects": images,
        f"Classes ({len(names)})": [shown],
        "Training": training(trained, model),
        "Limits": [
            "- It says one of its classes for every image, whatever it shows; the probabilities are not calibrated.",
            f"- It was judged on images of {pre.size} px like those it was trained on; of others nothing is known.",
        ],
        "This export": [export, "", f"```python\n{USES[to]}\n```"],
    }
    return f"{front}# {record['name']}\n" + "".join(
        f"\n## {k}\n\n" + "\n".join(v) + "\n" for k, v in parts.items()
    )


def _block(se: SEConfig) -> str:
    """Return the block with what it depends on."""
    axes = {
        "reduction": f"r = {se.reduction}",
        **{a: getattr(se, a) for a in ("placement", "squeeze", "gate")},
    }
    said = ", ".join(words for axis, words in axes.items() if se.reads(axis))
    return f"- {'SE' if se.block == 'se' else se.block}: {said}"


def _first(width: str) -> int:
    return int(width.partition(" ")[0])


def training(trained: Trained, model: Path) -> list[str]:
    """Return what is known of the data, the recipe and the figures."""
    if trained.checkpoint is None:
        return [f"- weights: {trained.source}", *([f"- {trained.words}"] if trained.words else [])]
    config = trained.checkpoint.config
    optimizer, schedule = config["optimizer"], config["schedule"]
    start = config["model"].get("weights")
    slower = optimizer.get("trunk_lr", 1.0)
    share = config["data"].get("val_fraction")
    lines = [
        f"- data: {config['data']['name']}; weights: {trained.weights}, step {trained.checkpoint.step:,}",
        f"- started from: {Path(start).name if start else 'random weights'}"
        + (f"; trunk at {slower:g} of the classifier's rate" if slower != 1 else ""),
        *([f"- validation images: {share:.0%} of each class, held out from training"] if share else []),
        f"- recipe: {optimizer['name']}, lr {optimizer['lr']}, weight decay {optimizer.get('weight_decay')}, "
        f"{schedule['name']} schedule, {config['trainer'].get('max_epochs')} epochs, "
        f"batch {config['data']['batch_size']} per device, seed {config['seed']}",
    ]
    home = trained.checkpoint.path.parent.parent
    run = RunDir(model if RunDir(model).exists() else home)
    return lines + figures(run, trained.checkpoint.path.stem, trained.weights)


def figures(run: RunDir, label: str, weights: str) -> list[str]:
    """Return the accuracy on the run's validation images, with a 95 % interval (Wilson) over images."""
    try:
        table = run.predictions(label, weights)
    except ValueError:
        return []
    if table is None:
        return []
    n, z = len(table.right), 1.96
    p = float(np.mean(table.right))
    centre, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return [
        f"- top-1 {100 * p:.2f} % of {n:,} validation images (95 % interval {100 * low:.2f} to {100 * high:.2f})"
    ]
