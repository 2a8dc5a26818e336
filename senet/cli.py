"""The ``senet`` command: one word, one task. Every task is imported only when it is called."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from senet import __version__
from senet.errors import UserError, did_you_mean, in_a_line
from senet.terminal import complain

PROGRAMS = {
    "train": "train a network: train.py, from anywhere",
    "eval": "evaluate one: eval.py, from anywhere",
}
"""What Hydra reads the arguments of."""
COMMANDS: dict[str, tuple[str, str]] = {
    "models": ("senet.analysis.zoo", "the zoo: parameters, multiply-adds, the paper's figures"),
    "check": ("senet.data.tools.check", "decode every image once; report what is broken, odd or doubled"),
    "pack": ("senet.data.tools.pack", "write images into a few large files, resized if asked"),
    "prepare": ("senet.integrations.imagenet_archives", "ImageNet from its archives; made-up photographs"),
    "report": ("senet.analysis.report", "runs of any kind as one table with intervals, and plots"),
    "predict": ("senet.predict", "what a network says of images: files, folders, a list"),
    "export": ("senet.integrations.export", "a network as ONNX, torch.export or a folder for timm, compared"),
    "gates": ("senet.analysis.gates", "what the SE blocks of a run do: the paper's Figures 6 and 7"),
    "study": ("senet.study.commands", "a study of many runs: its status, retry, more seeds, a sweep file"),
    "reproduce": ("senet.study.reproduce", "plan a table of the paper, run it, set ours beside theirs"),
    "doctor": ("senet.doctor.command", "hurt small runs, resume them, compare the ends bit for bit"),
    "bench": ("senet.bench", "how fast: ours and the peers' in turns"),
}
"""Command to (module, help); the module has ``configure(parser)`` and ``run(arguments) -> exit status``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``senet COMMAND ...`` and return its exit status, or exit with it; a mistake is one line and status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    helps = PROGRAMS | {name: text for name, (_, text) in COMMANDS.items()}
    listed = "\n".join(f"  {name:{width}}  {text}" for name, text in helps.items())
    parser = argparse.ArgumentParser(
        prog="senet",
        description="Squeeze-and-Excitation networks: train, evaluate, study and use them.",
        epilog=f"commands:\n{listed}\n\nsenet COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"senet {__version__}")
    parser.add_argument("command", metavar="COMMAND")
    name = parser.parse_args(words[:1]).command
    for stream in (sys.stdin, sys.stdout):  # names of files are read and printed byte for byte
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        if name in PROGRAMS:
            sys.argv = words
            getattr(importlib.import_module("senet.study.programs"), f"{name}_main")()
            return 0
        if name not in COMMANDS:
            raise UserError(f'there is no command "{name}"{did_you_mean(name, helps)}')
        module, text = COMMANDS[name]
        command = importlib.import_module(module)
        subparser = argparse.ArgumentParser(prog=f"senet {name}", description=text)
        command.configure(subparser)
        status = int(command.run(subparser.parse_args(words[1:])))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # head has seen enough; so would the interpreter's own last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        complain("stopped")
        return 130
    except (UserError, OSError) as error:  # or a file that cannot be read or written; it is named
        complain(f"error: {in_a_line(error)}")
        return 2
