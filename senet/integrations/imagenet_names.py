"""ImageNet's 1,000 classes in the order of their WordNet ids, and what they are called."""

import re
from functools import cache
from typing import Any

import timm.data

_info: Any = timm.data
"""timm's table of synsets, without type information."""


@cache
def wordnet_ids() -> tuple[str, ...]:
    """Return the WordNet ids, sorted: the order of everybody's classifiers."""
    return tuple(_info.ImageNetInfo().label_names())


def plain(name: str) -> str:
    """Return a name without case and punctuation: "Cassette_player" and "cassette player" are one."""
    return re.sub(r"[\W_]+", "", name).lower()


@cache
def by_name() -> dict[str, tuple[int, ...]]:
    """Return the classes that have a name, by their place; a few names (crane) stand for two."""
    found: dict[str, tuple[int, ...]] = {}
    for index, text in enumerate(_info.ImageNetInfo().label_descriptions()):
        for word in {plain(part) for part in text.split(",")}:
            found[word] = (*found.get(word, ()), index)
    return found


def called(wordnet_id: str) -> str:
    """Return the first name of a class."""
    name: str = _info.ImageNetInfo().label_name_to_description(wordnet_id)
    return name.partition(",")[0]
