"""Values held to a schema: unknown keys name the nearest valid one. Read without torch."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from senet.data.config import DATA_SETS, DataConfig
from senet.errors import UserError, did_you_mean
from senet.ranges import bare, find, in_words, key_text, keys_of, members, walk
from senet.training.hints import no_such_key


def validate(schema: Any, values: Mapping[str, Any]) -> Any:
    """Return ``values`` as a ``schema``.

    Raises:
        UserError: for the first unknown key, wrong type or impossible value, naming the key in full.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        raise UserError(_message(schema, values, error.errors()[0])) from error


def _message(schema: Any, values: Mapping[str, Any], error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    # Unions put their tags into the location; only parts that are keys of the values belong to the path.
    path: list[Any] = []
    node: Any = values
    for part in error["loc"]:
        is_index = isinstance(part, int) and isinstance(node, list | tuple) and part < len(node)
        if is_index or (isinstance(node, Mapping) and part in node):
            path.append(part)
            node = node[part]
    if error["type"] == "missing" and isinstance(node, Mapping):
        return f"{key_text([*path, error['loc'][-1]])} is missing"
    key, kind = key_text(path), _kind(schema, values, path)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden", "unexpected_positional_argument"):
        return no_such_key(key, known_keys(schema, values))
    if error["type"].startswith("union_tag"):  # a section whose name says what it is
        valid = [name for member in members(kind) for name in _names(member)]
        return f'{key}.name="{node.get("name")}": there is no such choice{did_you_mean(str(node.get("name")), valid)}'
    words = in_words(kind)
    near = did_you_mean(str(node), re.findall(r'"([^"]*)"', words)) if isinstance(node, str) else ""
    hint = near if near.endswith("?") else ""
    return f"{key}={_short(node)} must be {words}{hint}"


def _kind(schema: Any, values: Mapping[str, Any], path: list[Any]) -> Any:
    """Return the type at a path; the data set's own name says which class its section is."""
    if path[:1] == ["data"] and len(path) > 1:
        return find(DATA_SETS.get(values["data"].get("name"), DataConfig), values["data"], path[1:])
    return find(schema, values, path)


def _names(kind: Any) -> tuple[Any, ...]:
    return get_args(bare(keys_of(kind).get("name")))


def _short(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    text = text or repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def known_keys(schema: Any, values: Mapping[str, Any]) -> list[str]:
    """Return every dotted key of a schema, those of the chosen data set and network among them."""
    keys = [key for key, _ in walk(schema)]
    data = values.get("data")
    chosen = DATA_SETS.get(data.get("name", "")) if isinstance(data, Mapping) else None
    return [*keys, *(f"data.{key}" for key, _ in walk(chosen or DataConfig))]
