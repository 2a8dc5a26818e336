"""A trained network from wherever it lies: a run, a checkpoint, a file, a library; with its images and classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.models import Network
from senet.models.factory import rebuild
from senet.rundir import RunDir, Which
from senet.weights.checkpoint import Averaging, Checkpoint, read_checkpoint
from senet.weights.classes import known_classes
from senet.weights.read import read_weights
from senet.weights.record import check_keys


@dataclass(frozen=True)
class Trained:
    """A network that can be used.

    Attributes:
        network: in evaluation mode.
        preprocessing: the images that it expects.
        classes: of its outputs, in order; ImageNet's by their WordNet ids; None where the file does not say.
        source: where it comes from, for people.
        weights: "raw", "ema", or "" where there is no choice.
        checkpoint: ours, if it comes from one.
        words: what was recognised and assumed.
    """

    network: Network
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    source: str
    weights: Literal["raw", "ema", ""] = ""
    checkpoint: Checkpoint | None = None
    words: str = ""

    def class_names(self) -> list[str]:
        """Return a name for every output, for people."""
        record: dict[str, Any] = self.network.record
        return list(self.classes or (f"class {index}" for index in range(record["num_classes"])))


def read_trained(spec: str, which: Which = "best", weights: Averaging = "auto") -> Trained:
    """Return the network that ``spec`` names: a run directory, or what ``model.weights`` takes.

    Raises:
        UserError: if there is none, or nobody can tell which network or which images it is for.
    """
    run = RunDir(Path(spec).expanduser().resolve())  # what ``latest`` is now
    if run.exists():
        return of_checkpoint(read_checkpoint(run.checkpoint(which)), weights)
    state, record, checkpoint = read_weights(spec, {}, weights)
    if checkpoint is not None:
        return of_checkpoint(checkpoint, weights)
    if not record.model.get("num_classes"):
        raise UserError(f"{spec} has no classifier: train one with model.weights={spec}")
    network = rebuild(record.model)
    check_keys(state, network.state_dict(), spec)
    network.load_state_dict(state)
    if record.preprocessing is None:
        raise UserError(
            f"{spec} does not say for which images it is: give a checkpoint or an export of senet"
        )
    pre, words = record.preprocessing, record.recognised
    if record.assumed:
        words += (
            f"; it does not say for which images: assumed {pre.colour}, {pre.size} px, resize {pre.resize} "
            f"({pre.interpolation}), mean {list(pre.mean)}, std {list(pre.std)}"
        )
    return Trained(network.eval(), pre, known_classes(record), record.source, words=words)


def of_checkpoint(checkpoint: Checkpoint, weights: Averaging = "auto") -> Trained:
    """Return the network of one of our checkpoints."""
    network, chosen = checkpoint.network(weights), checkpoint.choose(weights)
    classes = tuple(checkpoint.classes)
    return Trained(network, checkpoint.preprocessing, classes, str(checkpoint.path), chosen, checkpoint)
