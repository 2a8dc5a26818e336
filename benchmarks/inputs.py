"""What the device does to a batch before the network: flip, normalisation and mixup, in one step or one by one.

"one by one" is torchvision's ``normalize`` and ``MixUp`` after a flip. On a GPU also: the decoding of a batch of JPEGs
by nvJPEG, and the difference of its pixels from Pillow's, mean and largest, in grey levels.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import Report, arguments, interleave, parse, row
from torchvision.transforms import v2

from senet.data import AugmentConfig, Preprocessing
from senet.data.files.decoders import decode_reference
from senet.data.inputs import NUMBERS, InputStep
from senet.data.tools.fake import picture
from senet.integrations.fast_jpeg import torchcodec_decoder
from senet.training.environment import keep_freed_memory


def steps(batch: int, size: int, device: str, compiled: bool) -> dict[str, object]:
    """Return what is timed, by name."""
    preprocessing = Preprocessing(size=size)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    numbers = torch.rand(batch, NUMBERS, device=device)
    own = torch.full((size, size), 0.7, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    mixup = v2.MixUp(alpha=0.2, num_classes=1000)
    step = InputStep(preprocessing, AugmentConfig()).to(device)

    def one_by_one() -> None:
        flipped = torch.where(numbers[:, 2, None, None, None] < 0.5, images.flip(-1), images)
        values = v2.functional.normalize(flipped.float() / 255, [*preprocessing.mean], [*preprocessing.std])
        mixup(values, labels)

    found = {
        "senet in one step, eager": lambda: step(images, numbers, own),
        "torchvision one by one, eager": one_by_one,
    }
    if compiled:
        fused = torch.compile(step)
        found = {"senet in one step, compiled": lambda: fused(images, numbers, own), **found}
    return found


def decoding(batch: int, rounds: int) -> list[dict[str, object]]:
    """Time nvJPEG on made-up photographs and compare its pixels with Pillow's."""
    files = []
    for index in range(batch):
        data = io.BytesIO()
        picture(index % 10, index, 375, 500).save(data, "JPEG", quality=90)
        files.append(data.getvalue())
    decode = torchcodec_decoder()
    seconds = interleave({"nvJPEG": lambda: decode(files, device="cuda")}, rounds=rounds, device="cuda")
    pairs = zip(decode(files, device="cuda"), files, strict=True)
    differences = [(image.cpu().int() - decode_reference(data, "RGB").int()).abs() for image, data in pairs]
    mean = float(np.mean([difference.float().mean() for difference in differences]))
    largest = int(max(difference.max() for difference in differences))
    return [row("decode", "nvJPEG", seconds["nvJPEG"], mean_difference=mean, largest_difference=largest)]


def main(argv: Sequence[str] | None = None) -> Path:
    """Time the step before the network."""
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--no-compile", action="store_true")
    options = parse(parser, argv)
    keep_freed_memory()  # as in a training run on a CPU; for everybody
    candidates = steps(options.batch, options.size, options.device, not options.no_compile)
    report = Report(options.out, "inputs", options.device, batch=options.batch, size=options.size)

    def keep(seconds: dict[str, list[float]]) -> None:
        group = "before the network"
        report.put(group, [row(group, name, values) for name, values in seconds.items()])

    interleave(
        candidates,
        rounds=options.rounds,
        device=options.device,
        clock=options.clock,
        calls=10,
        after_round=keep,
    )
    if options.device == "cuda":
        report.put("decode", decoding(options.batch, options.rounds))
    return report.finish()


if __name__ == "__main__":
    main()
