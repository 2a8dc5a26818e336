"""A training run: build, fit, summarise."""

import time
import warnings
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Trainer

from senet.analysis.curves import draw_curves
from senet.data import stream_seed
from senet.data.ledger import read_ledger
from senet.data.module import ImageData
from senet.data.parallel import cores
from senet.models import Network, count_macs, count_parameters, create_model
from senet.nn.blocks import set_kernels
from senet.training.callbacks import Checkpoints, FiniteLossGuard, OrderlyStop, ProgressReport, RanksAgree
from senet.training.callbacks.progress import readable
from senet.training.config import RunConfig, config_hash, validate
from senet.training.console import say
from senet.training.launch import StopRequest
from senet.training.loggers import CsvFiles, build_loggers, finish_loggers
from senet.training.module import ClassificationModule
from senet.training.rundir import RunDir, write_json
from senet.training.trainer import build_trainer
from senet.weights import WeightRecord, freeze, load_weights

SKIPPED_FILE = "skipped_images.csv"
"""The run's ledger: epoch, id, image and reason of each image that training left out."""


def build_network(config: RunConfig, data: ImageData) -> Network:
    """Return the run's network: initialised from the stream "init" of its seed, then with ``model.weights``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init"))
        network = create_model(
            config.model["name"],
            se=config.se,
            num_classes=len(data.classes),
            in_channels=data.preprocessing.channels,
            **config.model_options,
        )
        if config.model.get("weights"):
            record = load_weights(config.model["weights"], network)
            say(f"weights   {record.source}")
            _compare_preprocessing(record, data)
    set_kernels(network, config.kernels)
    if config.model.get("freeze"):
        freeze(network, config.model["freeze"])
    return network


def _compare_preprocessing(record: WeightRecord, data: ImageData) -> None:
    """Say where the images differ from those the weights were trained on; fine-tuning may mean to."""
    ours = data.preprocessing.to_dict()
    for key, theirs in (record.preprocessing or {}).items():
        if ours[key] != theirs:
            say(f"          trained with {key}={theirs}, here data.preprocessing.{key}={ours[key]}")


def train(run: RunDir, values: Mapping[str, Any], stop: StopRequest) -> None:
    """Train the run that ``values`` describes, from its last checkpoint if there is one, until ``stop``."""
    config = validate(RunConfig, values)
    data = ImageData(config.data, config.augment, config.seed)
    data.ledger.file = run.path / SKIPPED_FILE
    data.overfit_batches = config.trainer.get("overfit_batches", 0)
    network = build_network(config, data)
    module = ClassificationModule(network, config, data, values)
    loggers = build_loggers(config.logger, run, values)
    guard = FiniteLossGuard()
    progress = ProgressReport()
    ranks = RanksAgree(values, config.ranks.check_every_n_steps)
    checkpoints = Checkpoints(run, config.checkpoint, guard)
    callbacks = [guard, ranks, progress, checkpoints, OrderlyStop(stop)]
    trainer = build_trainer(config.trainer, run.path, logger=loggers, callbacks=callbacks)
    last = run.checkpoints / "last.ckpt"
    if last.exists():
        step = int(torch.load(last, weights_only=True, map_location="cpu")["global_step"])
        for logger in loggers:
            if isinstance(logger, CsvFiles):
                logger.resume_at(step)
        say(f"continuing at step {step}")
    if trainer.is_global_zero:
        _introduce(module, trainer, run)
    started = time.perf_counter()
    before = float(run.record().get("seconds") or 0.0)
    finished = False
    try:
        with warnings.catch_warnings():
            if config.model.get("freeze"):  # on purpose, and not to be warned of
                warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
        finished = True
    finally:
        finish_loggers(loggers, exit_code=0 if finished else 1)
        seconds = before + time.perf_counter() - started
        if trainer.is_global_zero:  # an interrupted run keeps its time for the sum
            run.update(seconds=round(seconds, 1))
    if trainer.is_global_zero:
        _conclude(module, trainer, run, progress, seconds)


def _introduce(module: ClassificationModule, trainer: Trainer, run: RunDir) -> None:
    config, data = module.config, module.data
    widths = sorted(set(module.model.se_widths().values()))
    se = f", SE r={config.se.reduction}: " + ", ".join(f"{c}→{h}" for c, h in widths) if config.se else ""
    batch, world = data.config.batch_size, trainer.world_size
    accumulate = int(trainer.accumulate_grad_batches)
    total = batch * world * accumulate
    rate = config.optimizer.scaled_lr(total)
    scaled = (
        f" = {config.optimizer.lr:g} x {total}/{config.optimizer.lr_batch}"
        if config.optimizer.lr_batch
        else ""
    )
    say(f"run       {run.path}")
    say(f"model     {config.model['name']}, {count_parameters(module.model):,} parameters{se}")
    say(
        f"data      {config.data.name}: {data.train_size:,} training and {data.val_size:,} validation images, "
        f"{len(data.classes)} classes, {data.preprocessing.size} px, {data.decoder}"
    )
    say(
        f"batch     {total} = {batch} images x {world} device(s) x {accumulate} accumulated; lr {rate:g}{scaled}"
    )


def summarise(module: ClassificationModule) -> dict[str, Any]:
    """Return what every run has to say of its network, data and figures."""
    config, data = module.config, module.data
    parameters = count_parameters(module.model)
    return {
        "model": config.model["name"],
        "se": config.se.to_dict() if config.se else None,
        "se_widths": module.model.se_widths(),
        "parameters": parameters,
        "macs": count_macs(module.model, data.preprocessing.channels, data.preprocessing.size),
        "data": {
            "name": config.data.name,
            "train_images": data.train_size,
            "val_images": data.val_size,
            "classes": len(data.classes),
            "preprocessing": data.preprocessing.to_dict(),
            "manifest": data.manifest_id,
        },
        "seed": config.seed,
        "config_hash": config_hash(module.values),
        "best": module.best,
        "last": {key: value for key, value in module.results.items() if key.startswith("val")},
        "train_loss": module.results.get("train/loss"),
    }


def _conclude(
    module: ClassificationModule,
    trainer: Trainer,
    run: RunDir,
    progress: ProgressReport,
    seconds: float,
) -> None:
    rate = median(progress.rates) if progress.rates else None  # the first epoch of a short run is slower
    summary = summarise(module) | {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "samples_seen": module.samples_seen,
        "devices": trainer.world_size,
        "seconds": round(seconds, 1),
        "images_per_second": round(rate, 1) if rate is not None else None,
    }
    skipped = read_ledger(run.path / SKIPPED_FILE)
    summary["data"] |= {"skipped_images": len(skipped), "timings": module.data.timings.to_dict()}
    picture = draw_curves(run.path)
    write_json(run.summary_file, summary)
    say("")
    say(
        f"{'':10}{'last':>9}{'best':>9}   (validation top-1, %, of {int(module.results['val/count']):,} images)"
    )
    for prefix, label in (("val", "raw"), ("val_ema", "average")):
        if f"{prefix}/top1" in module.results:
            last, best = module.results[f"{prefix}/top1"], module.best[f"{prefix}/top1"]
            say(f"{label:10}{last:>9.2f}{best:>9.2f}")
    say(f"{'time':10}{readable(seconds)}" + (f", {rate:,.0f} images/s in training" if rate else ""))
    hint = module.data.timings.hint(module.data.workers, cores())
    if hint:
        say(f"{'data':10}{hint}")
    if skipped:
        say(f"{'skipped':10}{len(skipped)} unreadable images, listed in {run.path / SKIPPED_FILE}")
    say(f"{'run':10}{run.path}")
    if picture:
        say(f"{'curves':10}{picture}")
