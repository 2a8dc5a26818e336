"""(b, d) A training step of whole networks: images/s, peak memory, SE tax, ours and the peers' in turns.

One step is forward, cross-entropy, backward and SGD with momentum on random images, in autocast and
channels_last, eager and compiled. ``tax`` is 1 - images/s with SE / images/s of the plain twin: ours, or for
timm, which has no twin on the same terms, torchvision's. ``over best peer`` compares with the fastest SE network
of the peers in any mode.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import Step, arguments, interleave, median, parse, row, save, times_faster
from networks import GROUPS, Contender
from torch import nn

Key = tuple[Contender, str]


def training_step(network: nn.Module, batch: int, size: int, device: str, dtype: torch.dtype) -> Step:
    """Return a function that does one step."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=device == "cuda")
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=device)
    low = dtype != torch.float32

    def run() -> None:
        optimiser.zero_grad()
        with torch.autocast(device, dtype) if low else nullcontext():
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return run


def peak_memory(step: Step) -> float:
    """Return the MiB that one step needs on top of what is allocated before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def tax(key: Key, seconds: dict[Key, list[float]]) -> float | None:
    """Return the SE tax of an SE network against its plain twin in the same mode."""
    contender, mode = key
    owner = "senet" if contender.owner == "senet" else "torchvision"
    twins = [k for k in seconds if k[0].owner == owner and not k[0].se and k[1] == mode]
    if not contender.se or not twins:
        return None
    return 1 - median(seconds[twins[0]]) / median(seconds[key])


def over_best_peer(key: Key, seconds: dict[Key, list[float]]) -> str | None:
    """Return how many times faster ours is than the fastest SE network of a peer."""
    peers = [k for k in seconds if k[0].owner != "senet" and k[0].se]
    if key[0].owner != "senet" or not key[0].se or not peers:
        return None
    return times_faster(seconds[key], seconds[min(peers, key=lambda k: median(seconds[k]))])


def table(group: str, seconds: dict[Key, list[float]], batch: int, **more: dict[Key, object]) -> list[dict]:
    """Return the rows of a group."""
    return [
        row(
            group,
            f"{key[0].label}, {key[1]}",
            values,
            images_per_s=batch / median(values),
            tax=tax(key, seconds),
            over_best_peer=over_best_peer(key, seconds),
            **{name: column.get(key) for name, column in more.items()},
        )
        for key, values in seconds.items()
    ]


def main(argv: Sequence[str] | None = None) -> Path:
    """Time every network of the groups."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", nargs="*", choices=list(GROUPS), default=list(GROUPS)[:2])
    parser.add_argument("--modes", nargs="*", default=["eager", "compiled"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--name", default="train_step")
    options = parse(parser, argv)
    rows = []
    for group in options.groups:
        steps: dict[Key, Step] = {}
        for contender in GROUPS[group]:
            for mode in options.modes:
                network = contender.build().to(options.device, memory_format=torch.channels_last).train()
                if mode == "compiled":
                    network.compile()
                step = training_step(network, options.batch, options.size, options.device, options.dtype)
                steps[contender, mode] = step
        seconds = interleave(steps, rounds=options.rounds, device=options.device, clock=options.clock)
        memory = {k: peak_memory(step) for k, step in steps.items()} if options.device == "cuda" else {}
        rows += table(group, seconds, options.batch, peak_mib=memory)
    settings = {"batch": options.batch, "size": options.size}
    settings["dtype"] = str(options.dtype).removeprefix("torch.")
    return save(options.out, options.name, rows, options.device, **settings)


if __name__ == "__main__":
    main()
