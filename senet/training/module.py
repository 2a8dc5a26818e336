"""The Lightning module of a training run: network, objective, optimiser, schedule, weight average."""

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn

from senet.data import Batch, stream_seed
from senet.data.datasets import BadImages
from senet.data.module import ImageData
from senet.data.timings import Timings
from senet.models import Network
from senet.rundir import PREFIX
from senet.training.config import RunConfig
from senet.training.evaluation import EvaluationModule
from senet.training.launch import everyone
from senet.training.optimizers import parameter_groups
from senet.training.schedules import Progress

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3


class ClassificationModule(EvaluationModule):
    """Trains a ``Network`` as a ``RunConfig`` says, and evaluates its raw and averaged weights.

    Args:
        network: what is trained; its state-dict keys are ``model.*`` in checkpoints.
        config: the run.
        data: the run's data, for class names, sizes and sample names.
        teacher: in evaluation mode, with the data's classes; its weights are no part of checkpoints.

    Attributes:
        samples_seen: by all ranks.
        stepped: whether the batch that ends now made an optimiser step, or only added to its gradients.
    """

    def __init__(
        self, network: Network, config: RunConfig, data: ImageData, teacher: nn.Module | None = None
    ) -> None:
        super().__init__(data, config.channels_last)
        self.model = network
        self.config = config
        # A list: no submodule, whose weights would be saved.
        self._teachers = [] if teacher is None else [teacher]
        self.ema: ModelEmaV3 | AveragedModel | None = None
        if config.ema.decay is not None:
            from timm.utils import model_ema  # brings all of timm's networks, which take a second

            self.ema = model_ema.ModelEmaV3(network, decay=config.ema.decay, use_warmup=config.ema.warmup)
        elif config.ema.epochs is not None:
            self.ema = AveragedModel(network)
        if self.ema is not None:
            # Lightning sets every module to eval mode for validation, and takes one that is so before for a slip.
            self.ema.train().requires_grad_(False)
        self.samples_seen = 0
        self.val_losses: list[float] = []
        self.best: dict[str, float] = {}
        self.stepped = self._norms_frozen = False
        self._train_sums = torch.zeros(3, dtype=torch.float64)  # loss, top-1 hits, images of this epoch
        self._rank_statistics: dict[str, Tensor] = {}

    # Set-up -----------------------------------------------------------------------------------------------

    @property
    def images_per_batch(self) -> int:
        """Images that all ranks take between two backward passes, the nominal number: unreadable ones count."""
        return self.data.config.batch_size * self.trainer.world_size

    def configure_model(self) -> None:
        """Set memory layout and compile, in place: no key of the state dict changes."""
        super().configure_model()
        if self.config.channels_last:
            self.to(memory_format=torch.channels_last)
        if self.config.compile:
            from senet.kernels.compiler import compile_options

            self.model.compile(options=compile_options())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; the schedule sets its rate before every step."""
        groups = parameter_groups(self.model, self.config.optimizer)
        return self.config.optimizer.build(groups, self.config.optimizer.scaled_lr(self.config.global_batch))

    def progress(self) -> Progress:
        """Return where the run stands, in samples."""
        batch = self.images_per_batch
        epoch = batch * min(int(self.trainer.num_training_batches), self.data.train_size // batch)
        epochs = self.trainer.max_epochs or -1
        limits = [epoch * epochs] if epochs > 0 else []
        if self.trainer.max_steps > 0:
            limits.append(self.trainer.max_steps * self.config.global_batch)
        return Progress(self.samples_seen, epoch, max(1, min(limits)), tuple(self.val_losses))

    # Training ---------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Take what Lightning does not know of: the teacher, restored sums, the BN statistics of this rank."""
        for teacher in self._teachers:
            teacher.to(self.device)
        self._train_sums = self._train_sums.to(self.device)
        state = self.state_dict()
        # Not before: DDP begins with those of rank 0 everywhere.
        for key, mine in self._rank_statistics.items():
            state[key].copy_(mine)
        self._rank_statistics = {}

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums."""
        self._train_sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the step's random stream and set the learning rate, both functions of the progress alone."""
        torch.manual_seed(stream_seed(self.config.seed, "step", self.samples_seen, self.global_rank))
        at = self.progress()
        if self.config.batch_norm.frozen(at) and not self._norms_frozen:
            _freeze_batch_norms(self.model)
            self._norms_frozen = True
        factor = self.config.schedule.factor(at)
        base = self.config.optimizer.scaled_lr(self.config.global_batch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = base * factor * group["lr_share"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        mix = self.config.mixing.draw(*batch.images.shape[-2:])
        own = None if mix is None else mix.own.to(batch.images.device, non_blocking=True)
        images = self.inputs(batch.images, batch.numbers, own)
        logits = self.model(images)
        target = batch.labels if mix is None else mix.labels(batch.labels, len(self.data.classes))
        loss = self.config.loss(logits, target)
        for teacher in self._teachers:
            with torch.no_grad():
                taught = teacher(images)
            loss = self.config.loss.with_teacher(loss, logits, taught)
        hits = (logits.detach().argmax(1) == batch.labels).sum()
        count = torch.tensor(len(batch.labels), device=loss.device)
        self._train_sums += torch.stack([loss.detach() * len(batch.labels), hits, count])
        # Here and not in on_train_batch_end, which Lightning calls after the callbacks that save checkpoints.
        # The nominal batch: one that lacks unreadable images must not make ranks disagree about the progress.
        self.samples_seen += self.images_per_batch
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the parameters of a frozen BN as they are."""
        if self._norms_frozen:
            _drop_gradients_of_frozen(self.model)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then average the weights."""
        super().optimizer_step(*args, **kwargs)
        self.stepped = True
        if isinstance(self.ema, AveragedModel):
            at = self.progress()
            if self.trainer.is_last_batch or at.share == 1:
                epochs_left = round((at.total_samples - at.samples) / at.epoch_samples)
                if epochs_left + 1 >= (self.config.ema.epochs or 1):
                    self.ema.n_averaged.zero_()  # the average starts anew, from these weights
                self.ema.update_parameters(self.model)
        elif self.ema is not None:
            self.ema.update(self.model, step=self.trainer.global_step + 1)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log a row every ``trainer.log_every_n_steps`` optimiser steps."""
        step = self.trainer.global_step
        every = self.config.trainer.get("log_every_n_steps", 50)
        stepped, self.stepped = self.stepped, False  # no batch of an accumulated step but the last steps
        if not stepped or step % every or not self.trainer.is_global_zero:
            return
        # Lightning has divided the loss by the number of accumulated batches.
        loss = float(outputs["loss"]) * self.trainer.accumulate_grad_batches
        row = {"epoch": self.current_epoch, "samples": self.samples_seen, "train/step_loss": loss}
        for logger in self.loggers:
            logger.log_metrics(row | {"lr": self._rate()}, step=step)

    def _rate(self) -> float:
        """Return the learning rate now, of which some parameters may have a share."""
        return max(float(group["lr"]) for group in self.trainer.optimizers[0].param_groups)

    # Evaluation -------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Estimate BN's statistics anew, if the recipe says so; then give every rank the same."""
        if isinstance(self.ema, AveragedModel) and self.ema.n_averaged == 0:  # no epoch has ended yet
            self.ema.update_parameters(self.model)
            self.ema.n_averaged.zero_()
        if count := self.config.batch_norm.precise_batches:
            with self.trainer.precision_plugin.forward_context():
                for network in self.networks().values():
                    with closing(self._training_inputs()) as inputs:
                        update_bn(islice(inputs, count), network)
        super().on_validation_epoch_start()

    def networks(self) -> dict[str, nn.Module]:
        """Return "raw", and "ema" if there is an average."""
        return {"raw": self.model} | ({"ema": self.ema.module} if self.ema is not None else {})

    def _training_inputs(self) -> Generator[Tensor]:
        """Yield what the network saw or sees in the first batches of this epoch."""
        loader = self.data.train_dataloader()
        # Training's own ledgers are for its own batches.
        loader.timings, loader.bad_images = Timings(), BadImages()
        loader.epoch = self.current_epoch
        try:
            for batch in loader:
                batch = self.data.transfer_batch_to_device(batch, self.device, 0)
                yield self.inputs(batch.images, batch.numbers)
        finally:
            loader.close()

    def on_validation_epoch_end(self) -> None:
        """Add the training figures of the epoch and log one row."""
        super().on_validation_epoch_end()
        results = self.results
        self.val_losses.append(results["val/loss"])
        for prefix in PREFIX.values():  # raw and averaged weights are best in epochs of their own
            keys = f"{prefix}/top1", f"{prefix}/top5"
            if keys[0] in results and results[keys[0]] > self.best.get(keys[0], -1.0):
                self.best |= {key: results[key] for key in keys}
        sums = torch.tensor(everyone(self._train_sums.tolist()), dtype=torch.float64).sum(0)
        loss, hits = (sums[:2] / sums[2].clamp(min=1)).tolist()
        results |= {"train/loss": loss, "lr": self._rate(), "samples": float(self.samples_seen)}
        if not self.config.mixing.on:
            results["train/top1"] = 100 * hits
        # Already reduced over ranks: Lightning only hands it to loggers and callbacks.
        self.log_dict({key: torch.tensor(value, dtype=torch.float64) for key, value in results.items()})

    # Records ----------------------------------------------------------------------------------------------

    def keep_rank_statistics(self) -> None:
        """Let the next checkpoint also hold the BN running statistics that each rank has of its own now."""
        if self.trainer.world_size > 1:
            state = self.state_dict()
            keys = [key for key in state if key.endswith(("running_mean", "running_var"))]
            self._rank_statistics = {key: state[key].cpu().clone() for key in keys}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network and continues the run: plain containers only."""
        checkpoint["senet"] = {
            "config": self.config.values,
            "model": self.model.record,
            "se_widths": {name: list(widths) for name, widths in self.model.se_widths().items()},
            "preprocessing": self.data.preprocessing.to_dict(),
            "classes": list(self.data.classes),
            "data": self.data.facts if self.trainer.is_global_zero else {},  # only this rank writes
            "samples_seen": self.samples_seen,
            "val_losses": list(self.val_losses),
            "best": dict(self.best),
            "results": dict(self.results),
            "selected_by": "ema" if self.ema is not None else "raw",
            "train_sums": everyone(self._train_sums.tolist()),
            "rank_statistics": everyone(self._rank_statistics),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the run's own counters."""
        stored = checkpoint["senet"]
        self.samples_seen = stored["samples_seen"]
        self.val_losses = list(stored["val_losses"])
        self.best = dict(stored["best"])
        self.results = dict(stored["results"])
        sums = torch.tensor(stored["train_sums"], dtype=torch.float64).reshape(-1, 3)  # (ranks, 3)
        # Each rank goes on from its own; where their number has changed, rank 0 goes on from the sum of all.
        self._train_sums = sums.sum(0) * (self.global_rank == 0)
        if len(sums) == self.trainer.world_size:
            self._train_sums = sums[self.global_rank]
            self._rank_statistics = stored["rank_statistics"][self.global_rank]


def _freeze_batch_norms(network: Network) -> None:
    """Keep every BN in evaluation mode, whatever ``train`` is told."""
    network.frozen = (*network.frozen, *_batch_norms(network))
    network.train(network.training)


def _drop_gradients_of_frozen(network: Network) -> None:
    """Take the gradients from every BN in evaluation mode, so that no optimiser moves it.

    ``requires_grad`` stays: DDP waits for every gradient that it knew of at the start.
    """
    for norm in _batch_norms(network):
        if not norm.training:
            norm.zero_grad()


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
