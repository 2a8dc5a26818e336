"""(b, d) A training step of whole networks: images/s, peak memory, SE tax, ours and the peers' in turns.

One step is forward, cross-entropy, backward and SGD with momentum on random images, in autocast and
channels_last, with cuDNN's search for the fastest algorithm, in several modes of the compiler. ``tax`` is
1 - images/s with SE / images/s of the plain twin: ours, or for timm, which has no twin on the same terms,
torchvision's. ``over best peer`` compares with the fastest SE network of the peers in any mode.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from measure import Report, Step, arguments, demanded_tail, interleave, median, parse, row, times_faster
from networks import GROUPS, Contender, ours
from torch import nn

from senet import create_model
from senet.errors import UserError
from senet.kernels.compiler import compile_options
from senet.models.families import find_family, plain_twin

Key = tuple[Contender, str]


def training_step(network: nn.Module, batch: int, size: int, device: str, dtype: torch.dtype) -> Step:
    """Return a function that does one step."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=device == "cuda")
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    classes = getattr(network, "record", {}).get("num_classes", 1000)  # ours for small images have fewer
    labels = torch.randint(classes, (batch,), device=device)
    low = dtype != torch.float32

    def run() -> None:
        torch.compiler.cudagraph_mark_step_begin()
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


def build(contender: Contender, mode: str, options: Namespace) -> Step:
    """Return the step of one network in one mode, run once; a tail that should be fused must have been."""
    network = contender.build().to(options.device, memory_format=torch.channels_last).train()
    if mode != "eager":
        mode = "default" if mode == "compiled" else mode
        if contender.owner == "senet":
            network.compile(options=compile_options(mode))
        else:
            network.compile(mode=mode)
    step = training_step(network, options.batch, options.size, options.device, options.dtype)
    with demanded_tail(f"{contender.label}, {mode}", network, options.device):
        step()
    return step


def fill_caches(options: Namespace) -> None:
    """Compile every network in a process of its own, some at a time: the caches on disk then hold the code."""
    script = [
        sys.executable,
        __file__,
        "--rounds",
        "1",
        "--batch",
        str(options.batch),
        "--size",
        str(options.size),
    ]

    def warm(job: tuple[str, Contender, str]) -> None:
        group, contender, mode = job
        with TemporaryDirectory() as out:
            choice = ["--groups", group, "--only", contender.label, "--modes", mode, "--out", out]
            status = subprocess.run([*script, *choice], stdout=subprocess.DEVNULL, check=False).returncode
        print(
            f"compiled {contender.label}, {mode}: {'ok' if status == 0 else f'failed with {status}'}",
            flush=True,
        )

    jobs = [
        (group, c, mode) for group in options.groups for c, mode in contest(group, options) if mode != "eager"
    ]
    with ThreadPoolExecutor(options.warm) as pool:
        list(pool.map(warm, jobs))


def contest(group: str, options: Namespace) -> list[Key]:
    """Return the networks of a group in their modes: ``--se-modes`` are for the fused SE network and its peers."""
    contenders = [c for c in GROUPS[group] if options.only in (None, c.label)]
    modes = [(c, mode) for c in contenders for mode in options.modes]
    return modes + [(c, m) for c in contenders for m in options.se_modes if c.se and "eager" not in c.name]


def of_our_model(name: str) -> tuple[Contender, ...]:
    """Return one of our networks and, where it has SE, its plain twin.

    Raises:
        UserError: for a name that is not in the zoo.
    """
    find_family(name)
    return tuple(ours(n) for n in dict.fromkeys((name, plain_twin(name))))


def build_all(group: str, options: Namespace) -> dict[Key, Step]:
    """Return the steps of a group, with ``options.batch`` halved until all of its networks fit into memory."""
    while True:
        try:
            return {key: build(*key, options) for key in contest(group, options)}
        except (torch.OutOfMemoryError, RuntimeError) as error:
            # The CPU's allocator has no exception of its own.
            short = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
            if options.batch == 1 or not short:
                raise
        # Out here, where the error no longer holds the step's memory.
        if options.device == "cuda":
            torch.cuda.empty_cache()
        options.batch //= 2
        print(f"{group}: out of memory; halved to a batch of {options.batch}", flush=True)


def main(argv: Sequence[str] | None = None) -> Path | None:
    """Time every network of the groups."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", nargs="*", choices=list(GROUPS), default=list(GROUPS)[:2])
    parser.add_argument("--model", help="instead of groups: a network of ours and its plain twin")
    parser.add_argument("--modes", nargs="*", default=["eager", "compiled"])
    parser.add_argument(
        "--se-modes", nargs="*", default=[], help="max-autotune, reduce-overhead: of SE networks"
    )
    parser.add_argument("--only", help="one network, by owner and name")
    parser.add_argument(
        "--warm", type=int, default=0, help="fill the compiler's caches, so many at a time; time nothing"
    )
    parser.add_argument("--size", type=int, help="224, or what --model is meant for")
    parser.add_argument("--name", default="train_step")
    options = parse(parser, argv)
    if options.model:
        try:
            GROUPS[options.model] = of_our_model(options.model)
        except UserError as error:
            parser.exit(2, f"error: {error}\n")
        options.groups = [options.model]
    if options.size is None:
        options.size = create_model(options.model).input_size if options.model else 224
    if options.warm:
        fill_caches(options)
        return None
    settings = {"batch": options.batch, "size": options.size}
    settings["dtype"] = str(options.dtype).removeprefix("torch.")
    report = Report(options.out, options.name, options.device, **settings)
    for group in options.groups:
        asked = options.batch
        steps = build_all(group, options)
        title = group if options.batch == asked else f"{group}, batch {options.batch}"

        def keep(seconds: dict[Key, list[float]], group: str = title, **more: dict[Key, object]) -> None:
            report.put(group, table(group, seconds, options.batch, **more))

        seconds = interleave(
            steps, rounds=options.rounds, device=options.device, clock=options.clock, after_round=keep
        )
        if options.device == "cuda":
            keep(seconds, title, peak_mib={k: peak_memory(step) for k, step in steps.items()})
        del steps
        options.batch = asked
        if options.device == "cuda":
            torch.cuda.empty_cache()
    return report.finish()


if __name__ == "__main__":
    main()
