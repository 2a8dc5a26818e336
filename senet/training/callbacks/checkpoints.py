"""Two checkpoints, ``best`` and ``last``, always whole and always what their names say."""

import os

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from senet.nn.batchnorm import average_running_statistics
from senet.training.callbacks.guard import FiniteLossGuard
from senet.training.config import CheckpointConfig
from senet.training.evaluation import PREFIX
from senet.training.module import ClassificationModule
from senet.training.rundir import RunDir


class Checkpoints(Checkpoint):
    """Write ``last.ckpt`` after every validation, every n steps if asked, and when the run is stopped.

    ``best.ckpt`` is written when validation top-1 of the weights the run is judged by (the average, if there
    is one) improves on all epochs before. Files are written under a temporary name and renamed.
    """

    def __init__(self, run: RunDir, config: CheckpointConfig, guard: FiniteLossGuard) -> None:
        self.run, self.config, self.guard = run, config, guard
        self._best: float | None = None
        self._saved_step = -1

    def state_dict(self) -> dict[str, float | None]:
        """Return the best top-1 so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        """Restore the best top-1 so far."""
        self._best = state_dict["best"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save in mid-epoch, every n optimiser steps."""
        every, step = self.config.every_n_steps, trainer.global_step
        # The end of an epoch saves after its validation.
        if every and step % every == 0 and step != self._saved_step and not trainer.is_last_batch:
            self._save(trainer, pl_module, "last")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best`` if it is, and ``last``."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, ClassificationModule)
        chosen = PREFIX["ema" if pl_module.ema is not None else "raw"]
        top1 = pl_module.results[f"{chosen}/top1"]
        pl_module.write_predictions(self.run, "last")
        if self._best is None or top1 > self._best:
            self._best = top1
            pl_module.write_predictions(self.run, "best")
            self._save(trainer, pl_module, "best")
        self._save(trainer, pl_module, "last")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state at the step boundary where a signal stopped the run; no other failure is saved."""
        if isinstance(exception, SIGTERMException) and trainer.global_step > 0:
            self._save(trainer, pl_module, "last")

    def _save(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        self.guard.check(pl_module)
        average_running_statistics(pl_module)
        final = self.run.checkpoints / f"{name}.ckpt"
        temporary = self.run.checkpoints / f".{name}.ckpt.tmp"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            os.replace(temporary, final)
        self._saved_step = trainer.global_step
