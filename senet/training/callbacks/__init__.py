"""Lightning callbacks of a run."""

from senet.training.callbacks.agreement import RanksAgree
from senet.training.callbacks.checkpoints import Checkpoints
from senet.training.callbacks.guard import FiniteLossGuard, NonFiniteLossError
from senet.training.callbacks.progress import ProgressReport

__all__ = ["Checkpoints", "FiniteLossGuard", "NonFiniteLossError", "ProgressReport", "RanksAgree"]
