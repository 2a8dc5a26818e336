"""Everything that wants a GPU, in one call: check, tune, then time with the tuned blocks, and print the tables.

    python benchmarks/gpu_all.py --out DIR [--stages check tune tail ...] [--tiny]

Stages run one after the other, each in a process of its own with a limit of time, and write to DIR as they end;
a stage that fails does not stop the next. ``--tiny`` tries every stage with next to no work, on a CPU too, where
Triton's interpreter stands in for the GPU.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TINY = ["--batch", "2", "--rounds", "2"]
SMALL_IMAGE = ["--size", "32"]
OTHER_GROUPS = ["resnext50_32x4d", "senet154", "bn_inception"]


def stages(out: Path, tiny: bool) -> dict[str, tuple[list[str], int]]:
    """Return the command of every stage and its limit in seconds."""
    python = sys.executable
    small = TINY if tiny else []
    image = [*TINY, *SMALL_IMAGE] if tiny else []
    blocks = ["--blocks", str(out / "blocks.json"), "--out", str(out)]

    def script(name: str, *options: str) -> list[str]:
        return [python, str(HERE / f"{name}.py"), *options]

    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels"]
    on_gpu = ["tests/data/test_inputs.py", "tests/data/test_decoders.py", "tests/training/test_evaluate.py"]
    counters = "dram__bytes_read.sum,dram__bytes_write.sum,gpu__time_duration.sum"
    ncu = ["ncu", "--metrics", counters, "--csv", "--log-file", str(out / "bytes.csv")]
    ncu += ["--kernel-name", "regex:_kernel", "--launch-count", "64"]
    tune = ["--quick", "--size", "6", "--stages", "5"] if tiny else []
    modes = ["--modes", "eager"] if tiny else []
    others = OTHER_GROUPS[-1:] if tiny else OTHER_GROUPS
    return {
        "check": ([*tests, *(["-k", "odd and triton"] if tiny else on_gpu)], 600),
        "tune": (script("tune", "--out", str(out), *small, *tune), 400),
        "tail": (script("tail", *blocks, *small, *(["--stages", "5"] if tiny else [])), 400),
        "train_step": (script("train_step", *blocks, *image, *modes), 600),
        "inference": (script("inference", *blocks, *image, *modes), 600),
        "where": (script("where", *blocks, *(image or ["--rounds", "5"])), 300),
        "inputs": (script("inputs", *blocks, *image, *(["--no-compile"] if tiny else [])), 200),
        "loop": (script("loop", *blocks, *image), 300),
        "cost": (
            script("cost", *blocks, *(["--rounds", "2", "--batches", "2", "--sizes", "32"] if tiny else [])),
            300,
        ),
        "others": (
            script("train_step", *blocks, *image, *modes, "--name", "others", "--groups", *others),
            600,
        ),
        "others_inference": (
            script("inference", *blocks, *image, *modes, "--name", "others_inference", "--groups", *others),
            600,
        ),
        "bytes": (ncu + script("tail", *blocks, "--rounds", "1", "--stages", "2", "--no-compile"), 300),
    }


def run(name: str, command: list[str], limit: int, tiny: bool) -> str:
    """Run a stage; return how it ended."""
    if shutil.which(command[0]) is None:
        return f"skipped, there is no {command[0]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if tiny and name == "tune":
        environment["TRITON_INTERPRET"] = "1"
    start = time.monotonic()
    print(f"--- {name}: {' '.join(command)}", flush=True)
    try:
        status = subprocess.run(command, cwd=ROOT, env=environment, timeout=limit, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"stopped after {limit} s"
    return f"{'done' if status == 0 else f'failed with {status}'} in {time.monotonic() - start:.0f} s"


def main() -> int:
    """Run the stages; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--stages", nargs="*")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "blocks.json").touch()
    if not (out / "blocks.json").read_text():
        (out / "blocks.json").write_text("[]")
    plan = stages(out, options.tiny)
    ends = {name: run(name, *plan[name], options.tiny) for name in options.stages or plan}
    summary = "\n".join(f"{name}: {end}" for name, end in ends.items())
    print(f"--- summary\n{summary}")
    (out / "summary.txt").write_text(summary + "\n")
    return int(any("failed" in end or "stopped" in end for end in ends.values()))


if __name__ == "__main__":
    sys.exit(main())
