"""Values held to a schema: unknown keys name the nearest valid one, or tell of a habit. Read without torch."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from senet.data.config import DATA_SETS, DataConfig
from senet.errors import UserError, did_you_mean
from senet.models.families import trunks
from senet.ranges import bare, find, in_words, key_text, keys_of, members, walk
from senet.training.sections import TrainerSettings

TRAINER_OURS = {
    **dict.fromkeys(("logger", "default_root_dir", "enable_autolog_hparams"), "choose loggers with logger="),
    **dict.fromkeys(("callbacks", "plugins", "model_registry", "barebones"), "there is nothing to set"),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary"), "its output goes to log.txt as well"),
    **dict.fromkeys(("use_distributed_sampler", "num_sanity_val_steps"), "there is nothing to set"),
    "reload_dataloaders_every_n_epochs": "each epoch has its own order already",
    "enable_checkpointing": "see checkpoint.every_n_steps",
    "fast_dev_run": "use debug=one_batch",
    "limit_test_batches": "there is no test loop",
    "limit_predict_batches": "there is no prediction loop",
}
"""What the run decides itself, and what to do instead: its directory, loggers and callbacks hold together."""

HABITS = {
    "ckpt_path": "resume=RUN_DIR continues a run; model.weights=FILE starts a new one from weights",
    "callbacks": "the run has its own; see checkpoint., ema. and trainer.",
    "resume_from_checkpoint": "resume=RUN_DIR continues a run",
    "hydra": "Hydra's own settings have no effect here: runs_dir= and name= say where results go, launcher= where "
    "jobs of a study run",
    "epochs": "trainer.max_epochs=",
    "batch_size": "data.batch_size=",
    "lr": "optimizer.lr=",
}
"""Keys of other programs, and ours."""


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


def no_such_key(key: str, valid: Collection[str], typed: Iterable[str] = ()) -> str:
    """Say that there is no such key, and what its user will have meant; ``typed`` chose the network."""
    first, _, rest = key.partition(".")
    if first == "trainer" and rest in TRAINER_OURS:
        return f"{key} is decided by the run; {TRAINER_OURS[rest]}"
    if first == "trainer" and rest in get_type_hints(TrainerSettings):
        return f"{key} is not listed in configs/trainer: add it with +{key}=VALUE"
    habit = re.split(r"[./]", key)[0]
    if habit in HABITS:
        return f"there is no key {key}: {HABITS[habit]}"
    if first == "se":
        return f"{key}: this network has no SE block; choose an SE network with model=se_NAME"
    if first == "data" and rest and "data.batch_size" not in valid:  # an evaluation of a run's own images
        return (
            f"{key}: no data set was chosen; root=, size=, batch_size= and workers= change the run's own, "
            "data=NAME takes another"
        )
    if first == "model" and rest:
        chosen = [t.partition("=")[2] for t in typed if t.startswith("model=")]
        having = sorted({family.se_twin(name) for name, family in trunks().items() if rest in family.options})
        if having:
            return f"{key}: {' '.join(chosen) or 'this network'} has no option {rest}; {', '.join(having[:3])} have it"
    return f"there is no key {key}{did_you_mean(key, valid)}"
