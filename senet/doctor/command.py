"""``senet doctor``: ``resume`` kills small runs at random moments, ``faults`` does every kind of harm to them."""

import argparse
import signal
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from senet.doctor.faults import FAULTS, kills
from senet.doctor.trials import Outcome, Trials
from senet.errors import UserError
from senet.table import Column, Table

COLUMNS = (
    Column[Outcome]("fault", lambda o: o.fault.name, words=True),
    Column[Outcome]("what the run said", lambda o: o.said, words=True),
    Column[Outcome]("s until it had ended", lambda o: f"{o.ended:.1f}"),
    Column[Outcome]("steps done again", lambda o: str(o.repeated)),
    Column[Outcome]("s to recover", lambda o: f"{o.recovered:.1f}"),
    Column[Outcome](
        "in the end", lambda o: f"DIFFERS: {', '.join(o.wrong)}" if o.wrong else "identical", words=True
    ),
)


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
    kept = (
        nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory(prefix="senet-doctor-")
    )
    with kept as out:
        trials, outcomes = Trials(Path(out).resolve(), arguments.seed), []
        faults = FAULTS
        if arguments.what == "resume":
            faults = tuple(kills(arguments.kills, arguments.ranks, trials.random))
        for index, fault in enumerate(faults, start=1):
            print(f"{index}/{len(faults)}  {fault.name}: ", end="", file=sys.stderr, flush=True)
            outcomes.append(trials.try_out(fault))
            print("WRONG" if outcomes[-1].wrong else "right", file=sys.stderr)
    table = Table(COLUMNS, outcomes)
    print(table.markdown() if arguments.markdown else table.text())
    right = sum(not outcome.wrong for outcome in outcomes)
    print(f"{len(outcomes)} tried, {right} right")
    return 0 if right == len(outcomes) else 1
