"""Ranges of settings as types: pydantic holds values to them, and ``in_words`` says them to people."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Required, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from typing_extensions import is_typeddict


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 0 and 1
        raise PydanticCustomError("number_type", "not a number")
    return value


_NUMBER = BeforeValidator(_not_bool)
Whole = Annotated[int, _NUMBER]
Real = Annotated[float, _NUMBER, Field(allow_inf_nan=False)]

Natural = Annotated[Whole, Field(ge=0)]
Count = Annotated[Whole, Field(ge=1)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
Pixels = Annotated[Whole, Field(ge=0, le=16384)]
Side = Annotated[Whole, Field(ge=1, le=16384)]
Workers = Annotated[Whole, Field(ge=0, le=1024)]
Folds = Annotated[Whole, Field(ge=2)]
Magnitude = Annotated[Whole, Field(ge=0, le=30)]
GreyLevels = Annotated[Whole, Field(ge=0, le=255)]
Classes = Annotated[Whole, Field(ge=2, le=1_000_000)]

NotNegative = Annotated[Real, Field(ge=0)]
Positive = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
PositiveShare = Annotated[Real, Field(gt=0, le=1)]
ShareBelowOne = Annotated[Real, Field(ge=0, lt=1)]
Degrees = Annotated[Real, Field(ge=0, le=180)]
Between = Annotated[Real, Field(gt=0, lt=1)]
Limit = Count | PositiveShare
"""Of batches: how many, or which share."""

BOUNDS = {"ge": "from {:,}", "gt": "above {:,}", "le": "to {:,}", "lt": "below {:,}"}
"""What may bound a number, in words."""


def bounds(kind: Any) -> dict[str, float]:
    """Return what of ge, gt, le, lt bounds a number's type."""
    limits = FieldInfo.from_annotation(kind).metadata
    return {name: getattr(limit, name) for limit in limits for name in BOUNDS if hasattr(limit, name)}


def bare(kind: Any) -> Any:
    """Return a type without its range."""
    return get_args(kind)[0] if get_origin(kind) in (Annotated, Required) else kind


def members(kind: Any) -> tuple[Any, ...]:
    """Return the types a union is made of; any other type is its own one."""
    return get_args(bare(kind)) if get_origin(bare(kind)) in (Union, UnionType) else (kind,)


def keys_of(kind: Any) -> dict[str, Any]:
    """Return the keys of a section with their types; empty for anything else."""
    kind = bare(kind)
    hints = get_type_hints(kind, include_extras=True) if is_dataclass(kind) or is_typeddict(kind) else {}
    return {name: hint for name, hint in hints.items() if not name.startswith("_")}  # pydantic's own


def in_words(kind: Any) -> str:
    """Return what a type allows: "a number above 0 and below 1"."""
    if len(members(kind)) > 1:
        return " or ".join(in_words(member) for member in members(kind))
    plain, origin, inner = bare(kind), get_origin(bare(kind)), get_args(bare(kind))
    if plain in (int, float):
        return _number("a whole number" if plain is int else "a number", bounds(kind))
    if origin is Literal:
        return " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in inner)
    if origin in (tuple, list):
        if origin is tuple and inner[-1] is not Ellipsis:
            return f"a list [{', '.join(in_words(part) for part in inner)}]"
        return f"a list, each {in_words(inner[0])}"
    if keys_of(kind) or origin is dict:
        return "a section of keys"
    return {bool: "true or false", str: "a text", NoneType: "null"}.get(plain, "another value")


def _number(noun: str, limits: Mapping[str, float]) -> str:
    if list(limits) == ["ge"]:
        return f"{noun} of {limits['ge']:,} or more"
    text = [said.format(limits[name]) for name, said in BOUNDS.items() if name in limits]
    joined = " " if {"ge", "le"} <= limits.keys() else " and "
    return f"{noun} {joined.join(text)}" if text else noun


def walk(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of a schema with its type, sections before what they hold."""
    for name, inner in keys_of(kind).items():
        yield f"{prefix}{name}", inner
        for member in members(inner):
            yield from walk(member, f"{prefix}{name}.")


def find(kind: Any, values: Any, path: list[Any]) -> Any:
    """Return the type at a path of keys and indices; of a union of sections that which ``values["name"]`` names."""
    for part in path:
        named = values.get("name") if isinstance(values, Mapping) else None
        choices = members(kind)
        chosen = [c for c in choices if named in get_args(bare(keys_of(c).get("name")))]
        inner = (_inner(choice, part) for choice in chosen or choices)
        kind = next((found for found in inner if found is not None), None)
        try:
            values = values[part]
        except (LookupError, TypeError):
            values = None
    return kind


def _inner(kind: Any, part: Any) -> Any:
    """Return the type of a key, or of a place in a list; None if there is no such part."""
    inner = get_args(bare(kind))
    if isinstance(part, int) and get_origin(bare(kind)) in (tuple, list):
        return inner[0] if Ellipsis in inner or part >= len(inner) else inner[part]
    return keys_of(kind).get(part)


def key_text(path: list[Any]) -> str:
    """Return a path as it is typed."""
    return re.sub(r"\.(?=\[)", "", ".".join(f"[{p}]" if isinstance(p, int) else str(p) for p in path))
