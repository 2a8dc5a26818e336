"""``senet study status|retry|extend DIR`` and ``senet study export-wandb OVERRIDES``."""

import argparse
from pathlib import Path

from senet.training.console import setup_console
from senet.training.entry import in_one_line, register_models
from senet.training.study import commands
from senet.training.study.wandb_sweep import export


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "status": "what is done, what is missing and why",
        "retry": "run what is missing, failed or was killed, from its checkpoints",
        "extend": "add seeds to every point: senet study extend DIR seed=3,4",
    }
    for action, text in texts.items():
        command = actions.add_parser(action, help=text, description=text)
        command.add_argument("study", type=Path, metavar="DIR", help="the study's directory")
        if action != "status":
            command.add_argument(
                "overrides", nargs="*", metavar="KEY=VALUE", help="seed=..., launcher.slots=JxD"
            )
    text = "print a sweep file for `wandb sweep`, from lists of values: lr=0.1,0.2, or search=optuna's space"
    command = actions.add_parser("export-wandb", help=text, description=text)
    command.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as for train.py")
    command.add_argument("--method", default="grid", choices=["grid", "random", "bayes"])


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked; return the exit status."""
    setup_console()
    register_models()
    with in_one_line():
        if arguments.action == "status":
            return commands.status(arguments.study)
        if arguments.action == "retry":
            return commands.retry(arguments.study, arguments.overrides)
        if arguments.action == "extend":
            return commands.extend(arguments.study, arguments.overrides)
        print(export(arguments.overrides, arguments.method), end="")
        return 0
