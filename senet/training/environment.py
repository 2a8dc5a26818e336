"""The process and its machine: versions, git state and hardware, recorded with every run; its memory."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "senet",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "timm",
    "hydra-core",
    "omegaconf",
    "wandb",
    "numpy",
)


def _git(*arguments: str) -> str | None:
    command, here = ["git", *arguments], Path(__file__).parent
    try:
        return subprocess.check_output(
            command, cwd=here, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_environment() -> dict[str, Any]:
    """Return versions, git commit and whether it was changed, processor, memory and GPUs, as plain values."""
    # Where senet is installed in a folder of somebody else's repository, that is not its own.
    ours = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    status = _git("status", "--porcelain") if ours else None
    return {
        "python": sys.version.split()[0],
        "packages": {package: _version(package) for package in PACKAGES},
        "git_commit": _git("rev-parse", "HEAD") if ours else None,
        "git_changed_files": None if status is None else len(status.splitlines()),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what a step frees for the next one; with another C library nothing changes.

    By default it hands large blocks back to the system, so that every step pages all its activations in again.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # glibc's numbers of mallopt's parameters
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 << 20)
