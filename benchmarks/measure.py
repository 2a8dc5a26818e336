"""Timing that compares fairly, and what becomes of it: candidates take turns, rows go to JSON, table, plot.

Machines drift: clocks, caches and neighbours change within seconds. So candidates never run one after the
other in blocks, but in turns, with the order rotated every round; every figure is a median with quartiles and n.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.files import write_json

Step = Callable[[], object]
PACKAGES = ("senet", "torch", "triton", "timm", "torchvision")


Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def interleave(
    candidates: Mapping[str, Step],
    *,
    rounds: int,
    device: str,
    calls: int = 1,
    warmup: int = 3,
    clock: str = "wall",
    after_round: Callable[[dict[Any, list[float]]], object] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Return seconds per call of every candidate, one value a round.

    Args:
        candidates: what to time, by name.
        rounds: n, how often every candidate has its turn.
        device: where the work happens; on "cuda" events on the stream are read, not the host's clock.
        calls: calls that are timed as one, where a single one is short.
        warmup: calls of every candidate before the first round.
        clock: on a CPU, "wall", or "cpu" for the processor time of this process: with one thread it is what the
            wall clock would show on a machine that nobody else uses.
        after_round: is given what there is so far, to be kept if the machine goes.
    """
    for step in candidates.values():
        for _ in range(warmup):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_time(candidates[name], calls, device, CLOCKS[clock]) / calls)
        after_round(seconds)
    return seconds


def _time(step: Step, calls: int, device: str, clock: Clock) -> float:
    if device != "cuda":
        start = clock()
        for _ in range(calls):
            step()
        return clock() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def graphed(step: Step, device: str) -> Step:
    """Return ``step`` as one CUDA graph, so that kernels are timed and not their launches; on a CPU as it is."""
    if device != "cuda":
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


median = statistics.median


def row(group: str, name: str, seconds: Sequence[float], **more: object) -> dict[str, object]:
    """Return a row: median, quartiles and n of ``seconds``, and whatever else there is to say."""
    low, middle, high = quartiles(seconds)
    return {
        "group": group,
        "name": name,
        "seconds": middle,
        "low": low,
        "high": high,
        "n": len(seconds),
        **more,
    }


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return theirs / ours as "median (quartiles)", taken round by round: a slow moment slows both."""
    low, middle, high = quartiles([b / a for a, b in zip(ours, theirs, strict=True)])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def copy_rate(device: str, clock: str, rounds: int = 5) -> float:
    """Return bytes read and written per second by copying 1 GiB, far more than a cache holds (64 MiB on a CPU)."""
    source = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device).zero_()
    target = torch.empty_like(source)
    seconds = interleave(
        {"copy": lambda: target.copy_(source)}, rounds=rounds, device=device, calls=5, clock=clock
    )
    return 2 * source.numel() / median(seconds["copy"])


def environment(device: str) -> dict[str, object]:
    """Return what a figure depends on beyond the code."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    if device == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor()


class Report:
    """The rows of one question, kept in ``question``.json from the first on: a borrowed machine may go any time."""

    def __init__(self, out: Path, question: str, device: str, **settings: object) -> None:
        self.path = out / f"{question}.json"
        self.record = {
            "question": question,
            "command": _command(),
            "settings": settings,
            "environment": environment(device),
        }
        self.groups: dict[str, list[dict[str, object]]] = {}

    def put(self, group: str, rows: list[dict[str, object]]) -> None:
        """Keep the rows of a group, in the place of those it had."""
        self.groups[group] = rows
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.record | {"rows": [r for rows in self.groups.values() for r in rows]})

    def finish(self) -> Path:
        """Make the table (.md) and the plot (.png), print the table, return the JSON's path."""
        print(render(self.path), flush=True)
        return self.path


@contextmanager
def watched_tail() -> Iterator[set[str]]:
    """Yield a set to which every run of the fused tail adds its backend: what a compiled or captured step took."""
    from senet.kernels import folded_tail, operator

    seen: set[str] = set()
    passes, merge = operator._passes, folded_tail.merge

    def watch(backend: str) -> object:
        seen.add(backend)
        return passes(backend)

    def watch_folded(*maps: object) -> object:
        seen.add("triton")
        return merge(*maps)

    operator._passes, folded_tail.merge = watch, watch_folded
    try:
        yield seen
    finally:
        operator._passes, folded_tail.merge = passes, merge


