"""Everything that wants a GPU, as a plan for a borrowed one: three calls of ten minutes, the answer first.

    python benchmarks/gpu_all.py --call 1 --out DIR [--archive FILE.tar.gz] [--stages check tail ...] [--tiny]

Call 1: is the fused tail right, what does it save, the eager training step: the answer within four minutes; then the
same compiled, and small batches. Call 2: tiles tuned, the tail with them, inference, where the time goes, input step,
bytes counted by ncu, networks for CIFAR. Call 3: the tests, the loop, other networks, the loader. Without ``--call``
all three. Stages run one after the other, each in a process with a limit of time, and write to DIR after every row; a
stage that fails does not stop the next, but nothing is measured after a check that fails. Everything comes back in one
archive, written anew every few seconds: a machine that is taken away leaves the rows of the stage that it was at.
``--tiny`` rehearses every stage with next to no work, on a CPU too, where Triton's interpreter stands in for the GPU.
``--list`` prints the plan.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FIVE = "resnet50, stride on 3x3"  # ours, ours unfused, ours plain, timm's with SE, torchvision's plain
OTHERS = ["resnext50_32x4d", "bn_inception"]
SE_MODES = ["max-autotune", "reduce-overhead"]
PACK_EVERY = 10.0  # seconds
INTERPRETED = (
    "import runpy, sys, interpreting; interpreting.interpret_triton(); "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a script in Triton's interpreter, also with the versions that do not fit each other (torch 2.11)."""
OUR_KERNELS = (
    "regex:(moments|combine|squeeze|merge|gradient_sums|gate_gradient|parameter_gradients|grad_input)_kernel"
)


@dataclass(frozen=True)
class Stage:
    """One process of the plan.

    Attributes:
        call: the call it belongs to.
        seconds: it is expected to take, from counts; nobody measured it.
        command: what runs.
        tiny: options of a rehearsal, in the place of those in ``full``.
        full: options that a rehearsal leaves out.
    """

    call: int
    seconds: int
    command: list[str]
    tiny: list[str]
    full: list[str]

    def words(self, tiny: bool) -> list[str]:
        """Return the command line."""
        return [*self.command, *(self.tiny if tiny else self.full)]

    def limit(self, tiny: bool) -> int:
        """Return the seconds after which it is stopped; a rehearsal may be on any machine."""
        return 3600 if tiny else max(120, 2 * self.seconds)


def plan(out: Path) -> dict[str, Stage]:
    """Return the stages in their order."""
    tuned = ["--blocks", str(out / "blocks.json")]
    tiny = ["--batch", "2", "--rounds", "2"]
    image = [*tiny, "--size", "32"]

    def script(name: str, *options: str) -> list[str]:
        return [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *options]

    eager, compiled = ["--modes", "eager"], ["--modes", "compiled"]
    five = script("train_step", "--groups", FIVE)
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",
        "-n0",
    ]
    counters = "dram__bytes_read.sum,dram__bytes_write.sum,gpu__time_duration.sum"
    ncu = [
        "ncu",
        "--clock-control",
        "none",
        "--metrics",
        counters,
        "--csv",
        "--log-file",
        str(out / "bytes.csv"),
    ]
    ncu += ["--kernel-name", OUR_KERNELS, "--launch-count", "96"]
    others = script("train_step", *tuned, "--name", "others", "--groups", *OTHERS)

    def small(batch: int, seconds: int) -> Stage:
        few = script("train_step", "--name", f"batch{batch}", "--groups", FIVE, "--modes", "eager")
        full = ["--se-modes", "reduce-overhead", "--batch", str(batch), "--rounds", "10"]
        return Stage(1, seconds, few, image, full)

    def cifar(model: str, seconds: int) -> Stage:
        modes = ["--modes", "eager", "compiled", "reduce-overhead", "--batch", "128", "--rounds", "10"]
        return Stage(
            2, seconds, script("train_step", "--name", model, "--model", model), [*image, *eager], modes
        )

    return {
        "check": Stage(1, 45, script("check"), ["--tiny", *tiny], []),
        "tail": Stage(1, 60, script("tail"), [*tiny, "--stages", "5", "--no-compile"], ["--rounds", "10"]),
        "train_step": Stage(1, 100, [*five, *eager], image, ["--rounds", "10"]),
        "warm": Stage(1, 130, [*five, "--warm", "4"], [*image, *eager], [*compiled, "--se-modes", *SE_MODES]),
        "compiled": Stage(
            1, 130, [*five, "--name", "compiled"], [*image, *eager],
            ["--modes", "compiled", "--se-modes", "eager", *SE_MODES, "--rounds", "10"],
        ),
        "batch8": small(8, 60),
        "batch16": small(16, 60),
        "tune": Stage(2, 90, script("tune"), [*tiny, "--quick", "--size", "6", "--stages", "5"],
                      ["--stages", "2", "3", "4", "5"]),
        "tuned_tail": Stage(2, 60, script("tail", *tuned, "--name", "tuned_tail"),
                            [*tiny, "--stages", "5", "--no-compile"], ["--rounds", "10"]),
        "inference": Stage(2, 120, script("inference", *tuned, "--groups", FIVE), [*image, *eager], []),
        "where": Stage(2, 60, script("where", *tuned), image, ["--rounds", "3"]),
        "inputs": Stage(2, 60, script("inputs"), [*image, "--no-compile"], []),
        "bytes": Stage(2, 40, [*ncu, *script("tail", *tuned, "--name", "bytes", "--no-compile", "--rounds", "1")],
                       ["--stages", "5"], ["--stages", "2", "5"]),
        "cifar20": cifar("se_resnet20", 50),
        "cifar110": cifar("se_preact_resnet110", 110),
        "tests": Stage(3, 200, [*pytest, "tests/kernels", "tests/nn", "tests/data/test_inputs.py"],
                       ["-k", "odd and triton"], ["-m", "not slow"]),
        "loop": Stage(3, 100, script("loop"), image, []),
        "others": Stage(3, 150, others, [*image, *eager], []),
        "senet154": Stage(3, 60, script("train_step", "--name", "senet154", "--groups", "senet154", *eager),
                          image, ["--batch", "64", "--rounds", "5"]),
        "loader": Stage(3, 60, script("data_loading"), ["--made-up", "20", "--rounds", "1", "--workers", "0"],
                        ["--made-up", "300", "--rounds", "3", "--workers", "8"]),
    }  # fmt: skip


