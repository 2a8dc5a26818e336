"""Networks for inference: batch normalisation folded into convolutions, the squeeze taken before the last one."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from senet.errors import UserError
from senet.kernels.folded_tail import folded_tail
from senet.kernels.tail import is_hooked
from senet.nn.attention import AttentionBlock
from senet.nn.se import SqueezeExcitation
from senet.nn.tail import ResidualTail


class FoldedTail(nn.Module):
    """A residual unit's last convolution and its tail: ``relu(gate * conv(h) + shortcut)``.

    The squeeze, a mean over (h, w), and a 1x1 convolution are both linear, so that they may change places:
    ``mean(conv(h)) = conv(mean(h))``. The squeeze then reads h, which in a bottleneck has fewer channels, and the gate
    is known before the convolution runs, at the price of reading the weights a second time.

    Args:
        conv: the last convolution with BN folded in; 1x1 with stride 1 if there is an SE block.
        se: the SE block, with average squeeze, or None.
    """

    def __init__(self, conv: nn.Conv2d, se: SqueezeExcitation | None) -> None:
        super().__init__()
        self.conv = conv
        self.se = se

    def forward(self, h: Tensor, shortcut: Tensor) -> Tensor:
        """Return the unit's output (B, C, H, W) of h (B, C', H, W) and the shortcut (B, C, H, W)."""
        if self.se is None:
            return folded_tail(h, self.conv, shortcut, None)
        if self._squeezes_first(h):
            gate = self.se.excitation(self.conv(h.mean((2, 3), keepdim=True)))
            return folded_tail(h, self.conv, shortcut, gate)
        x = self.conv(h)
        gate = self.se.excitation(x.mean((2, 3), keepdim=True))
        return torch.addcmul(shortcut, x, gate).relu_()

    def _squeezes_first(self, h: Tensor) -> bool:
        """Whether the values that the squeeze need not read are more than the weights read again."""
        inside, outside = self.conv.in_channels, self.conv.out_channels
        return h.numel() // inside * (outside - inside) > inside * outside


class _Tracer(fx.Tracer):
    """Tells which module's output goes where; a residual tail is one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        step = isinstance(module, ResidualTail) or _is_batch_norm(module)
        return step or super().is_leaf_module(module, name)


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference in which every BN behind a convolution is part of it.

    ``W' = W * weight * inv`` and ``b' = bias + (b - mean) * weight * inv`` per output channel, with
    ``inv = rsqrt(running_var + eps)``: the same numbers to rounding, one pass over every map less. The copy is
    in eval mode and has the same class and SE blocks; BN is an empty ``Sequential``, a residual tail with the
    convolution before it a ``FoldedTail``.

    As they are stay: BN whose input something else reads too, as in pre-activation networks, BN that keeps no
    statistics, tails of other SE variants than the standard one or behind another convolution than 1x1, and
    modules with hooks, as which SE is attached to other libraries' networks.

    Raises:
        UserError: if the network's forward cannot be traced.
    """
    folded = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(folded)
    except (fx.proxy.TraceError, TypeError) as error:
        raise UserError(
            f"the forward of {type(model).__name__} depends on its input's values, so that BN cannot be "
            f"folded ({error}): use the network as it is"
        ) from error
    for conv_name, reader_name in list(_pairs(folded, graph)):
        conv, reader = folded.get_submodule(conv_name), folded.get_submodule(reader_name)
        assert isinstance(conv, nn.Conv2d)
        if isinstance(reader, ResidualTail):
            se = reader.se if isinstance(reader.se, SqueezeExcitation) else None
            folded.set_submodule(conv_name, nn.Sequential())
            folded.set_submodule(reader_name, FoldedTail(fuse_conv_bn_eval(conv, reader.bn), se))
        elif isinstance(reader, nn.BatchNorm2d):
            folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, reader))
            # What timm's does beyond normalising, dropout and activation, are its children.
            folded.set_submodule(reader_name, nn.Sequential(*reader.children()))
    return folded


def _is_batch_norm(module: nn.Module) -> bool:
    # timm's class, in its Inception-ResNet-v2, is BN and activation in one; timm is not imported for its sake.
    known = type(module).__name__ in ("BatchNorm2d", "BatchNormAct2d")
    return isinstance(module, nn.BatchNorm2d) and known and module.running_mean is not None


def _is_foldable_tail(module: nn.Module, conv: nn.Conv2d) -> bool:
    if (
        not isinstance(module, ResidualTail)
        or module.departs
        or getattr(module.bn, "running_mean", None) is None
    ):
        return False
    if not isinstance(module.se, AttentionBlock):
        return True
    pointwise = all(side == 1 for side in (*conv.kernel_size, *conv.stride)) and not any(conv.padding)
    return module.placement == "standard" and pointwise


def _pairs(model: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Yield the names of every convolution and of the BN or tail that alone reads it.

    Modules that are called twice stay as they are.
    """
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        conv = model.get_submodule(node.target)
        if len(node.users) != 1 or type(conv) is not nn.Conv2d:
            continue
        (reader,) = node.users
        also = (*reader.args[1:], *reader.kwargs.values())
        if reader.op != "call_module" or reader.args[:1] != (node,) or node in also:
            continue
        module = model.get_submodule(reader.target)
        alone = targets.count(node.target) == targets.count(reader.target) == 1
        alone &= not is_hooked(conv) and not is_hooked(module)
        if alone and (_is_batch_norm(module) or _is_foldable_tail(module, conv)):
            yield node.target, reader.target
