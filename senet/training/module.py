"""The Lightning module of a training run: network, objective, optimiser, schedule, weight average."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from senet.data import Batch, stream_seed
from senet.data.module import ImageData
from senet.models import Network
from senet.training.config import RunConfig
from senet.training.evaluation import EvaluationModule
from senet.training.optimizers import parameter_groups
from senet.training.schedules import Progress


class ClassificationModule(EvaluationModule):
    """Trains a ``Network`` as a ``RunConfig`` says, and evaluates its raw and averaged weights.

    Args:
        network: what is trained; its state-dict keys are ``model.*`` in checkpoints.
        config: the run.
        data: the run's data, for class names, sizes and sample names.
        values: the same run as plain containers, stored in checkpoints.
    """

    def __init__(
        self, network: Network, config: RunConfig, data: ImageData, values: Mapping[str, Any]
    ) -> None:
        super().__init__(data, config.channels_last)
        self.model = network
        self.config, self.values = config, values
        self.ema: ModelEmaV3 | None = None
        if config.ema.decay is not None:
            self.ema = ModelEmaV3(network, decay=config.ema.decay, use_warmup=config.ema.warmup)
            # Lightning sets every module to eval mode for validation, and takes one that is so before for a slip.
            self.ema.train().requires_grad_(False)
        self.samples_seen = 0
        self.val_losses: list[float] = []
        self.best: dict[str, float] = {}
        self._stepped = False
        self._train_sums = torch.zeros(3, dtype=torch.float64)  # loss, top-1 hits, images of this epoch

    # Set-up -----------------------------------------------------------------------------------------------

    @property
    def global_batch(self) -> int:
        """Images per optimiser step, over all devices and accumulated batches."""
        accumulate = int(self.trainer.accumulate_grad_batches)
        return self.data.config.batch_size * self.trainer.world_size * accumulate

    def configure_model(self) -> None:
        """Set memory layout and compile, in place: no key of the state dict changes."""
        super().configure_model()
        if self.config.channels_last:
            self.to(memory_format=torch.channels_last)
        if self.config.compile:
            self.model.compile()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; the schedule sets its rate before every step."""
        groups = parameter_groups(self.model, self.config.optimizer)
        return self.config.optimizer.build(groups, self.config.optimizer.scaled_lr(self.global_batch))

    def progress(self) -> Progress:
        """Return where the run stands, in samples."""
        batch = self.data.config.batch_size * self.trainer.world_size
        epoch = batch * min(int(self.trainer.num_training_batches), self.data.train_size // batch)
        epochs = self.trainer.max_epochs or -1
        limits = [epoch * epochs] if epochs > 0 else []
        if self.trainer.max_steps > 0:
            limits.append(self.trainer.max_steps * self.global_batch)
        return Progress(self.samples_seen, epoch, max(1, min(limits)), tuple(self.val_losses))

    # Training ---------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Move restored sums to the device."""
        self._train_sums = self._train_sums.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums."""
        self._train_sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the step's random stream and set the learning rate, both functions of the progress alone."""
        torch.manual_seed(stream_seed(self.config.seed, "step", self.samples_seen, self.global_rank))
        factor = self.config.schedule.factor(self.progress())
        base = self.config.optimizer.scaled_lr(self.global_batch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = base * factor * group["lr_share"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        mix = self.config.mixing.draw(*batch.images.shape[-2:])
        own = None if mix is None else mix.own.to(batch.images.device, non_blocking=True)
        logits = self.model(self.inputs(batch.images, batch.numbers, own))
        target = batch.labels if mix is None else mix.labels(batch.labels, len(self.data.classes))
        loss = self.config.loss(logits, target)
        hits = (logits.detach().argmax(1) == batch.labels).sum()
        count = torch.tensor(len(batch.labels), device=loss.device)
        self._train_sums += torch.stack([loss.detach() * len(batch.labels), hits, count])
        # Here and not in on_train_batch_end, which Lightning calls after the callbacks that save checkpoints.
        # The nominal batch: one that lacks unreadable images must not make ranks disagree about the progress.
        self.samples_seen += self.data.config.batch_size * self.trainer.world_size
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then average the weights."""
        super().optimizer_step(*args, **kwargs)
        self._stepped = True
        if self.ema is not None:
            self.ema.update(self.model, step=self.trainer.global_step + 1)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log a row every ``trainer.log_every_n_steps`` optimiser steps."""
        step = self.trainer.global_step
        every = self.config.trainer.get("log_every_n_steps", 50)
        stepped, self._stepped = self._stepped, False  # no batch of an accumulated step but the last steps
        if not stepped or step % every or not self.trainer.is_global_zero:
            return
        row = {"epoch": self.current_epoch, "samples": self.samples_seen, **self._step_figures(outputs)}
        for logger in self.loggers:
            logger.log_metrics(row, step=step)

    def _step_figures(self, outputs: Any) -> dict[str, float]:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return {"train/step_loss": float(outputs["loss"]), "lr": float(rate)}

    # Evaluation -------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return "raw", and "ema" if there is an average."""
        return {"raw": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def on_validation_epoch_end(self) -> None:
        """Add the training figures of the epoch and log one row."""
        super().on_validation_epoch_end()
        results = self.results
        self.val_losses.append(results["val/loss"])
        for key in results:
            if key.endswith(("/top1", "/top5")):
                self.best[key] = max(self.best.get(key, 0.0), results[key])
        loss, hits = self._reduced_train_sums()
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        results |= {"train/loss": loss, "lr": float(rate), "samples": float(self.samples_seen)}
        if not self.config.mixing.on:
            results["train/top1"] = 100 * hits
        # Already reduced over ranks: Lightning only hands it to loggers and callbacks.
        self.log_dict({key: torch.tensor(value, dtype=torch.float64) for key, value in results.items()})

    def _reduced_train_sums(self) -> tuple[float, float]:
        sums = self._train_sums
        if self.trainer.world_size > 1:
            sums = sums.clone()
            torch.distributed.all_reduce(sums)
        loss, hits, count = sums.tolist()
        return loss / max(1.0, count), hits / max(1.0, count)

    # Records ----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network and continues the run: plain containers only."""
        checkpoint["senet"] = {
            "config": dict(self.values),
            "model": self.model.record,
            "se_widths": {name: list(widths) for name, widths in self.model.se_widths().items()},
            "preprocessing": self.data.preprocessing.to_dict(),
            "classes": list(self.data.classes),
            "samples_seen": self.samples_seen,
            "val_losses": list(self.val_losses),
            "best": dict(self.best),
            "results": dict(self.results),
            "selected_by": "ema" if self.ema is not None else "raw",
            "train_sums": self._train_sums.tolist(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the run's own counters."""
        stored = checkpoint["senet"]
        self.samples_seen = stored["samples_seen"]
        self.val_losses = list(stored["val_losses"])
        self.best = dict(stored["best"])
        self.results = dict(stored["results"])
        self._train_sums = torch.tensor(stored["train_sums"], dtype=torch.float64)