def expected_tail(network: nn.Module, device: str, compiled: bool = False) -> set[str] | None:
    """Return the backends that the tails of ``network`` should run on, or None where any may: auto on a CPU.

    With BN folded and ``compiled``, a tail is the compiler's.
    """
    from senet.nn import ResidualTail
    from senet.nn.folding import FoldedTail

    kernels = {m.kernels for m in network.modules() if isinstance(m, ResidualTail) and m.departs is None}
    if device != "cuda":
        return {"triton"} if "triton" in kernels else None
    folded = not compiled and any(isinstance(module, FoldedTail) for module in network.modules())
    return {"triton"} if folded or kernels - {"eager"} else set()


@contextmanager
def demanded_tail(label: str, network: nn.Module, device: str, compiled: bool = False) -> Iterator[None]:
    """Let steps of ``network`` run: what takes another tail than the expected one is not measured.

    Raises:
        SystemExit: with a sentence, if it did.
    """
    expected = expected_tail(network, device, compiled)
    with watched_tail() as seen:
        yield
    if expected is not None and seen != expected:
        ran, wanted = (" and ".join(sorted(backends)) or "eager" for backends in (seen, expected))
        sys.exit(f"error: {label}: the residual tails ran {ran}, not {wanted}, so that nothing was measured")


def _command() -> str:
    """Return the command line, without the machine's folders."""
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return " ".join(words)


def render(path: Path) -> str:
    """Make table (.md) and plot (.png) of a JSON file beside it; return the table."""
    record = json.loads(path.read_text())
    extra = list(dict.fromkeys(key for r in record["rows"] for key in r if key not in _STATISTICS))
    lines = [
        f"# {record['question']}",
        "",
        f"{record['environment']['device']}, {record['environment']['threads']} threads; "
        + ", ".join(f"{k} {v}" for k, v in record["environment"]["versions"].items() if v != "none")
        + "; "
        + ", ".join(f"{k} {v}" for k, v in record["settings"].items()),
        "",
        "| | | ms | quartiles | n | " + " | ".join(extra) + " |",
        "|---|---|---:|---:|---:|" + "---:|" * len(extra),
    ]
    for r in record["rows"]:
        cells = [_cell(r.get(key)) for key in extra]
        quartiles = f"{r['low'] * 1e3:.3g} to {r['high'] * 1e3:.3g}"
        lines.append(
            f"| {r['group']} | {r['name']} | {r['seconds'] * 1e3:.4g} | {quartiles} | {r['n']} | "
            + " | ".join(cells)
            + " |"
        )
    table = "\n".join(lines) + "\n"
    path.with_suffix(".md").write_text(table)
    _plot(record, path.with_suffix(".png"))
    return table


_STATISTICS = ("group", "name", "seconds", "low", "high", "n")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _plot(record: dict, path: Path) -> None:
    try:
        import matplotlib
    except ModuleNotFoundError:  # as on some borrowed machine; `render` draws it elsewhere
        return

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = record["rows"][::-1]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.28 * len(rows)), layout="constrained")
    owners = list(dict.fromkeys(_owner(r) for r in record["rows"]))
    colours = {owner: f"C{index % 10}" for index, owner in enumerate(owners)}
    for y, r in enumerate(rows):
        spread = [[(r["seconds"] - r["low"]) * 1e3], [(r["high"] - r["seconds"]) * 1e3]]
        axes.barh(y, r["seconds"] * 1e3, xerr=spread, color=colours[_owner(r)])
    axes.set_yticks(range(len(rows)), [f"{r['group']}  {r['name']}" for r in rows], fontsize=8)
    axes.set_xlabel("ms, median and quartiles")
    axes.set_title(f"{record['question']}: {record['environment']['device']}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _owner(r: dict) -> str:
    """Return whose a row is, the first word of its name: rows of one owner have one colour."""
    return str(r["name"]).partition(" ")[0]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="images per step (128 on a GPU, 8 on a CPU)")
    parser.add_argument("--rounds", type=int, help="n (30 on a GPU, 5 on a CPU)")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: torch's")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: on a busy machine")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--blocks", type=Path, help="block sizes that tune.py wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, with defaults that depend on the device, and apply --threads and --blocks."""
    options = parser.parse_args(arguments)
    gpu = options.device == "cuda"
    options.batch = options.batch or (128 if gpu else 8)
    options.rounds = options.rounds or (30 if gpu else 5)
    options.dtype = getattr(torch, options.dtype)
    torch.backends.cudnn.benchmark = True  # as a training run has it
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.blocks:
        from senet.kernels.tiling import TUNED, Tile

        for name, channels, pixels, values in json.loads(options.blocks.read_text()):
            TUNED[(name, channels, pixels)] = Tile(*values)
    return options
