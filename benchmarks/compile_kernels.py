"""Compile every Triton kernel of the fused tail for an H100 and an A100 without either, and count what a step launches.

Training steps of the tails of SE-ResNet-50 and its plain twin, and the merge that networks with BN folded run in
inference ("folded"), are run with empty maps and a recorder in the place of the kernels: what would be launched, with
which arguments and types, is then compiled as a launch would, and the table says what the GPU's assembler made of it:
registers per thread, bytes spilled, shared memory, and the widest access to memory in bits (128 is all there is).
Nothing here is a time.
"""

import argparse
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "0"

import torch
from tail import STAGES
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile as compile_source
from triton.knobs import nvidia

from senet import SEConfig
from senet.kernels import folded_tail, operator, sync, triton_kernels, triton_passes
from senet.kernels.operator import fused_tail, fused_tail_backward
from senet.nn import ResidualTail

TARGETS = {"sm_90": 90, "sm_80": 80}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}  # residual units per stage
# ATen operations that launch nothing themselves; what they call is looked at.
TRANSPARENT = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "view",
    "t",
    "transpose",
    "as_strided",
    "detach",
}
TRANSPARENT |= {"flatten", "reshape", "to", "_to_copy", "expand", "contiguous", "alias", "numpy_T", "clone"}


@dataclass(frozen=True)
class Variant:
    """What Triton compiles a kernel for: types, values known when compiling, and arguments divisible by 16."""

    kernel: str
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[str, ...]
    warps: int


@dataclass(frozen=True)
class Resources:
    """What the assembler says of a compiled variant."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    load_bits: int
    store_bits: int


class Recorder:
    """Stands for a kernel: remembers how it would have been launched."""

    def __init__(self, name: str, launches: list[tuple[Variant, int]]) -> None:
        self.name, self.launches = name, launches

    def __getitem__(self, programs: tuple[int, ...]) -> Any:
        return self._launch

    def _launch(
        self, *tensors: Tensor | None, num_warps: int = 4, enable_fp_fusion: bool, **keywords: Any
    ) -> None:
        names = getattr(triton_kernels, self.name).arg_names
        types, constants, divisible = {}, {}, []
        for name, value in {**dict(zip(names, tensors, strict=False)), **keywords}.items():
            if isinstance(value, Tensor):
                types[name] = f"*{TYPES[value.dtype]}"
                divisible.append(name)  # torch's allocator aligns to 512 bytes
            elif name.isupper() or value is None or value == 1:  # Triton knows None and 1 when it compiles
                types[name], constants[name] = "constexpr", value
            elif isinstance(value, float):
                types[name] = "fp32"
            else:
                types[name] = "i32"
                divisible += [name] if value % 16 == 0 else []
        ordered = tuple((name, types[name]) for name in names)
        variant = Variant(self.name, ordered, tuple(constants.items()), tuple(divisible), num_warps)
        maps = sum(isinstance(t, Tensor) and t.dim() == 4 for t in tensors)
        self.launches.append((variant, maps))


@contextmanager
def recorded() -> Iterator[list[tuple[Variant, int]]]:
    """Yield the list to which every launch adds its variant and how many maps it reads or writes."""
    launches: list[tuple[Variant, int]] = []
    names = [name for name in vars(triton_kernels) if name.endswith("_kernel")]
    kernels, triton_passes.kernels = (
        triton_passes.kernels,
        SimpleNamespace(**{name: Recorder(name, launches) for name in names}),
    )
    try:
        yield launches
    finally:
        triton_passes.kernels = kernels


def training_step(
    shape: tuple[int, ...],
    se: SEConfig | None,
    dtype: torch.dtype,
    layout: torch.memory_format,
    summands: int = 1,
) -> tuple[list[tuple[Variant, int]], Counter[str]]:
    """Return the launches of a tail's step, forwards and backwards, and the ATen operations between them.

    The gradient arrives as one map, or in a compiled network as two ``summands``.
    """
    tail = ResidualTail(shape[1], se).to(memory_format=layout)
    x, shortcut, dy = (torch.empty(shape, dtype=dtype).to(memory_format=layout) for _ in range(3))
    gate = (None,) * 4 if se is None else tail.se.standard_gate()
    arguments = (tail.bn.weight, tail.bn.bias, None, None, *gate, 1e-5, "", "triton")
    backward = partial(fused_tail_backward, dy2=dy) if summands == 2 else fused_tail_backward
    with (
        patch.object(operator, "fused_tail_backward", backward),
        recorded() as launches,
        profile(activities=[ProfilerActivity.CPU]) as profiler,
    ):
        y, mean, _, unbiased, *_ = fused_tail(x.requires_grad_(), shortcut.requires_grad_(), *arguments)
        sync.update_running_statistics(tail.bn, mean, unbiased)
        y.backward(dy)
    return launches, Counter(_outermost(profiler.events()))


def folded_merge(
    shape: tuple[int, ...], se: bool, dtype: torch.dtype, layout: torch.memory_format
) -> list[tuple[Variant, int]]:
    """Return the launches of a folded tail's merge, in inference, with or without a gate."""
    x, shortcut = (torch.empty(shape, dtype=dtype).to(memory_format=layout) for _ in range(2))
    bias, gate = x.new_empty(shape[1]), x.new_empty(*shape[:2], 1, 1)
    with recorded() as launches:
        folded_tail.merge(x, shortcut, bias, gate if se else None)
    return launches


def _outermost(events: Iterable[FunctionEvent]) -> Iterator[str]:
    """Yield the names of the ATen operations that no other one calls."""
    for event in events:
        name, caller = event.name.removeprefix("aten::"), event.cpu_parent
        while caller is not None and caller.name.removeprefix("aten::") in TRANSPARENT:
            caller = caller.cpu_parent
        called = caller is not None and caller.name.startswith("aten::")
        if event.name.startswith("aten::") and name not in TRANSPARENT and not called:
            yield name


