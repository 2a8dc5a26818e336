"""Renaming of state dicts from a table of module names, read in either direction."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from senet.errors import UserError, did_you_mean

Rule = tuple[str, str]
"""(their module, our module); ``#`` stands for a block number that both names share."""


def rename(state: Mapping[str, Tensor], rules: Iterable[Rule], source: str) -> dict[str, Tensor]:
    """Return ``state`` with every key renamed from the first to the second column of ``rules``.

    A rule names a module; the parameter's own name (``weight``, ``running_mean`` ...) is kept.

    Raises:
        UserError: naming the first key that no rule covers.
    """
    patterns = [
        (re.compile(re.escape(theirs).replace(r"\#", r"(\d+)")), ours.replace("#", "{}"))
        for theirs, ours in rules
    ]
    renamed = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        for pattern, target in patterns:
            if match := pattern.fullmatch(module):
                renamed[f"{target.format(*match.groups())}.{leaf}"] = tensor
                break
        else:
            raise UserError(
                f'{source} has no place for the key "{key}": these are weights of another network'
            )
    return renamed


def reverse(rules: Iterable[Rule]) -> list[Rule]:
    """Return the table for the other direction."""
    return [(ours, theirs) for theirs, ours in rules]


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Demand that ``state`` has exactly the keys and shapes of ``expected``.

    Raises:
        UserError: naming the first key that is missing, unknown or of another shape.
    """
    for key, tensor in expected.items():
        if key not in state:
            raise UserError(f'{source} lack "{key}"{did_you_mean(key, state.keys() - expected.keys())}')
        if state[key].shape != tensor.shape:
            have, want = tuple(state[key].shape), tuple(tensor.shape)
            raise UserError(f'{source}: "{key}" is {have} and the network needs {want}')
    for key in state:
        if key not in expected:
            raise UserError(f'{source} have "{key}", which the network has not{did_you_mean(key, expected)}')
