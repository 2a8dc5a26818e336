"""What ``torch.compile`` is told of the fused tail: its backward pass adds the gradients of its output itself.

The output of a residual unit is read twice, by the next unit's first convolution and by its shortcut. Autograd
writes the sum of both gradients to a map of its own, which the tail would only read again.
"""

from torch import fx, ops
from torch._inductor import list_mode_options
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files


class _TakeSummands(CustomGraphPass):
    """Hand the tail's backward pass both summands of its gradient where nobody else wants their sum."""

    def __call__(self, graph: fx.Graph) -> None:
        backward = ops.senet.fused_tail_backward.default
        for node in graph.find_nodes(op="call_function", target=backward):
            dy, backend = node.args[0], node.args[-1]
            if backend != "triton" or dy.target is not ops.aten.add.Tensor or len(dy.users) > 1 or dy.kwargs:
                continue  # on a CPU the compiler's own addition is as good
            if _of_one_kind(dy, *dy.args):
                first, second = dy.args
                node.args = (first, *node.args[1:], second)
                seen, keywords = node.meta["eager_input_vals"]  # by whose strides the compiler lays them out
                node.meta["eager_input_vals"] = ((first.meta["val"], *seen[1:], second.meta["val"]), keywords)
                graph.erase_node(dy)

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__,))


def _of_one_kind(*nodes: object) -> bool:
    """Whether all are tensors of one shape and type: nothing is broadcast, promoted or a number."""
    maps = [node.meta["val"] for node in nodes if isinstance(node, fx.Node)]
    return len(maps) == len(nodes) and all((m.shape, m.dtype) == (maps[0].shape, maps[0].dtype) for m in maps)


def compile_options(mode: str = "default") -> dict[str, object]:
    """Return the options of ``torch.compile`` for a mode of its own and networks with residual tails."""
    return {**list_mode_options(mode), "post_grad_custom_pre_pass": _TakeSummands()}
