"""The ``senet`` command: one word, one task. Every task is imported only when it is called."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from senet.errors import UserError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "models": ("senet.analysis.models_command", "the zoo: parameters, multiply-adds, the paper's figures"),
    "check": ("senet.data.check", "decode every image once; report what is broken, odd or doubled"),
    "pack": ("senet.data.pack", "write images into a few large files, resized if asked"),
    "prepare": ("senet.data.prepare", "ImageNet from its archives; made-up photographs"),
    "report": ("senet.analysis.report", "runs of any kind as one table with intervals, and plots"),
    "gates": ("senet.analysis.gates", "what the SE blocks of a run do: the paper's Figures 6 and 7"),
    "study": (
        "senet.training.study.study_command",
        "a study of many runs: its status, retry, more seeds, a sweep file",
    ),
    "reproduce": (
        "senet.training.study.reproduce",
        "plan a table of the paper, run it, set ours beside theirs",
    ),
    "bench": ("senet.bench", "how fast: ours and the peers' in turns"),
}
"""Command to (module, help); the module has ``configure(parser)`` and ``run(arguments) -> exit status``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``senet COMMAND ...`` and return its exit status; a mistake is one line and status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="senet",
        description="Squeeze-and-Excitation networks: what to do with them besides training (train.py).",
        epilog=f"commands:\n{listed}\n\nsenet COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"senet {version('senet')}")
    parser.add_argument("command", metavar="COMMAND")
    name = parser.parse_args(words[:1]).command
    try:
        if name not in COMMANDS:
            raise UserError(f'there is no command "{name}"{did_you_mean(name, COMMANDS)}')
        module, text = COMMANDS[name]
        command = importlib.import_module(module)
        subparser = argparse.ArgumentParser(prog=f"senet {name}", description=text)
        command.configure(subparser)
        return int(command.run(subparser.parse_args(words[1:])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
