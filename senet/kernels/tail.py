"""Which implementation of the residual tail runs, and why: the one door to this package."""

import logging
import os
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor, fx, nn

from senet.errors import UserError
from senet.kernels import Kernels, reference, sync
from senet.kernels.gate import GateParameters
from senet.kernels.operator import fused_tail

logger = logging.getLogger("senet")
_said: set[str] = set()
_HAS_TRITON = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_NORMALISE = nn.BatchNorm2d.forward
_CPU_MIN_VALUES_PER_IMAGE = 2**16  # C * H * W; below, one ATen call per image costs more than a pass saves


class SEBlock(Protocol):
    """An SE block that knows whether its gate is the one that is fused."""

    @property
    def excitation(self) -> nn.Module:
        """The module that makes the gate, and that a hook may watch."""

    def gate(self, x: Tensor) -> Tensor:
        """Return what scales x, (B, C, 1, 1)."""

    def standard_gate(self) -> GateParameters | str:
        """Return the parameters of ``sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2)``, or why that is not the gate."""


def residual_tail(
    x: Tensor,
    shortcut: Tensor | None,
    bn: nn.BatchNorm2d,
    se: SEBlock | None = None,
    kernels: Kernels = "auto",
) -> Tensor:
    """Return ``relu(gate(BN(x)) * BN(x) + shortcut)`` and update BN's running statistics as ``bn`` would.

    Args:
        x: (B, C, H, W).
        shortcut: (B, C, H, W), or None.
        bn: ``BatchNorm2d``, or a synchronised one, in the mode it is in.
        se: the SE block, or None.
        kernels: "eager" composes the modules themselves, one operation after the other. "auto" takes the
            fused operator wherever it supports the case and is faster (Triton on CUDA, ATen on a CPU), else
            eager, and logs once why a GPU goes without. "triton" insists.

    Raises:
        UserError: for kernels="triton" where the case is not supported.
    """
    if isinstance(cast(object, x), fx.Proxy):  # FX traces modules one by one, and has no shapes to choose by
        return reference.eager_tail(x, shortcut, bn, None if se is None else se.gate)
    gate = None if se is None else se.standard_gate()
    reason = why_eager(x, shortcut, bn, se, kernels)
    if reason is not None or isinstance(gate, str):
        if kernels == "triton":
            raise UserError(f"kernels=triton, but {reason}: use kernels=auto")
        if x.is_cuda and kernels == "auto":
            _say_once(f"the residual tail runs unfused: {reason}")
        return reference.eager_tail(x, shortcut, bn, None if se is None else se.gate)
    if shortcut is not None and shortcut.dtype != x.dtype:  # promote as the addition would
        dtype = torch.promote_types(x.dtype, shortcut.dtype)
        x, shortcut = x.to(dtype), shortcut.to(dtype)
    batch_statistics = bn.training or bn.running_mean is None
    y: Tensor
    y, mean, _, unbiased, *_ = fused_tail(
        x,
        shortcut,
        bn.weight,
        bn.bias,
        None if batch_statistics else bn.running_mean,
        None if batch_statistics else bn.running_var,
        *((None,) * 4 if gate is None else gate),
        bn.eps,
        sync.group_of(bn),
        "aten" if x.device.type == "cpu" and kernels == "auto" else "triton",
    )
    if bn.training and bn.track_running_stats:
        sync.update_running_statistics(bn, mean, unbiased)
    return y


def _say_once(sentence: str) -> None:
    if sentence not in _said and not torch.compiler.is_compiling():
        _said.add(sentence)
        logger.warning(sentence)


def why_eager(
    x: Tensor,
    shortcut: Tensor | None,
    bn: nn.BatchNorm2d,
    se: SEBlock | None,
    kernels: Kernels,
    device: str | None = None,
) -> str | None:
    """Return why the fused operator does not take this case, or None; ``device`` if x only has its shape."""
    device = device or x.device.type
    if kernels == "eager":
        return "kernels=eager"
    kind: type[nn.Module] = type(bn)
    across_ranks = kind is nn.SyncBatchNorm or "across_ranks" in vars(kind)  # no subclass, which may do more
    if not (is_as_written(bn, nn.BatchNorm2d, _NORMALISE) or across_ranks) or not bn.affine:
        return f"{bn} is not an affine BatchNorm2d, plain or synchronised"
    gate = None if se is None else se.standard_gate()
    if isinstance(gate, str):
        return gate
    if is_hooked(bn) or (se is not None and is_hooked(se.excitation)):
        return "a hook on BN or on the excitation wants to see what fusing never stores"
    if shortcut is not None and shortcut.shape != x.shape:
        return f"the shapes {tuple(x.shape)} and {tuple(shortcut.shape)} of branch and shortcut differ"
    if x.numel() == 0 or (bn.training and x.numel() == x.shape[1] and not sync.group_of(bn)):
        return "a batch of less than two values per channel has no statistics"
    if is_exporting():
        return "an exported graph holds standard operators only"
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return "torch.func differentiates standard operators only"
    if kernels == "triton" or device == "cuda":
        return unsupported_by_triton(device, x.dtype)
    return _not_worthwhile_on_cpu(x, device, bn, se)


def is_exporting() -> bool:
    """Whether ``torch.export`` or the ONNX exporter is reading this code."""
    # Not torch.compiler.is_exporting(): Dynamo of torch 2.11 takes it for True in every graph it compiles.
    return torch.compiler._is_exporting_flag or torch.onnx.is_in_onnx_export()


def unsupported_by_triton(device: str, dtype: torch.dtype) -> str | None:
    """Return why the Triton passes do not take maps of this kind, or None."""
    if not _HAS_TRITON:
        return "Triton is not installed"
    if device != "cuda" and not _INTERPRETED:
        return f"the maps are on the {device} device"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the maps are {dtype}"
    return None


def _not_worthwhile_on_cpu(x: Tensor, device: str, bn: nn.BatchNorm2d, se: SEBlock | None) -> str | None:
    if device != "cpu":
        return f"the maps are on the {device} device"
    if sync.group_of(bn):  # torch's own SyncBatchNorm refuses a CPU
        return None
    if torch.compiler.is_compiling() and not bn.training:
        return "the compiler fuses the eager definition better"
    if se is None or x.numel() // x.shape[0] < _CPU_MIN_VALUES_PER_IMAGE:
        return "the passes that fusing saves are few or small"
    return None


def is_as_written(
    module: nn.Module, kind: type[nn.Module], function: object, method: str = "forward"
) -> bool:
    """Whether ``module`` is a ``kind``, no subclass, and its ``method`` is still ``function``."""
    return type(module) is kind and getattr(kind, method) is function and method not in module.__dict__


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody watches ``module`` or a part of it."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in module.modules()
    )
