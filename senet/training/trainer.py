"""Lightning's Trainer as every job of ours wants it."""

import io
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.layer_sync import LayerSync
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from senet.nn.batchnorm import synchronise, unsynchronise
from senet.training import launch
from senet.training.console import rank
from senet.weights.checkpoint import read_checkpoint, seal

# torch 2.15 calls it anew, and warns of the old name.
_BROADCAST = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)


class _SyncBatchNorm(LayerSync):
    """``trainer.sync_batchnorm`` with our BatchNorm, which also runs on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return unsynchronise(model)


class _Sealed(TorchCheckpointIO):
    """Checkpoints with digests. Lightning's own would first write each to the folder of temporary files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        seal(checkpoint)
        archive = io.BytesIO()
        torch.save(checkpoint, archive)
        Path(path).write_bytes(archive.getbuffer())

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path)).content


def build_trainer(settings: Mapping[str, Any], directory: Path, **ours: Any) -> Trainer:
    """Return Lightning's Trainer for this rank; ``ours`` are the arguments the run decides."""
    arguments = dict(settings)
    arguments["accelerator"] = launch.accelerator(settings)
    arguments["precision"] = launch.precision(settings)
    if not isinstance(settings.get("devices"), list | tuple):  # which name GPUs
        arguments["devices"] = launch.process_count(settings)
    # Lightning takes it from RANK or SLURM_PROCID, whoever has set them.
    rank_zero_only.rank = rank()  # type: ignore[attr-defined]
    # On a GPU cuDNN tries its algorithms once per shape and keeps the fastest; which one it is may change roundings.
    arguments.setdefault("benchmark", not settings.get("deterministic"))
    # Step rows and the repeated batch are ours (module.py, data/loader.py); Lightning only warns about them.
    arguments["log_every_n_steps"] = 1
    arguments.pop("overfit_batches", None)
    plugins: list[Any] = [_Sealed()]
    if launch.world_size(settings) > 1:
        if arguments.get("strategy", "auto") in ("auto", "ddp"):
            # Buffers are averaged before each evaluation; broadcasting them in every forward pass would hang
            # where ranks evaluate unequal numbers of batches.
            options: dict[str, Any] = {_BROADCAST: False, "gradient_as_bucket_view": True}
            arguments["strategy"] = DDPStrategy(**options)
        if arguments.pop("sync_batchnorm", False):
            plugins.append(_SyncBatchNorm())
    return Trainer(
        **arguments,
        plugins=plugins,
        default_root_dir=directory,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **ours,
    )
