"""Optimisers from torch and timm, their parameter groups, and the learning rate for a global batch."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.errors import UserError
from senet.models import Network
from senet.weights import trunk_and_head_parameters


@dataclass(frozen=True)
class OptimizerConfig:
    """What all optimisers share.

    Attributes:
        lr: learning rate at a global batch of ``lr_batch``.
        lr_batch: the rate is scaled by global batch / ``lr_batch``; ``None`` takes ``lr`` as it is.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW, LAMB).
        decay_norm_and_bias: whether BN's parameters and all biases decay as well.
        trunk_lr: learning rate of everything before the classifier, as a share of ``lr``; for fine-tuning.
    """

    lr: float = 0.1
    lr_batch: int | None = None
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = False
    trunk_lr: float = 1.0

    def __post_init__(self) -> None:
        if not self.lr > 0 or self.weight_decay < 0:
            raise UserError(
                f"optimizer.lr={self.lr} must be above 0, weight_decay={self.weight_decay} not below"
            )

    def scaled_lr(self, global_batch: int) -> float:
        """Return the learning rate for ``global_batch`` images a step over all devices and accumulation."""
        return self.lr * global_batch / self.lr_batch if self.lr_batch else self.lr

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        raise NotImplementedError


@dataclass(frozen=True)
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD."""

    momentum: float = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    name: Literal["adamw"] = "adamw"

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, eps=self.eps)


@dataclass(frozen=True)
class LambConfig(OptimizerConfig):
    """timm's LAMB, with its gradient clipping by norm left to ``trainer.gradient_clip_val``."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    name: Literal["lamb"] = "lamb"

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """Return the optimiser over parameter groups."""
        from timm.optim.lamb import Lamb

        optimizer: torch.optim.Optimizer = Lamb(
            groups, lr=lr, betas=self.betas, eps=self.eps, max_grad_norm=None
        )
        return optimizer


AnyOptimizer = Annotated[SGDConfig | AdamWConfig | LambConfig, Field(discriminator="name")]


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