def environment_of(tiny: bool, interpreted: bool) -> dict[str, str]:
    """Return the environment of a stage: this checkout comes first, what was on the path stays behind it."""
    path = [str(ROOT), *([str(HERE), str(ROOT / "tests")] if interpreted else [])]
    if inherited := os.environ.get("PYTHONPATH"):  # wheels installed with --target are there
        path.append(inherited)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    if tiny:  # where others compute too, threads wait a time slice for each other
        environment["OMP_NUM_THREADS"] = "1"
    return environment


def run(name: str, stage: Stage, tiny: bool, keep: Callable[[], object] = lambda: None) -> str:
    """Run a stage, and ``keep`` what there is every ``PACK_EVERY`` seconds; return how the stage ended."""
    command = stage.words(tiny)
    if shutil.which(command[0]) is None:
        return f"skipped, there is no {command[0]}"
    interpreted = tiny and name in ("check", "tune")
    environment = environment_of(tiny, interpreted)
    if interpreted:
        command = [command[0], "-c", INTERPRETED, *command[1:]]
    start, limit = time.monotonic(), stage.limit(tiny)
    print(f"--- {name}: {' '.join(command)}", flush=True)
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            while (status := ended(process, PACK_EVERY)) is None:
                keep()
                if time.monotonic() - start > limit:
                    return f"stopped after {limit} s"
        finally:
            process.kill()
    return f"{'done' if status == 0 else f'failed with {status}'} in {time.monotonic() - start:.0f} s"


def ended(process: subprocess.Popen, seconds: float) -> int | None:
    """Return the status of a process that ends within ``seconds``, else None."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def pack(out: Path, archive: Path) -> None:
    """Write the one file that comes back, whole or not at all; a stage may be writing in ``out``."""
    part = archive.with_name(f".{archive.name}.part")
    with tarfile.open(part, "w:gz") as tar:
        for path in sorted(p for p in out.rglob("*") if p.is_file() and p not in (archive, part)):
            with suppress(FileNotFoundError):  # temporary ones are renamed
                data = path.read_bytes()
                member = tarfile.TarInfo(str(Path("benchmarks", path.relative_to(out))))
                member.size, member.mtime = len(data), int(time.time())
                tar.addfile(member, io.BytesIO(data))
    os.replace(part, archive)


def main() -> int:
    """Run the stages; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--call", type=int, choices=[1, 2, 3])
    parser.add_argument("--stages", nargs="*")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    stages = plan(out)
    chosen = options.stages or [name for name, s in stages.items() if options.call in (None, s.call)]
    if options.list:
        for name, stage in ((name, stages[name]) for name in chosen):
            print(f"call {stage.call}  {stage.seconds:4d} s  {name:11} {' '.join(stage.words(False))}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "blocks.json").exists():
        (out / "blocks.json").write_text("[]\n")
    ends: dict[str, str] = {}

    def keep() -> None:
        (out / "summary.txt").write_text("".join(f"{stage}: {end}\n" for stage, end in ends.items()))
        if options.archive:
            pack(out, options.archive.resolve())

    for name in chosen:
        ends[name] = "begun"
        ends[name] = run(name, stages[name], options.tiny, keep)
        keep()
        if name == "check" and "failed" in ends[name]:
            break
    print("--- summary\n" + (out / "summary.txt").read_text())
    return int(any("failed" in end or "stopped" in end for end in ends.values()))


if __name__ == "__main__":
    sys.exit(main())
