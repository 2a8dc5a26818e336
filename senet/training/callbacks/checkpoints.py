"""How a run is saved and stopped: checkpoints that are always whole, and all ranks end after the same step."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from senet.files import atomically
from senet.nn.batchnorm import average_running_statistics
from senet.rundir import PREFIX, RunDir, link_latest
from senet.training.callbacks.checks import FiniteLossGuard
from senet.training.config import CheckpointConfig
from senet.training.launch import StopRequest
from senet.training.module import ClassificationModule
from senet.weights.checkpoint import check_archive


class Checkpoints(Checkpoint):
    """Write ``last.ckpt`` after every validation, every n steps if asked, and when the run is stopped.

    ``best.ckpt`` is written when validation top-1 of the weights the run is judged by (the average, if there
    is one) improves on all epochs before. Files are written under a temporary name, read again, and renamed; the
    ``last`` before becomes ``previous``.

    Args:
        run: where to.
        config: when.
        guard: has a look before each of them.
        stop: told what fails beside the training.
        start: the checkpoint that the run goes on from. A ``last`` that is another is damaged, and not kept.
    """

    def __init__(
        self,
        run: RunDir,
        config: CheckpointConfig,
        guard: FiniteLossGuard,
        stop: StopRequest,
        start: Path | None = None,
    ) -> None:
        self.run, self.config, self.guard, self.stop = run, config, guard, stop
        self._keeps = start in (None, run.checkpoint("last"))
        self._best: float | None = None
        self._saved_step = -1

    def state_dict(self) -> dict[str, float | None]:
        """Return the best top-1 so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        """Restore the best top-1 so far."""
        self._best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on the run's directory is kept, whatever comes, and it is the latest of those beside it."""
        if trainer.is_global_zero:
            self.run.update(began=True)
            if "study" not in self.run.record():
                link_latest(self.run.path)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save in mid-epoch, every n optimiser steps; see to it that training ends with a validation or a save."""
        every, step = self.config.every_n_steps, trainer.global_step
        ends = is_last_step(trainer)
        if ends and trainer.enable_validation:
            # Lightning asks these after this hook: whatever the interval is, validate now, and save after it.
            trainer.check_val_every_n_epoch = trainer.val_check_batch = 1
            return
        assert isinstance(pl_module, ClassificationModule)
        # The end of an epoch saves after its validation; amid a step, its gradients so far would be lost.
        due = bool(every) and step % (every or 1) == 0 and pl_module.stepped and not trainer.is_last_batch
        if (due or ends) and step != self._saved_step:
            self._save(trainer, pl_module, "last")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save an epoch that has no validation."""
        if trainer.is_last_batch and trainer.global_step != self._saved_step:
            self._save(trainer, pl_module, "last")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best`` if it is, and ``last``."""
        assert isinstance(pl_module, ClassificationModule)
        chosen = PREFIX["ema" if pl_module.ema is not None else "raw"]
        top1 = pl_module.results[f"{chosen}/top1"]
        self.guard.check_state(pl_module)
        self.guard.check_results(pl_module.results, trainer.global_step)
        self._write_predictions(pl_module, "last")
        if self._best is None or top1 > self._best:
            self._best = top1
            self._write_predictions(pl_module, "best")
            self._save(trainer, pl_module, "best")
        self._save(trainer, pl_module, "last")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state at the step boundary where a signal stopped the run; no other failure is saved."""
        if isinstance(exception, SIGTERMException) and trainer.global_step not in (0, self._saved_step):
            assert isinstance(pl_module, ClassificationModule)
            pl_module.keep_rank_statistics()  # the undisturbed run does not average them here
            self._save(trainer, pl_module, "last")

    def _write_predictions(self, pl_module: ClassificationModule, label: str) -> None:
        """Write them before the checkpoint: a run that is killed in between writes them again."""
        with self.stop.after(f"writing the predictions ({label})"):
            pl_module.write_predictions(self.run, label)

    def _save(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        self.guard.check(pl_module)
        average_running_statistics(pl_module)
        self.guard.check_state(pl_module)
        final = self.run.checkpoint(name)
        # All ranks gather what is saved; the first one alone writes it.
        with atomically(final) if trainer.is_global_zero else nullcontext(final) as file:
            trainer.save_checkpoint(file)
            if trainer.is_global_zero:
                check_archive(file)
                if name == "last" and self._keeps:
                    self.run.keep_last()
        self._keeps |= name == "last"
        self._saved_step = trainer.global_step


def is_last_step(trainer: Trainer) -> bool:
    """Whether training ends after this batch: by epochs, by steps, or because it was asked to (``max_time``)."""
    epochs = trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1
    steps = 0 < trainer.max_steps <= trainer.global_step
    return steps or (epochs and trainer.is_last_batch) or trainer.should_stop


class OrderlyStop(Callback):
    """Let all ranks leave the training loop together once one of them was sent Ctrl-C or SIGTERM.

    Lightning's own handler of SIGTERM starts a broadcast wherever it interrupts, in the middle of another
    collective too, and lets each rank leave after the step it happens to be in. So ours replaces it.

    Args:
        request: that the process listens with.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self._waits = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on there is a step to finish."""
        self.request.orderly = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning."""
        self.request.listen()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """After an optimiser step, tell Lightning if the ranks agree to stop: it ends the run after this hook."""
        assert isinstance(pl_module, ClassificationModule)
        if pl_module.stepped and self.request.agreed():
            end_after_this_step(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the validation that follows the last step: a resumed run would leave out one that was cut short."""
        self._waits = trainer.received_sigterm
        end_after_this_step(trainer, False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the stop, now that the validation is saved."""
        end_after_this_step(trainer, self._waits)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What follows has no step to finish."""
        self.request.orderly = False


def end_after_this_step(trainer: Trainer, yes: bool = True) -> None:
    """Let the training loop end as after a SIGTERM: what runs between two steps then raises SIGTERMException.

    Private in Lightning: its public ``should_stop`` would finish the epoch's validation first.
    """
    trainer._signal_connector.received_sigterm = yes
