"""The residual tail ``relu(s * BN(x) + shortcut)`` as one operator, and the eager definition it is held to."""

from senet.kernels.dispatch import Kernels, check_kernels, residual_tail

__all__ = ["Kernels", "check_kernels", "residual_tail"]
