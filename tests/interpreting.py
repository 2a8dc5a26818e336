"""Triton's interpreter, which stands in for a GPU, also with versions that do not fit each other."""

import os
from importlib.metadata import PackageNotFoundError, version

import torch


def interpret_triton() -> None:
    """Make Triton run its kernels on CPU tensors; to be called before Triton is first imported."""
    if torch.cuda.is_available():
        return
    os.environ.setdefault("TRITON_INTERPRET", "1")
    try:
        old = tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
    except PackageNotFoundError:
        return
    if old:
        _read_arrays_of_one_element_as_numbers()


def _read_arrays_of_one_element_as_numbers() -> None:
    """As numpy did until 2.4: triton 3.6, which comes with torch 2.11, counts on it in its loops."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patch_and_mend
