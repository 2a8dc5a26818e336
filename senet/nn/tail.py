"""The last step of every residual unit, BN -> SE -> + shortcut -> ReLU, as one module."""

import copy
from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.kernels import Kernels, check_kernels, reference
from senet.kernels.tail import residual_tail, why_eager
from senet.nn.attention import AttentionBlock, merge
from senet.nn.config import SEConfig
from senet.nn.se import SqueezeExcitation, place


class ResidualTail(nn.Module):
    """The last step of a residual unit: BN -> SE -> + shortcut -> ReLU, one module so it can be one kernel.

    ``y = relu(s * BN(x) + shortcut)`` with the gate ``s`` of BN(x); without SE, s = 1. For SE-POST the block
    acts on y, for SE-Identity on the shortcut (Figure 5).

    With average squeeze and sigmoid gate, or without SE, ``senet.kernels`` may run it as one operator; every
    other variant is composed of eager operations.

    Args:
        channels: C of both inputs.
        se: the stage's SE configuration; only the placements standard, post and identity act here.
        branch_relu: one more ReLU after BN, as in Cadene's port of SE-ResNet-18/34 (timm's ``legacy_*``).

    Attributes:
        kernels: which implementation runs; see ``set_kernels``.
        drop_path: share of the images whose branch is dropped in training; see ``set_drop_path``.
    """

    kernels: Kernels = "auto"
    drop_path = 0.0

    def __init__(self, channels: int, se: SEConfig | None = None, branch_relu: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.placement = se.placement if se is not None else "standard"
        self.branch_relu = branch_relu
        here = self.placement in ("standard", "post", "identity")
        self.se = place(se if here else None, self.placement, channels)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Merge the branch ``x`` and ``shortcut``, both (B, C, H, W)."""
        if self.placement == "identity":
            shortcut = self.se(shortcut)
        merged = self._merge(x, shortcut)
        return self.se(merged) if self.placement == "post" else merged

    def _merge(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if self._rival is not None:
            return F.relu(merge(self._rival, self._normalise(x), shortcut), inplace=True)
        gate: reference.Map | None = None if self.merged_se is None else self.merged_se.gate
        dropping = self.training and self.drop_path > 0
        if self.branch_relu or dropping:
            gate = self._dropping(gate) if dropping else gate
            return reference.eager_tail(x, shortcut, self._normalise, gate)
        return residual_tail(x, shortcut, self.bn, self.merged_se, self.kernels)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x), inplace=True) if self.branch_relu else self.bn(x)

    def _dropping(self, gate: reference.Map | None) -> reference.Map:
        """Return the gate times 0 for the images whose branch is dropped, and 1 / (1 - drop_path) for the others."""

        def gate_or_nothing(u: Tensor) -> Tensor:
            kept = F.dropout(u.new_ones(len(u), 1, 1, 1), self.drop_path)
            return kept if gate is None else kept * gate(u)

        return gate_or_nothing

    @property
    def merged_se(self) -> SqueezeExcitation | None:
        """The SE block that acts between BN and addition, if one does."""
        return self.se if self.placement == "standard" and isinstance(self.se, SqueezeExcitation) else None

    @property
    def _rival(self) -> AttentionBlock | None:
        """The block in the place of ``merged_se``."""
        rival = self.placement == "standard" and self.merged_se is None
        return self.se if rival and isinstance(self.se, AttentionBlock) else None

    @property
    def departs(self) -> str | None:
        """How this variant is another than the one that ``senet.kernels`` knows, or None."""
        if self.branch_relu:
            return "a ReLU stands between BN and SE"
        if self.training and self.drop_path:
            return "stochastic depth"
        if self._rival is not None:
            return f"se.block is {self._rival.config.block}"
        gate = None if self.merged_se is None else self.merged_se.standard_gate()
        return gate if isinstance(gate, str) else None


def set_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Choose how every residual tail of ``model`` runs.

    Args:
        model: any module that contains residual tails.
        kernels: "auto", the default: fused where supported and faster. "eager": one operation after the
            other. "triton": fused, or an error.

    Raises:
        UserError: for another word, or for "triton" if the model has a tail that cannot be fused.
    """
    check_kernels(kernels)
    tails = {name: module for name, module in model.named_modules() if isinstance(module, ResidualTail)}
    for name, tail in tails.items():
        if kernels == "triton" and tail.departs:
            raise UserError(
                f"kernels=triton, but {name} has no average squeeze with sigmoid gate ({tail.departs}): "
                "use kernels=auto"
            )
    for tail in tails.values():
        tail.kernels = kernels


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Drop residual branches in training (stochastic depth, Huang et al. 2016, arXiv 1603.09382).

    Args:
        model: any module that contains residual tails.
        rate: of the last tail; those before it drop in proportion to their place, the first one never.

    Raises:
        UserError: for a rate that is none, or if the model has no residual tails, or tails that a rival of SE merges;
            nothing is changed then.
    """
    if not 0 <= rate < 1:
        raise UserError(f"model.drop_path={rate} must be a number from 0 and below 1")
    tails = [module for module in model.modules() if isinstance(module, ResidualTail)]
    if not tails:
        raise UserError(
            f"model.drop_path={rate}: this network has no residual units whose branch can be dropped"
        )
    rival = next((tail._rival for tail in tails if tail._rival is not None), None)
    if rival is not None:
        raise UserError(f"model.drop_path={rate} drops no branch with se.block={rival.config.block}")
    for index, tail in enumerate(tails):
        tail.drop_path = rate * index / max(1, len(tails) - 1)


class TailPlan(NamedTuple):
    """How the residual tails of a network will run.

    Attributes:
        fused: how many as one operator.
        by: whose passes those are.
        others: how many do not, by the reason.
    """

    fused: int
    by: str
    others: Counter[str]

    def __str__(self) -> str:
        """Return it in words."""
        if not (count := self.fused + self.others.total()):
            return "none: this network has no residual tails"
        reasons = [f"{n} one operation after the other: {reason}" for reason, n in self.others.items()]
        return "; ".join([f"{self.fused} of {count} fused ({self.by})", *reasons])


def plan_tails(
    network: nn.Module, image: tuple[int, int, int, int], device: str, dtype: torch.dtype
) -> TailPlan:
    """Return how many residual tails of ``network`` will run fused, by what, and why others do not.

    Args:
        network: in the mode and with the kernels it will run with.
        image: shape (B, 3, H, W) of a batch.
        device: where the network will run, "cpu" or "cuda".
        dtype: of the maps, which under autocast is autocast's.
    """
    twin = copy.deepcopy(network).to("meta").eval()  # computes shapes and nothing else
    set_kernels(twin, "eager")
    reasons: Counter[str] = Counter()

    def ask(tail: ResidualTail, x: Tensor) -> None:
        eager = why_eager(x.to(dtype), None, tail.bn, tail.merged_se, tail.kernels, device)
        reasons.update([tail.departs or eager or ""])

    for name, module in network.named_modules():
        if isinstance(module, ResidualTail):
            twin.get_submodule(name).register_forward_pre_hook(
                lambda _, maps, tail=module: ask(tail, maps[0])
            )
    with torch.no_grad():
        twin(torch.empty(image, device="meta"))
    fused = reasons.pop("", 0)
    return TailPlan(fused, "Triton" if device == "cuda" else "ATen", reasons)
