"""``senet doctor``: ``resume`` kills small runs at random moments, ``faults`` does every kind of harm to them."""

import argparse
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from senet.doctor.faults import FAULTS, kills
from senet.doctor.parts import PARTS
from senet.doctor.trials import Outcome, Trials
from senet.errors import UserError
from senet.table import Column, Table

COUNTS = (
    Column[Outcome]("ranks", lambda o: str(o.fault.ranks)),
    Column[Outcome]("at step", lambda o: str(o.step)),
    Column[Outcome]("steps done again", lambda o: str(o.repeated)),
    Column[Outcome]("s to recover", lambda o: f"{o.recovered:.1f}"),
)


def _sameness(part: str, outcome: Outcome) -> str:
    return "=" if outcome.same[part] else "DIFFERS"


RESUME = (
    Column[Outcome]("killed", lambda o: o.fault.name, words=True),
    *COUNTS,
    Column[Outcome]("directory", lambda o: "readable" if o.readable else "UNREADABLE", words=True),
    *(Column[Outcome](part, partial(_sameness, part), words=True) for part in PARTS),
)
"""What is shown of kills."""
HARM = (
    Column[Outcome]("fault", lambda o: o.fault.name, words=True),
    Column[Outcome]("what the run said", lambda o: o.said, words=True),
    Column[Outcome]("s until it had ended", lambda o: f"{o.ended:.1f}"),
    *COUNTS[2:],
    Column[Outcome]("in the end", lambda o: "identical" if o.right else "DIFFERS", words=True),
)
"""What is shown of faults, for people who have one."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``senet doctor``."""
    parser.add_argument(
        "what", choices=("resume", "faults"), help="kills at random moments, or faults of every kind"
    )
    parser.add_argument("--kills", type=int, default=4, metavar="N", help="how many kills (4)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], choices=(1, 2),
                        help="of the killed runs, in turn (1 2)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--markdown", action="store_true", help="print a table of Markdown")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the images and runs there")


def run(arguments: argparse.Namespace) -> int:
    """Hurt runs and print what was seen; return 1 if anything was lost."""
    if arguments.kills < 1:
        raise UserError(f"--kills={arguments.kills} must be 1 or more")
    # An exit, so that no run outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        return _examine(arguments, arguments.out.resolve())
    with tempfile.TemporaryDirectory(prefix="senet-doctor-") as out:
        return _examine(arguments, Path(out).resolve())


def _examine(arguments: argparse.Namespace, out: Path) -> int:
    trials = Trials(out, arguments.seed)
    killing = arguments.what == "resume"
    faults = tuple(kills(arguments.kills, arguments.ranks, trials.random)) if killing else FAULTS
    outcomes = []
    for index, fault in enumerate(faults, start=1):
        tried = f"{index}/{len(faults)}  {fault.name}, {fault.ranks} rank(s): "
        print(tried, end="", file=sys.stderr, flush=True)
        outcomes.append(trials.try_out(fault))
        print("right" if outcomes[-1].right else "WRONG", file=sys.stderr)
    table = Table(RESUME if killing else HARM, outcomes)
    print(table.markdown() if arguments.markdown else table.text())
    right = sum(outcome.right for outcome in outcomes)
    print(f"{len(outcomes)} tried, {right} right")
    return 0 if right == len(outcomes) else 1
