"""Lightning's Trainer as every job of ours wants it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from senet.nn.batchnorm import synchronise, unsynchronise
from senet.training import launch


class _SyncBatchNorm(LayerSync):
    """``trainer.sync_batchnorm`` with our BatchNorm, which also runs on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return unsynchronise(model)


def build_trainer(settings: Mapping[str, Any], directory: Path, **ours: Any) -> Trainer:
    """Return Lightning's Trainer for this rank; ``ours`` are the arguments the run decides."""
    arguments = dict(settings)
    arguments["accelerator"] = launch.accelerator(settings)
    # Step rows and the repeated batch are ours (module.py, data/loader.py); Lightning only warns about them.
    arguments["log_every_n_steps"] = 1
    arguments.pop("overfit_batches", None)
    if launch.process_count(settings) * int(settings.get("num_nodes") or 1) > 1:
        if arguments.get("strategy", "auto") in ("auto", "ddp"):
            # Buffers are averaged before each evaluation; broadcasting them in every forward pass would hang
            # where ranks evaluate unequal numbers of batches.
            arguments["strategy"] = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        if arguments.pop("sync_batchnorm", False):
            ours["plugins"] = [_SyncBatchNorm()]
    return Trainer(
        **arguments,
        default_root_dir=directory,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **ours,
    )
