"""Optimisers from torch and timm, their parameter groups, and the learning rate for a global batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.errors import UserError, did_you_mean
from senet.models import Network
from senet.ranges import Count, NotNegative, Positive, Share, ShareBelowOne
from senet.weights import trunk_and_head_parameters


@dataclass(frozen=True)
class OptimizerConfig:
    """What all optimisers share.

    Attributes:
        name: which optimiser.
        lr: learning rate at a global batch of ``lr_batch``.
        lr_batch: the rate is scaled by global batch / ``lr_batch``; ``None`` takes ``lr`` as it is.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW, LAMB).
        decay_norm_and_bias: whether BN's parameters and all biases decay as well.
        trunk_lr: learning rate of everything before the classifier, as a share of ``lr``; for fine-tuning.
    """

    lr: Positive = 0.1
    lr_batch: Count | None = None
    weight_decay: NotNegative = 1e-4
    decay_norm_and_bias: bool = False
    trunk_lr: Share = 1.0

    def scaled_lr(self, global_batch: int) -> float:
        """Return the learning rate for ``global_batch`` images a step over all devices and accumulation."""
        return self.lr * global_batch / self.lr_batch if self.lr_batch else self.lr

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD.

    Attributes:
        momentum: share of the last step that goes into the next.
        nesterov: look ahead along the momentum.
    """

    momentum: ShareBelowOne = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW.

    Attributes:
        betas: memories of the gradient and of its square.
        eps: added to the root of the mean square.
    """

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    eps: Positive = 1e-8
    name: Literal["adamw"] = "adamw"

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, eps=self.eps)


def _timm() -> Any:
    """Return ``timm.optim``, which takes seconds to import and exports its names without type information."""
    import timm.optim

    return timm.optim


@dataclass(frozen=True)
class LambConfig(OptimizerConfig):
    """timm's LAMB, with its gradient clipping by norm left to ``trainer.gradient_clip_val``.

    Attributes:
        betas: memories of the gradient and of its square.
        eps: added to the root of the mean square.
    """

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    eps: Positive = 1e-6
    name: Literal["lamb"] = "lamb"

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        make: Callable[..., torch.optim.Optimizer] = _timm().Lamb
        return make(groups, lr=lr, betas=self.betas, eps=self.eps, max_grad_norm=None)


@dataclass(frozen=True)
class TimmConfig(OptimizerConfig):
    """Any first-order optimiser of ``timm.optim``.

    Attributes:
        kind: its name there, e.g. "lion", "muon", "nadamw" or "adopt".
        momentum: for those that have one; None for the optimiser's default, as with the others.
        betas: for those that have two.
        eps: for those that have one.
    """

    kind: str = "lion"
    momentum: ShareBelowOne | None = None
    betas: tuple[ShareBelowOne, ShareBelowOne] | None = None
    eps: Positive | None = None
    name: Literal["timm"] = "timm"

    def __post_init__(self) -> None:
        timm = _timm()
        names: list[str] = timm.list_optimizers()
        if self.kind not in names:
            raise UserError(
                f'optimizer.kind="{self.kind}": timm has no such optimiser{did_you_mean(self.kind, names)}'
            )
        info = timm.get_optimizer_info(self.kind)
        needs = (
            "second derivatives"
            if info.second_order
            else f"{info.opt_class}, which is not installed with senet"
        )
        if info.second_order or not isinstance(info.opt_class, type):
            raise UserError(f"optimizer.kind={self.kind} needs {needs}: take another")
        betas = info.has_betas and info.num_betas == 2
        has = {"momentum": info.has_momentum, "betas": betas, "eps": info.has_eps}
        for key in self._given():
            if not has[key]:
                raise UserError(f"optimizer.{key} has no effect here: {self.kind} has none; drop it")

    def _given(self) -> dict[str, Any]:
        values = {"momentum": self.momentum, "betas": self.betas, "eps": self.eps}
        return {key: value for key, value in values.items() if value is not None}

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        make: Callable[..., torch.optim.Optimizer] = _timm().create_optimizer_v2
        return make(groups, opt=self.kind, lr=lr, **self._given())


AnyOptimizer = Annotated[SGDConfig | AdamWConfig | LambConfig | TimmConfig, Field(discriminator="name")]


def parameter_groups(model: Network, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Split the learnable parameters by whether they decay (by module type) and by learning rate.

    Returns:
        Groups for torch's optimisers, each with its ``weight_decay`` and ``lr_share``, the share of the rate.
    """
    _, head = trunk_and_head_parameters(model)
    in_head = {id(parameter) for parameter in head}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            spared = isinstance(module, _BatchNorm | nn.GroupNorm | nn.LayerNorm) or name == "bias"
            decay = 0.0 if spared and not config.decay_norm_and_bias else config.weight_decay
            share = 1.0 if id(parameter) in in_head else config.trunk_lr
            groups.setdefault((share, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_share": share}
        for (share, decay), parameters in groups.items()
    ]
