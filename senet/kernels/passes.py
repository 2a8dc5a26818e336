"""The passes of which the fused tail is made: one protocol, and a module for ATen and one for Triton.

Maps are (N, C, H, W), dense, in one layout and of one dtype; everything else is of ``accumulation_dtype``, (N, C)
or (C,) if nothing else is said. Notation as in ``senet.kernels.operator``.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from senet.kernels.gate import GateGradients


@dataclass(frozen=True)
class Norm:
    """BN as it acts, ``weight * (x - mean) * inv + bias``, all four (C,)."""

    mean: Tensor
    inv: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of the pixels of every (n, c), cut into S slices of at most ``pixels_per_slice`` pixels.

    Deviations are from each slice's own mean, so a mean that is large against the spread costs no digits.

    Attributes:
        mean: (N, S, C), float32 (float64 for float64 maps).
        squares: sum of squared deviations from ``mean``, same shape.
        pixels: H * W.
        pixels_per_slice: every slice has this many pixels but the last, which has the rest.
    """

    mean: Tensor
    squares: Tensor
    pixels: int
    pixels_per_slice: int


class Passes(Protocol):
    """``aten_passes`` and ``triton_passes`` are modules of this shape."""

    def moments(self, x: Tensor) -> Moments:
        """Return mean and sum of squared deviations of every slice and channel."""

    def combine(self, m: Moments, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mean, biased variance, rsqrt(variance + eps) and unbiased variance (C,) over all images."""

    def squeeze(self, m: Moments, norm: Norm) -> tuple[Tensor, Tensor]:
        """Return the mean over (h, w) of the normalised map and of BN's output."""

    def merge(
        self, x: Tensor, shortcut: Tensor | None, norm: Norm, logits: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return ``relu(gate * norm(x) + shortcut)`` and ``gate = sigmoid(logits)``; no logits, no gate."""

    def gradient_sums(
        self, dy: Tensor, dy2: Tensor | None, y: Tensor, x: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return g = (dy + dy2) * (y > 0) and its sums over a slice with 1 and with the normalised x, (N, S, C)."""

    def gate_gradient(
        self, plain: Tensor, weighted: Tensor, gate: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return both sums over all slices, and the gradient of the gate's logits."""

    def parameter_gradients(
        self,
        plain: Tensor,
        weighted: Tensor,
        gate: Tensor | None,
        normalised: Tensor | None,
        gradients: GateGradients | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of BN's weight and bias (C,), and of b1 (C/r,) and b2 (C,), empty without SE.

        ``plain`` and ``weighted`` are those of ``gate_gradient``, without SE those of ``gradient_sums``.
        """

    def grad_input(
        self,
        g: Tensor,
        x: Tensor,
        norm: Norm,
        gate: Tensor | None,
        dz: Tensor | None,
        through: tuple[Tensor, Tensor],
        share: float,
    ) -> Tensor:
        """Return weight * inv * (gate * g + dz / (H W) - share * (dbias + (x - mean) * inv * dweight)).

        ``through`` is (dweight, dbias); ``share`` is 1 / M where the statistics depend on x, and 0 where they are
        constants.
        """