def compiled(variant: Variant, target: str) -> Resources:
    """Compile a variant and read what the assembler says."""
    kernel = getattr(triton_kernels, variant.kernel)
    place = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    source = ASTSource(
        kernel,
        dict(variant.types),
        {place[name]: value for name, value in variant.constants},
        {place[name]: [["tt.divisibility", 16]] for name in variant.divisible},
    )
    options = {"num_warps": variant.warps, "enable_fp_fusion": True}
    result = compile_source(source, target=GPUTarget("cuda", TARGETS[target], 32), options=options)
    binary = Path(os.environ.get("TMPDIR", "/tmp")) / f"senet-{os.getpid()}.cubin"
    binary.write_bytes(result.asm["cubin"])
    try:
        command = [nvidia.cuobjdump.path, "--dump-resource-usage", str(binary)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        binary.unlink()
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    bits = {
        kind: max((int(n or 1) * int(b) for n, b in re.findall(pattern, result.asm["ptx"])), default=0)
        for kind, pattern in (
            ("load", r"ld\.global[.\w:]*?(?:\.v(\d))?\.[bfu](\d+)"),
            ("store", r"st\.global[.\w:]*?(?:\.v(\d))?\.[bfu](\d+)"),
        )
    }
    spilled = found["STACK"] + found["LOCAL"]
    return Resources(found["REG"], spilled, result.metadata.shared, bits["load"], bits["store"])


def variants(stages: list[int], batch: int, quick: bool) -> dict[Variant, str]:
    """Return what the tails of these stages launch, and where first."""
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    types = [torch.bfloat16] if quick else list(TYPES)
    found: dict[Variant, str] = {}
    for stage, layout, dtype in product(stages, list(layouts)[: 1 if quick else 2], types):
        channels, size = STAGES[stage]
        shape = (batch, channels, size, size)
        for how, launches in launched(shape, dtype, layouts[layout]):
            for variant, _ in launches:
                found.setdefault(variant, f"stage {stage} {layout} {TYPES[dtype]}{how}")
    return found


def launched(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> Iterator[tuple[str, list[tuple[Variant, int]]]]:
    """Yield the launches of every way to run tails of this shape, and its name."""
    for name, se, summands in ((" SE", SEConfig(), 1), ("", None, 1), (" SE two summands", SEConfig(), 2)):
        yield name, training_step(shape, se, dtype, layout, summands)[0]
    for name, gated in ((" SE folded", True), (" folded", False)):
        yield name, folded_merge(shape, gated, dtype, layout)


def counts(batch: int) -> list[dict[str, object]]:
    """Return launches and map transfers of a step of all tails, with and without SE, in bfloat16 channels_last.

    "sums" are the gradients of the units' outputs, two for all units but the last: three transfers where autograd
    adds them, one where the compiler leaves that to the tail.
    """
    rows = []
    for label, se in (("SE-ResNet-50", SEConfig()), ("ResNet-50", None)):
        triton = aten = transfers = moved = sums = 0
        for stage, (channels, size) in STAGES.items():
            shape = (batch, channels, size, size)
            launches, between = training_step(shape, se, torch.bfloat16, torch.channels_last)
            triton += BLOCKS[stage] * len(launches)
            aten += BLOCKS[stage] * sum(between.values())
            transfers += BLOCKS[stage] * sum(maps for _, maps in launches)
            size_of_map = 2 * batch * channels * size**2
            moved += BLOCKS[stage] * sum(maps for _, maps in launches) * size_of_map
            sums += (BLOCKS[stage] - (stage == max(STAGES))) * size_of_map
        rows.append({
            "network": label, "triton launches": triton, "aten launches": aten,
            "map transfers": transfers, "GB": round(moved / 1e9, 2),
            "GB with sums, eager": round((moved + 3 * sums) / 1e9, 2),
            "GB with sums, compiled": round((moved + sums) / 1e9, 2), "aten": dict(between),
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Return rows as a markdown table."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(r[key]) for key in head) + " |" for r in rows]) + "\n"


def main() -> None:
    """Compile everything, print the table and how many variants that were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="*", default=list(STAGES))
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="bfloat16 in channels_last only")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    step = counts(options.batch)
    found = variants(options.stages, options.batch, options.quick)
    rows = []
    with ProcessPoolExecutor(options.processes) as pool:
        for target in options.targets:
            for (variant, where), resources in zip(
                found.items(), pool.map(partial(compiled, target=target), found), strict=True
            ):
                tile = {name: value for name, value in variant.constants if name.isupper()}
                size = "x".join(str(tile[name]) for name in ("PIXELS", "ROWS", "CHANNELS") if name in tile)
                name = variant.kernel.removesuffix("_kernel")
                rows.append({"target": target, "kernel": name, "where": where, "tile": size,
                             "warps": variant.warps, **asdict(resources)})  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "triton": __import__("triton").__version__}
    record = {"versions": versions, "batch": options.batch, "counts": step, "kernels": rows}
    (options.out / "kernels.json").write_text(json.dumps(record, indent=1) + "\n")
    text = f"# Launches and transfers of a training step, batch {options.batch}, counted\n\n{table(step)}\n"
    text += f"# Compiled without a GPU: {versions}\n\n{table(rows)}"
    (options.out / "kernels.md").write_text(text)
    print(text)
    print("compiled", len(rows), "spilling", sum(bool(row["spilled_bytes"]) for row in rows))


if __name__ == "__main__":
    main()
