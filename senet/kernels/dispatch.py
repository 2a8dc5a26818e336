"""Which implementation of the residual tail runs, and why: the one door to this package."""

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, Protocol, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from senet.errors import UserError, did_you_mean
from senet.kernels import reference
from senet.kernels.operator import residual_tail as fused

Kernels = Literal["auto", "eager", "triton"]

logger = logging.getLogger("senet")
_said: set[str] = set()
_HAS_TRITON = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_CPU_MIN_VALUES_PER_IMAGE = 2**16  # C * H * W; below, one ATen call per image costs more than a pass saves


class Excitation(Protocol):
    """A module whose output is ``sigmoid(fc2(relu(fc1(z))))``."""

    fc1: nn.Conv2d
    fc2: nn.Conv2d

    def modules(self) -> Iterator[nn.Module]:
        """Yield the module itself and all its parts."""
        ...


class SEBlock(Protocol):
    """An SE block with average squeeze and sigmoid gate."""

    @property
    def excitation(self) -> Excitation:
        """What makes the gate of the squeezed descriptor."""
        ...

    def gate(self, x: Tensor) -> Tensor:
        """Return ``excitation(mean_hw(x))``, (B, C, 1, 1)."""
        ...


def check_kernels(kernels: str) -> None:
    """Refuse a word that is not one of ``Kernels``.

    Raises:
        UserError: naming the nearest valid word.
    """
    if kernels not in get_args(Kernels):
        raise UserError(f'kernels is "{kernels}"{did_you_mean(kernels, get_args(Kernels))}')


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
    backend = _choose(x, shortcut, bn, se, kernels)
    if backend == "eager":
        return reference.residual_tail(x, shortcut, bn, None if se is None else se.gate)
    if shortcut is not None and shortcut.dtype != x.dtype:  # promote as the addition would
        dtype = torch.promote_types(x.dtype, shortcut.dtype)
        x, shortcut = x.to(dtype), shortcut.to(dtype)
    batch_statistics = bn.training or bn.running_mean is None
    y: Tensor
    y, mean, _, unbiased, *_ = fused(
        x,
        shortcut,
        bn.weight,
        bn.bias,
        None if batch_statistics else bn.running_mean,
        None if batch_statistics else bn.running_var,
        *_gate_parameters(se),
        bn.eps,
        _group(bn),
        backend,
    )
    if bn.training and bn.track_running_stats:
        _update_running_statistics(bn, mean, unbiased)
    return y


def _gate_parameters(se: SEBlock | None) -> tuple[Tensor | None, ...]:
    if se is None:
        return None, None, None, None
    fc1, fc2 = se.excitation.fc1, se.excitation.fc2
    return fc1.weight, fc1.bias, fc2.weight, fc2.bias


def _group(bn: nn.BatchNorm2d) -> str:
    """Return the name of the process group that shares batch statistics, "" for none."""
    if not bn.training or not _is_synchronised(bn) or not dist.is_available() or not dist.is_initialized():
        return ""
    group: dist.ProcessGroup = getattr(bn, "process_group", None) or distributed_c10d._get_default_group()
    return str(group.group_name) if group.size() > 1 else ""


def _is_synchronised(bn: nn.BatchNorm2d) -> bool:
    """Whether ``bn`` takes its statistics over all ranks: torch's class, or one that says ``across_ranks``."""
    return isinstance(bn, nn.SyncBatchNorm) or bool(getattr(bn, "across_ranks", False))


@torch.no_grad()
def _update_running_statistics(bn: nn.BatchNorm2d, mean: Tensor, unbiased: Tensor) -> None:
    """Move the running statistics by BN's momentum, or for momentum=None to the mean over all batches."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert bn.num_batches_tracked is not None
    bn.num_batches_tracked.add_(1)
    for running, batch in ((bn.running_mean, mean), (bn.running_var, unbiased)):
        if bn.momentum is None:
            running.lerp_(batch.to(running.dtype), bn.num_batches_tracked.to(running.dtype).reciprocal())
        else:
            running.lerp_(batch.to(running.dtype), bn.momentum)


def _choose(
    x: Tensor, shortcut: Tensor | None, bn: nn.BatchNorm2d, se: SEBlock | None, kernels: Kernels
) -> str:
    """Return "eager" or the operator's backend."""
    if kernels == "eager":
        return "eager"
    reason = _unsupported(x, shortcut, bn, se, kernels)
    if reason is None:
        return "cpu" if x.device.type == "cpu" and kernels == "auto" else "triton"
    if kernels == "triton":
        raise UserError(f"kernels=triton, but {reason}: use kernels=auto")
    if x.is_cuda and reason not in _said and not torch.compiler.is_compiling():
        _said.add(reason)
        logger.warning("the residual tail runs unfused: %s", reason)
    return "eager"


def _unsupported(
    x: Tensor, shortcut: Tensor | None, bn: nn.BatchNorm2d, se: SEBlock | None, kernels: Kernels
) -> str | None:
    """Return why the fused operator does not take this case, or None."""
    if not (type(bn) is nn.BatchNorm2d or _is_synchronised(bn)) or not bn.affine:
        return f"{bn} is not an affine BatchNorm2d, plain or synchronised"
    if se is not None and not all(type(fc) is nn.Conv2d for fc in (se.excitation.fc1, se.excitation.fc2)):
        return "a layer of the excitation is no plain Conv2d"
    if _is_hooked(bn) or (se is not None and _is_hooked(se.excitation)):
        return "a hook on BN or on the excitation wants to see what fusing never stores"
    if shortcut is not None and shortcut.shape != x.shape:
        return f"the shapes {tuple(x.shape)} and {tuple(shortcut.shape)} of branch and shortcut differ"
    if x.numel() == 0 or (bn.training and x.numel() == x.shape[1] and not _group(bn)):
        return "a batch of less than two values per channel has no statistics"
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return "an exported graph holds standard operators only"
    if kernels == "triton" or x.is_cuda:
        return unsupported_by_triton(x)
    return _not_worthwhile_on_cpu(x, bn, se)


def unsupported_by_triton(x: Tensor) -> str | None:
    """Return why the Triton passes do not take maps like ``x``, or None."""
    if not _HAS_TRITON:
        return "Triton is not installed"
    if not x.is_cuda and not _INTERPRETED:
        return f"the maps are on the {x.device.type} device"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the maps are {x.dtype}"
    return None


def _not_worthwhile_on_cpu(x: Tensor, bn: nn.BatchNorm2d, se: SEBlock | None) -> str | None:
    if x.device.type != "cpu":
        return f"the maps are on the {x.device.type} device"
    if _group(bn):  # torch's own SyncBatchNorm refuses a CPU
        return None
    if torch.compiler.is_compiling() and not bn.training:
        return "the compiler fuses the eager definition better"
    if se is None or x.numel() // x.shape[0] < _CPU_MIN_VALUES_PER_IMAGE:
        return "the passes that fusing saves are few or small"
    return None


def _is_hooked(module: nn.Module | Excitation) -> bool:
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in module.modules()
    )
