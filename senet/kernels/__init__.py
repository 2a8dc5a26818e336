"""The residual tail ``relu(s * BN(x) + shortcut)`` as one operator, and its eager definition."""

from typing import Literal, get_args

from senet.errors import UserError, did_you_mean

Kernels = Literal["auto", "eager", "triton"]


def check_kernels(kernels: str) -> None:
    """Refuse a word that is not one of ``Kernels``.

    Raises:
        UserError: naming the nearest valid word.
    """
    if kernels not in get_args(Kernels):
        raise UserError(f'kernels is "{kernels}"{did_you_mean(kernels, get_args(Kernels))}')
