"""``senet gates``: the paper's Figures 6 and 7 and a saturation table, from a checkpoint and its data."""

import argparse
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor

from senet.analysis.gate_plots import class_means, within_class
from senet.analysis.gate_statistics import (
    ALWAYS_ON,
    DEAD,
    PAPER_CLASSES,
    ClassStatistics,
    Saturation,
    collect_gates,
    panels,
    paper_panels,
    sampled_channels,
    saturation,
)
from senet.data import AnyDataConfig, CifarConfig, FolderConfig, Preprocessing
from senet.errors import UserError, did_you_mean
from senet.models.checkpoint import load_checkpoint, load_network


def saturation_text(rows: Sequence[Saturation], chosen_sd: Mapping[str, float], paper: bool) -> str:
    """Return the saturation table as text, for SE-ResNet-50 with the paper's figures beside it."""
    printed = paper_panels() if paper else {}
    head = f"{'block':10}{'C':>6}{'mean':>8}{'class sd':>10}{'image sd':>10}{'dead':>8}{'on':>8}{'|s-1|':>8}"
    lines = [head + ("  |  sampled: class sd   paper: mean  class sd" if printed else "")]
    for row in rows:
        line = (
            f"{row.block:10}{row.channels:>6}{row.mean:>8.3f}{row.class_sd:>10.4f}{row.image_sd:>10.4f}"
            f"{row.dead:>8.1%}{row.always_on:>8.1%}{row.identity:>8.3f}"
        )
        if row.block in printed:
            theirs = printed[row.block]
            line += f"  |  {chosen_sd[row.block]:>17.4f}{theirs.mean:>14.3f}{theirs.class_sd:>10.4f}"
        lines.append(line)
    notes = [
        "mean: of the gate; class sd: of the class means; image sd: over all images (0: a constant scale);",
        f"dead, on: channels with a mean gate below {DEAD} or above {ALWAYS_ON}; |s-1|: root mean square over",
        "images and channels, 0 is the identity",
    ]
    if printed:
        notes.append(
            "sampled and paper: over the four chosen classes and the channels of Figure 6, the paper's read off the "
            "drawing (+- 0.005)"
        )
    return "\n".join([*lines, "", *notes, ""])


def gates_csv(
    statistics: Mapping[str, ClassStatistics], chosen: Mapping[str, int], names: Mapping[str, str]
) -> str:
    """Return block, class, images, channel (from 1), mean and sd: of the chosen classes and of "all"."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["block", "class", "images", "channel", "mean", "sd"])
    for block, found in statistics.items():
        mean, sd = found.overall()
        parts = [(names[c], found.count[k], found.mean[k], found.sd[k]) for c, k in chosen.items()] + [
            ("all", found.count.sum(), mean, sd)
        ]
        for name, images, means, sds in parts:
            for channel, (m, s) in enumerate(zip(means.tolist(), sds.tolist(), strict=True), start=1):
                writer.writerow([block, name, int(images), channel, f"{m:.8g}", f"{s:.8g}"])
    return text.getvalue()


def saturation_csv(rows: Sequence[Saturation]) -> str:
    """Return the saturation table, unrounded."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Saturation.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(row) for row in rows)
    return text.getvalue()


# Command --------------------------------------------------------------------------------------------------


def choose_classes(wanted: str | None, classes: Sequence[str]) -> dict[str, int]:
    """Return class name to index: those of ``wanted`` ("a,b,c"), the paper's four, or four spread evenly.

    Raises:
        UserError: for a class that the data lacks.
    """
    if wanted is None:
        names = list(PAPER_CLASSES)
        if not set(names) <= set(classes):
            step = (len(classes) - 1) / 3
            names = list(dict.fromkeys(classes[round(i * step)] for i in range(4)))
    else:
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        ids = {label: wnid for wnid, label in PAPER_CLASSES.items() if wnid in classes}
        names = [ids.get(name, name) if name not in classes else name for name in names]
    for name in names:
        if name not in classes:
            raise UserError(f'there is no class "{name}"{did_you_mean(name, classes)}')
    if not names:
        raise UserError("--classes names no class: give for example --classes cat,dog")
    return {name: list(classes).index(name) for name in names}


def validation_batches(record: Mapping[str, Any], root: str | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the normalised validation images and labels that a checkpoint's record describes."""
    from senet.data.module import ImageData  # seconds to import

    union: Any = Annotated[AnyDataConfig, Field(discriminator="name")]
    config: AnyDataConfig = TypeAdapter(union).validate_python(record["config"]["data"])
    if root is not None:
        if not isinstance(config, FolderConfig | CifarConfig):
            raise UserError(f"--root {root}: {config.name} has no folder")
        config = replace(config, root=root)
    preprocessing = Preprocessing(**record["preprocessing"])
    data = ImageData(config, None, 0, preprocessing=preprocessing, classes=record["classes"])
    for batch in data.val_dataloader():
        yield preprocessing.normalise(batch.images), batch.labels


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``senet gates``."""
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "--classes", metavar="A,B,C,D", help="classes to show (default: the paper's four, or four)"
    )
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint of the run")
    parser.add_argument("--root", help="where the images lie, if not where they lay")
    parser.add_argument("--out", type=Path, help="where to write (default: RUN_DIR/gates)")


def run(arguments: argparse.Namespace) -> int:
    """Run ``senet gates``."""
    checkpoint = load_checkpoint(arguments.run / "checkpoints" / f"{arguments.which}.ckpt")
    network, used = load_network(checkpoint, arguments.weights)
    record = checkpoint["senet"]
    chosen = choose_classes(arguments.classes, record["classes"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = ((x.to(device), y) for x, y in validation_batches(record, arguments.root))
    found = collect_gates(network.to(device), batches, len(record["classes"]))
    out = arguments.out or arguments.run / "gates"
    text = write(found, chosen, out, paper=record["model"]["name"] == "se_resnet50")
    print(
        f"{record['model']['name']}, {arguments.which} checkpoint, {used} weights\n\n{text}\nwritten to {out}"
    )
    return 0


def write(found: Mapping[str, ClassStatistics], chosen: Mapping[str, int], out: Path, paper: bool) -> str:
    """Write tables and pictures to ``out``; return the saturation table as text."""
    out.mkdir(parents=True, exist_ok=True)
    names = {name: PAPER_CLASSES.get(name, name) for name in chosen}
    rows = [saturation(name, statistics) for name, statistics in found.items()]
    indices = list(chosen.values())
    sampled = {
        name: float(s.mean[indices][:, list(sampled_channels(s.mean.shape[1]))].std(0, correction=0).mean())
        for name, s in found.items()
    }
    text = saturation_text(rows, sampled, paper)
    (out / "saturation.txt").write_text(text)
    (out / "saturation.csv").write_text(saturation_csv(rows))
    (out / "gates.csv").write_text(gates_csv(found, chosen, names))
    shown = {name: found[name] for name in panels(found)}
    labels = {names[name]: index for name, index in chosen.items()}
    class_means(shown, labels).savefig(out / "figure6.png", dpi=140)
    within_class(shown, dict(list(labels.items())[:2])).savefig(out / "figure7.png", dpi=140)
    return text
