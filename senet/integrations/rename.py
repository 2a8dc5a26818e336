"""Renaming of state dicts from a table of module names, read in either direction."""

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from senet.errors import UserError

Rule = tuple[str, str]
"""(their module, our module). ``#`` stands for a number and ``*`` for any path that both names share."""


def renamer(rules: Iterable[Rule]) -> Callable[[str], str | None]:
    """Return a function from a module's name to the one that ``rules`` give it, or None."""
    exact: dict[str, str] = {}
    patterns: list[tuple[re.Pattern[str], str]] = []
    for theirs, ours in rules:
        if "#" in theirs or "*" in theirs:
            pattern = re.escape(theirs).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
            patterns.append((re.compile(pattern), re.sub("[#*]", "{}", ours)))
        else:
            exact[theirs] = ours

    def find(module: str) -> str | None:
        if module in exact:
            return exact[module]
        for pattern, ours in patterns:
            if match := pattern.fullmatch(module):
                return ours.format(*match.groups())
        return None

    return find


def rename(state: Mapping[str, Tensor], rules: Iterable[Rule], source: str) -> dict[str, Tensor]:
    """Return ``state`` with every key renamed from the first to the second column of ``rules``.

    A rule names a module; the parameter's own name (``weight``, ``running_mean`` ...) is kept.

    Raises:
        UserError: naming the first key that no rule covers.
    """
    find = renamer(rules)
    renamed = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        target = find(module)
        if target is None:
            raise UserError(
                f'{source} has no place for the key "{key}": these are weights of another network'
            )
        renamed[f"{target}.{leaf}"] = tensor
    return renamed


def reverse(rules: Iterable[Rule]) -> list[Rule]:
    """Return the table for the other direction."""
    return [(ours, theirs) for theirs, ours in rules]
