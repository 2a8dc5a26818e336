"""Lightning callbacks of a run."""

from senet.training.callbacks.agreement import RanksAgree
from senet.training.callbacks.checkpoints import Checkpoints
from senet.training.callbacks.guard import FiniteLossGuard, NonFiniteLossError
from senet.training.callbacks.progress import ProgressReport
from senet.training.callbacks.stop import OrderlyStop
from senet.training.callbacks.tails import TailsRun

__all__ = [
    "Checkpoints",
    "FiniteLossGuard",
    "NonFiniteLossError",
    "OrderlyStop",
    "ProgressReport",
    "RanksAgree",
    "TailsRun",
]
