"""(e) How the cost of a training step grows with the batch and with the image, for SE-ResNet-50 and its plain twin.

``us_per_image_pixel`` is flat where the time grows in proportion to batch x size². ``tax`` is the share of the
time that is SE's.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Report, arguments, demanded_tail, interleave, median, parse, row
from networks import GROUPS
from train_step import training_step


def main(argv: Sequence[str] | None = None) -> Path:
    """Time every batch size at the first image size, and every image size at the first batch size."""
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 160, 128, 96])
    options = parse(parser, argv)
    gpu = options.device == "cuda"
    batches = options.batches or ([128, 32, 64, 256] if gpu else [8, 2, 4, 16])
    se, plain = GROUPS["resnet50, stride on 1x1"][:2]
    networks = {
        contender: contender.build().to(options.device, memory_format=torch.channels_last).train()
        for contender in (se, plain)
    }
    dtype = str(options.dtype).removeprefix("torch.")
    report = Report(options.out, "cost", options.device, dtype=dtype)
    for batch, size in dict.fromkeys(
        [(b, options.sizes[0]) for b in sorted(batches)] + [(batches[0], s) for s in sorted(options.sizes)]
    ):
        steps = {
            contender: training_step(network, batch, size, options.device, options.dtype)
            for contender, network in networks.items()
        }
        group = f"batch {batch}, {size} px"
        for contender, step in steps.items():
            with demanded_tail(f"{contender.label}, {group}", networks[contender], options.device):
                step()
        seconds = interleave(
            steps, rounds=options.rounds, device=options.device, clock=options.clock, warmup=2
        )
        rows = [
            row(
                group,
                contender.name,
                values,
                images_per_s=batch / median(values),
                us_per_image_pixel=median(values) / batch / size**2 * 1e6,
                tax=1 - median(seconds[plain]) / median(values) if contender is se else None,
            )
            for contender, values in seconds.items()
        ]
        report.put(group, rows)
    return report.finish()


if __name__ == "__main__":
    main()
