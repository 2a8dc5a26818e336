"""(c, d) Inference of whole networks: ours with BN folded, the peers' as they come, in turns.

Weights and images are of the given dtype, channels_last; every network runs eager and compiled, on a GPU also
as one CUDA graph. The compiler may freeze the parameters, with which it folds BN of the peers' networks too.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Report, Step, arguments, demanded_tail, graphed, interleave, parse
from networks import GROUPS, Contender
from torch import Tensor, nn
from train_step import Key, table


def prepared(contender: Contender, device: str, dtype: torch.dtype) -> nn.Module:
    """Return the network as its owner would serve it."""
    network = contender.build().eval()
    if contender.owner == "senet":
        from senet.nn.folding import fold_batch_norms

        network = fold_batch_norms(network)
    return network.to(device, dtype, memory_format=torch.channels_last)


def inference_step(network: nn.Module, images: Tensor, mode: str, label: str) -> Step:
    """Return a function that runs ``network`` in a mode: "eager" or "compiled", perhaps "graphed"; it ran once."""
    if "compiled" in mode:
        network.compile()
    guard = torch.no_grad if "compiled" in mode else torch.inference_mode  # frozen code wants no_grad

    def run() -> None:
        with guard():
            network(images)

    with demanded_tail(f"{label}, {mode}", network, images.device.type, "compiled" in mode):
        run()
    return graphed(run, images.device.type) if "graphed" in mode else run


def main(argv: Sequence[str] | None = None) -> Path:
    """Time every network of the groups."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", nargs="*", choices=list(GROUPS), default=list(GROUPS)[:2])
    parser.add_argument("--modes", nargs="*", help="default: eager, compiled; on a GPU also both graphed")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--name", default="inference")
    options = parse(parser, argv)
    modes = options.modes or ["eager", "compiled"]
    if not options.modes and options.device == "cuda":
        modes += ["eager graphed", "compiled graphed"]
    import torch._inductor.config as inductor

    inductor.freezing = True
    settings = {"batch": options.batch, "size": options.size}
    settings["dtype"] = str(options.dtype).removeprefix("torch.")
    report = Report(options.out, options.name, options.device, **settings)
    for group in options.groups:
        shape = (options.batch, 3, options.size, options.size)
        images = torch.randn(shape, device=options.device).to(
            options.dtype, memory_format=torch.channels_last
        )
        steps: dict[Key, Step] = {
            (contender, mode): inference_step(
                prepared(contender, options.device, options.dtype), images, mode, contender.label
            )
            for contender in GROUPS[group]
            if "eager" not in contender.name  # folded, a tail is the same in every mode of the kernels
            for mode in modes
        }

        def keep(seconds: dict[Key, list[float]], group: str = group) -> None:
            report.put(group, table(group, seconds, options.batch))

        interleave(steps, rounds=options.rounds, device=options.device, clock=options.clock, after_round=keep)
    return report.finish()


if __name__ == "__main__":
    main()
