"""``senet bench``: run a benchmark of a checkout, or list them."""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

from senet.errors import UserError, did_you_mean
from senet.terminal import fitted

DIRECTORY = Path(__file__).resolve().parents[1] / "benchmarks"
NOT_QUESTIONS = ("measure", "networks")
"""What the scripts share."""


def scripts() -> dict[str, str]:
    """Return the benchmarks and the first line of each one's description.

    Raises:
        UserError: if the package is installed without its checkout.
    """
    if not DIRECTORY.is_dir():
        raise UserError(
            f"the benchmarks are scripts of the project's repository, not of the installed package ({DIRECTORY} is not "
            "there): clone it and run senet bench there"
        )
    found = {}
    for file in sorted(DIRECTORY.glob("*.py")):
        if file.stem not in NOT_QUESTIONS:
            found[file.stem] = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
    return found


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("name", nargs="?", help="which one; without it, a list")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="of the script: senet bench tail --help lists them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the script in a process of its own; return its exit status."""
    found = scripts()
    if arguments.name is None:
        width = max(map(len, found))
        for name, text in found.items():
            print(fitted(f"{name:{width}}  {text}", width + 2))
        return 0
    if arguments.name not in found:
        raise UserError(f'there is no benchmark "{arguments.name}"{did_you_mean(arguments.name, found)}')
    script = DIRECTORY / f"{arguments.name}.py"
    return subprocess.run([sys.executable, str(script), *arguments.options], check=False).returncode
