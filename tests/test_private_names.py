"""Names of other libraries that begin with an underscore: which we use, why, and that they are still there."""

import ast
import importlib
from collections import Counter

import pytest
import torch
from house import modules

USED = {
    "torch._C._has_mkldnn": "whether this build knows oneDNN, on whose answer the next one depends",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "whether the CPU has instructions for bfloat16",
    "torch._foreach_lerp_": "running statistics of all BatchNorms in one launch",
    "torch.compiler._is_exporting_flag": "is_exporting() is folded to True by Dynamo of 2.11 in ordinary compiles",
    "torch._C._are_functorch_transforms_active": "vmap and grad cannot go through the operator",
    "torch._C._ExcludeDispatchKeyGuard": "the operator casts for itself: autocast must not cast its inputs again",
    "torch._C.DispatchKeySet": "which keys that guard leaves out",
    "torch._C.DispatchKey.AutocastCPU": "one of them",
    "torch._C.DispatchKey.AutocastCUDA": "the other",
    "torch._addmm_activation": "a matrix product, its bias and the ReLU in one launch",
}
"""Reached from an imported module, by its full name."""


def private(tree: ast.AST) -> set[str]:
    """Return the longest dotted names that begin at torch and have a private part."""
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    parts = [
        name.split(".")
        for name in names
        if name.startswith("torch.") and name.replace(".", "").isidentifier()
    ]
    found = {".".join(n) for n in parts if any(p.startswith("_") and not p.startswith("__") for p in n)}
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def test_these_are_all_and_each_stands_in_one_place():
    found = Counter(name for source in modules().values() for name in private(source.tree))
    assert found == Counter(USED.keys())


@pytest.mark.parametrize("name", USED)
def test_they_are_there(name: str):
    found: object = torch
    for part in name.split(".")[1:]:
        assert hasattr(found, part), f"{name} has moved; it was used because: {USED[name]}"
        found = getattr(found, part)


def test_lightning_notes_a_signal_where_the_stop_does():
    """``trainer._signal_connector.received_sigterm = True`` ends the loops as Lightning's own handler does."""
    connector = importlib.import_module(
        "pytorch_lightning.trainer.connectors.signal_connector"
    )._SignalConnector
    assert "received_sigterm" in connector.__init__.__code__.co_names
