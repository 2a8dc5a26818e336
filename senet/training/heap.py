"""Memory of a training process on a CPU: what a step frees is kept for the next one."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``."""


def keep_freed_memory() -> None:
    """Let glibc's allocator keep freed memory; with another C library nothing changes.

    By default it hands large blocks back to the system, so that every step pages all its activations in again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)
