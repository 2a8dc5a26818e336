"""(e) A trained network as it is served: eager, BN folded, compiled and onnxruntime in turns, accuracy beside speed.

The network is a run's, with its own validation images; it is float32 unless --dtype says otherwise, onnxruntime always
(on the CPU, with BN folded). Every form answers the same images: ``top1`` is in percent, ``other`` counts the
images that get another class than from the eager float32 network. ``over_eager`` is the speed over that of the eager
network, taken round by round.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import (
    Report,
    arguments,
    demanded_tail,
    expected_tail,
    interleave,
    median,
    parse,
    row,
    times_faster,
)
from torch import Tensor, nn

from senet.integrations import onnx_export
from senet.integrations.export import own_images
from senet.nn.folding import fold_batch_norms
from senet.nn.tail import set_kernels
from senet.weights.trained import Trained, read_trained

Answer = Callable[[Tensor], Tensor]
"""Normalised images (B, C, H, W) to logits (B, K)."""


def served(name: str, network: nn.Module, options: Namespace) -> Answer:
    """Return a network of torch as a function; where its tails should be fused, it has answered one batch."""
    compiled = "compiled" in name
    if compiled:
        network.compile(dynamic=False)  # code for each batch size, as for each session of onnxruntime
    guard = torch.no_grad if compiled else torch.inference_mode  # frozen code wants no_grad

    def answer(images: Tensor) -> Tensor:
        with guard():
            logits: Tensor = network(images)
        return logits

    if expected_tail(network, options.device, compiled) is not None:
        shape = (max(options.batches), 3, options.size, options.size)
        images = torch.zeros(shape, device=options.device, dtype=options.dtype)
        with demanded_tail(name, network, options.device, compiled):
            answer(images.to(memory_format=torch.channels_last))
    return answer


def forms(read: Callable[[], Trained], options: Namespace, folder: Path) -> dict[str, Answer]:
    """Return every form of the network by its name, for batches of ``options.size`` pixels."""

    def form(name: str) -> Answer:
        network = read().network
        if "folded" in name:
            network = fold_batch_norms(network)
        network.to(options.device, options.dtype, memory_format=torch.channels_last)
        return served(name, network, options)

    found = {name: form(name) for name in ("eager", "folded", "compiled", "folded compiled")}
    if options.device == "cpu":
        exported = fold_batch_norms(read().network)
        set_kernels(exported, "eager")
        found["onnxruntime"] = onnx_export.write(read(), exported, folder)
    return found


def main(argv: Sequence[str] | None = None) -> Path:
    """Time every form at every batch size."""
    parser = arguments(__doc__)
    parser.set_defaults(dtype="float32")
    parser.add_argument("model", help="run directory or checkpoint, whose own validation images are taken")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--images", type=int, default=320, help="at most so many are answered (320)")
    options = parse(parser, argv)
    import torch._inductor.config as inductor

    inductor.freezing = True
    trained = read_trained(options.model)
    pixels, labels = own_images(trained, options.images)
    images = trained.preprocessing.normalise(pixels).contiguous()
    options.size = images.shape[-1]
    with torch.inference_mode():
        truth = torch.cat([trained.network(part) for part in images.split(16)]).argmax(1)
    settings = {"model": trained.network.record["name"], "size": trained.preprocessing.size}
    settings |= {"dtype": str(options.dtype).removeprefix("torch."), "images": len(images)}
    report = Report(options.out, "serve", options.device, **settings)
    with TemporaryDirectory() as folder:
        found = forms(lambda: read_trained(options.model), options, Path(folder))
        for batch in options.batches:
            serve(found, images, labels, truth, batch, report, options)
    return report.finish()


def serve(
    found: dict[str, Answer],
    images: Tensor,
    labels: Tensor,
    truth: Tensor,
    batch: int,
    report: Report,
    options: Namespace,
) -> None:
    """Let every form answer all images in batches, and time one of these."""
    missing = -len(images) % batch  # of the last batch: the first image stands in for them
    filled = torch.cat([images, images[:1].expand(missing, *images.shape[1:])])
    moved = filled.to(options.device, options.dtype, memory_format=torch.channels_last)
    batches = {name: (filled if name == "onnxruntime" else moved).split(batch) for name in found}
    said = {name: torch.cat([answer(part) for part in batches[name]]) for name, answer in found.items()}
    classes = {name: logits[: len(images)].argmax(1).cpu() for name, logits in said.items()}

    def keep(seconds: dict[str, list[float]]) -> None:
        rows = [
            row(
                f"batch {batch}",
                name,
                values,
                images_per_s=batch / median(values),
                over_eager=times_faster(values, seconds["eager"]),
                top1=100 * float((classes[name] == labels).float().mean()),
                other=int((classes[name] != truth).sum()),
            )
            for name, values in seconds.items()
        ]
        report.put(f"batch {batch}", rows)

    steps = {name: partial(answer, batches[name][0]) for name, answer in found.items()}
    interleave(steps, rounds=options.rounds, device=options.device, clock=options.clock, after_round=keep)


if __name__ == "__main__":
    main()
