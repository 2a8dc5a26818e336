"""A sweep file of Weights & Biases whose agents call ``train.py`` with overrides that Hydra understands."""

from typing import Any

from omegaconf import OmegaConf

from senet.errors import UserError
from senet.plugins import integration
from senet.study.plan import composing, key_of, parse

COMMAND = ["${env}", "python3", "${program}", "${args_no_hyphens}"]
"""Arguments as ``key=value``: W&B's default ``--key=value`` is no Hydra override."""


def export(typed: list[str], method: str) -> str:
    """Return a sweep as YAML: swept overrides and ``search.space`` vary, the others are part of the command.

    Raises:
        UserError: if nothing varies.
    """
    with composing():
        request = parse(typed)
    parameters: dict[str, Any] = {
        key: {"values": [_value(line) for line in lines]} for key, lines in request.sweeps.items()
    }
    if len(request.seeds) > 1:
        parameters["seed"] = {"values": request.seeds}
    search = request.search
    if search:
        distributions = integration("optuna_search", package="optuna", asked="search=optuna").distributions
        parameters |= {key: _parameter(axis) for key, axis in distributions(search["space"]).items()}
        method = method if method != "grid" else "bayes"
    if request.ablation is not None or not parameters:
        raise UserError("a sweep needs lists of values, e.g. se.reduction=4,8 seed=0,1, or search=optuna")
    fixed = [line for line in request.fixed if key_of(line).split(".")[0] not in ("search", "launcher")]
    logger = [] if any(line.startswith("logger") for line in fixed) else ["logger=wandb"]
    sweep = {
        "program": "train.py",
        "method": method,
        "metric": {
            "name": search["metric"] if search else "val/top1",
            "goal": search["direction"] if search else "maximize",
        },
        "command": [*COMMAND, *fixed, *logger],
        "parameters": parameters,
    }
    return OmegaConf.to_yaml(OmegaConf.create(sweep))


def _value(override: str) -> Any:
    """Return the value of an override as YAML reads it; null as a word, since W&B's agent writes ``None``."""
    value = OmegaConf.from_dotlist([f"value={override.partition('=')[2]}"])["value"]
    return "null" if value is None else value


def _parameter(axis: Any) -> dict[str, Any]:
    """Return an Optuna distribution in W&B's words."""
    if hasattr(axis, "choices"):
        return {"values": ["null" if choice is None else choice for choice in axis.choices]}
    whole = isinstance(axis.low, int)
    if axis.log:
        quantised = {"distribution": "q_log_uniform_values", "q": 1}
        kind = quantised if whole else {"distribution": "log_uniform_values"}
    elif axis.step is not None and axis.step != 1:  # W&B's steps begin at 0, and may miss all that is meant
        count = round((axis.high - axis.low) / axis.step) + 1
        return {"values": [axis.low + index * axis.step for index in range(count)]}
    else:
        kind = {"distribution": "int_uniform" if whole else "uniform"}
    return {**kind, "min": axis.low, "max": axis.high}
