"""Batch normalisation folded into the convolutions of a trained network."""

import copy
from collections.abc import Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from senet.errors import UserError
from senet.nn.blocks import ResidualTail


class _Tracer(fx.Tracer):
    """Tells which module's output goes where; a residual tail is one step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        step = isinstance(module, ResidualTail) or _is_batch_norm(module)
        return step or super().is_leaf_module(module, name)


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference in which every BN behind a convolution is part of it.

    ``W' = W * weight * inv`` and ``b' = bias + (b - mean) * weight * inv`` per output channel, with
    ``inv = rsqrt(running_var + eps)``: the same numbers to rounding, one pass over every map less. The copy is
    in eval mode, has the same class, and an empty ``Sequential`` where BN was.

    The BN of a residual tail stays: the tail scales the map by the gate and adds the shortcut in one pass
    already, and BN's factors ride on those of the gate. Elsewhere only BN stays whose input something else
    reads too, as in pre-activation networks.

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
    for conv_name, bn_name in list(_pairs(folded, graph)):
        conv, bn = folded.get_submodule(conv_name), folded.get_submodule(bn_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, bn))
        folded.set_submodule(bn_name, _rest(bn))
    return folded


def _is_batch_norm(module: nn.Module) -> bool:
    # timm's class, in its Inception-ResNet-v2, is BN and activation in one; timm is not imported for its sake.
    return isinstance(module, nn.BatchNorm2d) and type(module).__name__ in ("BatchNorm2d", "BatchNormAct2d")


def _rest(bn: nn.BatchNorm2d) -> nn.Module:
    """Return what ``bn`` does beyond batch normalisation."""
    return nn.Sequential(*bn.children())  # none, or timm's dropout and activation


def _pairs(model: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Yield the names of every convolution and the BN that alone reads it; modules called twice stay."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    for node in calls:
        if len(node.users) != 1 or type(model.get_submodule(node.target)) is not nn.Conv2d:
            continue
        (reader,) = node.users
        if reader.op != "call_module" or not _is_batch_norm(model.get_submodule(reader.target)):
            continue
        if targets.count(node.target) == targets.count(reader.target) == 1:
            yield node.target, reader.target
