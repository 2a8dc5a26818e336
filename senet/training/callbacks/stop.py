"""Stop in order when asked to: on all ranks after the same step."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from senet.training.launch import StopRequest


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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step, tell Lightning if the ranks agree to stop: it ends the run after this hook."""
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch
        if not accumulating and self.request.agreed():
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
