"""The residual tail ``relu(s * BN(x) + shortcut)`` as one operator, and its eager definition."""

from senet.kernels.dispatch import Kernels, check_kernels

__all__ = ["Kernels", "check_kernels"]
