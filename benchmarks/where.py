"""(f) Where the time of a training step goes: convolutions, tail, other BN, the rest, optimiser, data.

One profiled step after warm-up; every operator's own time counts for the outermost of its callers that has a
category. On a GPU it is the kernels' time. Tails that run eager have no category of their own: their BN counts as
"norm", their gate's convolutions as "convolution", and what is left as "rest".
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from measure import Report, arguments, demanded_tail, parse, row
from networks import GROUPS, Contender
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from train_step import training_step

from senet.nn import set_kernels

CATEGORIES = {
    "data": ("data",),
    "optimiser": ("Optimizer.step", "Optimizer.zero_grad"),
    "tail": ("senet::fused_tail", "senet_fused_tail"),
    "convolution": ("convolution", "Convolution"),
    "norm": ("batch_norm", "BatchNorm"),
}


def category(event: FunctionEvent | None) -> str:
    """Return the category of the outermost caller that has one."""
    found = "rest"
    while event is not None:
        for name, words in CATEGORIES.items():
            if any(word in event.name for word in words):
                found = name
        event = event.cpu_parent
    return found


def shares(step, images_on_host: torch.Tensor, device: str) -> dict[str, float]:
    """Return the seconds of each category in one step that begins with moving a batch to the device."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    for _ in range(3):
        step()
    with profile(activities=activities) as profiler:
        with record_function("data"):
            images_on_host.to(device, non_blocking=True).to(memory_format=torch.channels_last)
        step()
        if device == "cuda":
            torch.cuda.synchronize()
    seconds = dict.fromkeys([*CATEGORIES, "rest"], 0.0)
    for event in profiler.events():
        own = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if event.device_type == torch.autograd.DeviceType.CPU:
            seconds[category(event)] += own / 1e6
    return seconds


def measure(contender: Contender, kernels: str, options) -> list[dict[str, object]]:
    """Return a row per category of one network."""
    network = contender.build().to(options.device, memory_format=torch.channels_last).train()
    set_kernels(network, kernels)
    step = training_step(network, options.batch, options.size, options.device, options.dtype)
    label = f"{contender.label}, kernels={kernels}"
    with demanded_tail(label, network, options.device):
        step()
    images = torch.randn(options.batch, 3, options.size, options.size)
    runs = [shares(step, images, options.device) for _ in range(options.rounds)]
    total = sorted(sum(run.values()) for run in runs)[len(runs) // 2]
    rows = []
    for name in runs[0]:
        values = [run[name] for run in runs]
        share = sorted(values)[len(values) // 2] / total
        rows.append(row(label, name, values, share=share))
    return rows


def main(argv: Sequence[str] | None = None) -> Path:
    """Profile our SE-ResNet-50, fused and eager, and its plain twin."""
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=224)
    options = parse(parser, argv)
    se, plain = GROUPS["resnet50, stride on 1x1"][:2]
    report = Report(options.out, "where", options.device, batch=options.batch, size=options.size)
    for contender, kernels in ((se, "auto"), (se, "eager"), (plain, "auto"), (plain, "eager")):
        report.put(f"{contender.label} {kernels}", measure(contender, kernels, options))
    return report.finish()


if __name__ == "__main__":
    main()
