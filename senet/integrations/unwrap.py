"""A state dict inside whatever a program wrapped it in: dictionaries, prefixes of modules, averages, optimisers."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor

from senet.errors import UserError
from senet.weights.checkpoint import Averaging

Found = TypeVar("Found")
COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of a module, at any depth."""
COUNTERS = ("total_ops", "total_params")
"""What profilers leave behind as buffers of every module."""
DEPTH = 5
"""Wrappers and modules that may lie around a network."""


class Unwrapped(NamedTuple):
    """Tensors under one prefix of a file.

    Attributes:
        prefix: what stood before all of their names, e.g. "state_dict.module."; "" for nothing.
        state: the tensors without it.
        dropped: names of the file's other tensors.
    """

    prefix: str
    state: dict[str, Tensor]
    dropped: list[str]

    @property
    def is_average(self) -> bool:
        """Whether this is called an average of weights, or counts its updates as torch's ``AveragedModel`` does."""
        words = self.prefix.lower().replace(".", "_").split("_")
        counter = f"{self.prefix.removesuffix('module.')}n_averaged"
        return not {"ema", "averaged", "swa"}.isdisjoint(words) or counter in self.dropped

    def describe(self) -> str:
        """Return what was taken and what was left, in words."""
        parts = [f"kept {len(self.state)} tensors"]
        if self.prefix:
            parts[0] += f' under "{self.prefix}"'
        if self.dropped:
            more = ", ..." if len(self.dropped) > 1 else ""
            parts.append(f"dropped {len(self.dropped)} ({self.dropped[0]}{more})")
        return ", ".join(parts)


def flatten(content: object, prefix: str = "", depth: int = DEPTH) -> dict[str, Tensor]:
    """Return every tensor of nested dictionaries under its dotted path."""
    if not isinstance(content, Mapping) or depth < 0:
        return {}
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            found[name] = value
        else:
            found |= flatten(value, f"{name}.", depth - 1)
    return found


def unwrap(
    content: object,
    identify: Callable[[dict[str, Tensor]], Found | None],
    averaging: Averaging,
    source: str,
) -> tuple[Unwrapped, Found] | None:
    """Find the network in ``content``.

    Args:
        content: of a file.
        identify: tells what a state dict is, or None.
        averaging: which to take where there are trained and averaged weights; "auto" takes the average, as timm does.
        source: for messages.

    Raises:
        UserError: if there are several networks, or no average where one is asked for.
    """
    tensors = flatten(content)
    found: list[tuple[Unwrapped, Found]] = []
    for prefix in _prefixes(tensors):
        if any(prefix.startswith(taken.prefix) for taken, _ in found):
            continue
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        state = {key.replace(COMPILED, ""): value for key, value in inside.items()}
        state = {key: value for key, value in state.items() if not key.endswith(COUNTERS)}
        if (match := identify(state)) is not None:
            kept = {prefix + key for key in inside if key.replace(COMPILED, "") in state}
            found.append((Unwrapped(prefix, state, sorted(tensors.keys() - kept)), match))
    averages = [pair for pair in found if pair[0].is_average]
    trained = [pair for pair in found if not pair[0].is_average]
    if averaging == "ema" and found and not averages:
        raise UserError(f"{source} has no averaged weights: use weights=raw")
    chosen = trained if averaging == "raw" and trained else averages or trained
    if len(chosen) > 1:
        names = " and ".join(f'"{pair[0].prefix}"' for pair in chosen)
        raise UserError(f"{source} holds {len(chosen)} networks, under {names}: save the one you mean alone")
    return chosen[0] if chosen else None


def _prefixes(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield "" and every beginning of names up to a dot, the shortest first."""
    yield ""
    for depth in range(1, DEPTH + 1):
        cut = (key.split(".") for key in tensors)
        yield from dict.fromkeys(".".join(parts[:depth]) + "." for parts in cut if len(parts) > depth)


def likely_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the beginnings of names, up to a dot, that more than half of the tensors have, the longest first.

    The longest need not be what lies around a network: more than half of a ResNet-101 is its ``layer3.``.
    """
    counted = {prefix: sum(key.startswith(prefix) for key in tensors) for prefix in _prefixes(tensors)}
    return sorted((prefix for prefix, count in counted.items() if 2 * count > len(tensors)), key=len)[::-1]
