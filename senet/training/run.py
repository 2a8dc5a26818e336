"""A training run in the order of time: data and network, the loop, what is left of it."""

import copy
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Trainer

from senet.analysis.gate_statistics import dead_units, watch_hidden
from senet.data import stream_seed
from senet.data.datasets import read_bad_images
from senet.data.module import ImageData
from senet.data.tools import cores
from senet.errors import UserError
from senet.files import write_json
from senet.models import Network, count_macs, count_parameters, create_model
from senet.nn.tail import plan_tails, set_drop_path, set_kernels
from senet.rundir import RunDir
from senet.training import launch
from senet.training.callbacks.checkpoints import Checkpoints, OrderlyStop
from senet.training.callbacks.checks import FiniteLossGuard, RanksAgree, TailsRun
from senet.training.callbacks.progress import ProgressReport, readable
from senet.training.config import RunConfig
from senet.training.console import rank, say
from senet.training.launch import StopRequest
from senet.training.loggers import build_loggers
from senet.training.module import ClassificationModule
from senet.training.trainer import build_trainer
from senet.weights import WeightRecord, freeze, load_weights
from senet.weights.checkpoint import digest, newest_checkpoint
from senet.weights.classes import keep_classifier
from senet.weights.load import new_classifier
from senet.weights.trained import read_trained


def train(run: RunDir, config: RunConfig, stop: StopRequest) -> None:
    """Train a run, from its last checkpoint if there is one, until it is done or ``stop`` is asked for."""
    data = ImageData(config.data, config.augment, config.seed, held_out=run.held_out())
    data.bad_images.file = run.skipped_file
    data.overfit_batches = config.trainer.get("overfit_batches", 0)
    start, step = _start(run, data)
    network = build_network(config, data, resumed=start is not None)
    module = ClassificationModule(network, config, data, load_teacher(config, data, run))
    settings = {**config.trainer, "precision": precision_of(run, config.trainer)}
    pre, device = data.preprocessing, launch.accelerator(settings)
    batch = (data.config.batch_size, pre.channels, pre.size, pre.size)
    tails = plan_tails(network, batch, device, launch.dtype_of_maps(settings)) if rank() == 0 else None

    progress = ProgressReport(module)
    guard = FiniteLossGuard(run)
    callbacks = [
        guard,
        RanksAgree(config.identity, config.ranks.check_every_n_steps),
        progress,
        Checkpoints(run, config.checkpoint, guard, stop, start),
        OrderlyStop(stop),
        *([] if tails is None else [TailsRun(tails.fused)]),
    ]
    loggers = build_loggers(config, run, step, stop)
    trainer = build_trainer(settings, run.path, logger=loggers, callbacks=callbacks)
    if trainer.is_global_zero:
        if data.held_out and run.held_out() is None:
            run.write_held_out(data.held_out)
        run.update(precision=settings["precision"])
        how = launch.slow_precision(settings) or settings["precision"]
        _introduce(module, trainer, run, [f"tail      {tails}", f"precision {how}"])

    started = time.perf_counter()
    before = float(run.record().get("seconds") or 0.0)
    finished = False
    try:
        with _without_warnings_of_what_is_meant(config):
            trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
        finished = stop.failure is None
    finally:
        data.close()
        for logger in loggers:
            logger.finalize("success" if finished else "failed")
        seconds = before + time.perf_counter() - started
        if trainer.is_global_zero:  # an interrupted run keeps its time for the sum
            with stop.after("writing run.json"):
                run.update(seconds=round(seconds, 1))

    if trainer.is_global_zero:
        _conclude(module, trainer, run, progress, seconds)


@contextmanager
def _without_warnings_of_what_is_meant(config: RunConfig) -> Iterator[None]:
    with warnings.catch_warnings():
        # trainer.max_time may change when a run is resumed, and with it whether there is a Timer.
        warnings.filterwarnings("ignore", message=r".*add the following callbacks: \['Timer")
        if config.model.get("freeze"):
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        yield


def _start(run: RunDir, data: ImageData) -> tuple[Path | None, int]:
    """Return the checkpoint that a run goes on from, None for a new one, and its step.

    Raises:
        UserError: if there are other data now, or no checkpoint is whole.
    """
    found, damaged = newest_checkpoint(run)
    before = {} if found is None else {"classes": found.classes, **found.record.get("data", {})}
    if rank() == 0:  # it looks at many files, and before there is anything to lose
        data.compare(before)
    if found is None:
        return None, 0
    for what in damaged:
        say(f"{what}; going on from {found.path}")
    say(f"continuing at step {found.step}")
    return found.path, found.step


def precision_of(run: RunDir, trainer: Mapping[str, Any]) -> str:
    """Return the precision of a run; "auto" is what it was where the run began, also on another machine."""
    began = run.record().get("precision") if trainer.get("precision") == "auto" else None
    return str(began or launch.precision(trainer))


def build_network(config: RunConfig, data: ImageData, *, resumed: bool = False) -> Network:
    """Return the run's network: initialised from the stream "init" of its seed, then with ``model.weights``.

    A ``resumed`` run has its weights in its checkpoint, and needs no others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init"))
        network = create_model(
            config.model["name"],
            se=config.se,
            num_classes=len(data.classes),
            in_channels=data.preprocessing.channels,
            **config.model_options,
        )
        if (weights := config.model.get("weights")) and not resumed:
            record = load_weights(weights, network)
            say(f"weights   {record.source}" + (f": {record.recognised}" if record.recognised else ""))
            _compare_preprocessing(record, data)
            if config.model.get("new_classifier"):
                new_classifier(network)
                say("          the classifier starts anew")
            elif words := keep_classifier(network, record, data.classes):
                say(f"          {words}")
    set_kernels(network, config.kernels)
    if rate := config.model.get("drop_path"):
        set_drop_path(network, rate)
    if stage := config.model.get("freeze"):
        freeze(network, stage)
    return network


def load_teacher(config: RunConfig, data: ImageData, run: RunDir) -> Network | None:
    """Return the network of ``loss.teacher``, if there is one; its random draws, if any, are not the run's.

    Raises:
        UserError: if it has other classes than the data, expects images that are normalised otherwise, or is
            another network than the run began with.
    """
    if config.loss.teacher is None:
        return None
    with torch.random.fork_rng(devices=[]):
        trained = read_trained(config.loss.teacher)
    asked = f"loss.teacher={config.loss.teacher}"
    if trained.classes is not None and list(trained.classes) != list(data.classes):
        raise UserError(f"{asked}: it has other classes than the data, or in another order")
    if (count := trained.network.record["num_classes"]) != len(data.classes):
        raise UserError(f"{asked} has {count} classes, the data {len(data.classes)}")
    for key in ("mean", "std", "colour"):
        theirs, ours = getattr(trained.preprocessing, key), getattr(data.preprocessing, key)
        if theirs != ours:
            raise UserError(f"{asked} expects {key}={theirs}: set data.preprocessing.{key}, which is {ours}")
    trained.network.check_input(data.preprocessing.size)
    weights = digest(trained.network.state_dict())
    if run.record().get("teacher", weights) != weights:
        raise UserError(
            f"{asked} holds other weights than when the run began: put those back, or start a new run"
        )
    if rank() == 0:
        run.update(teacher=weights)
    say(f"teacher   {trained.source}")
    return trained.network.requires_grad_(False)


def _compare_preprocessing(record: WeightRecord, data: ImageData) -> None:
    """Say where the images differ from those the weights were trained on; fine-tuning may mean to."""
    ours, words = data.preprocessing.to_dict(), "usually trained" if record.assumed else "trained"
    for key, theirs in (record.preprocessing.to_dict() if record.preprocessing else {}).items():
        if ours[key] != theirs:
            say(f"          {words} with {key}={theirs}, here data.preprocessing.{key}={ours[key]}")


def _introduce(module: ClassificationModule, trainer: Trainer, run: RunDir, how: list[str]) -> None:
    config, data = module.config, module.data
    widths = sorted(set(module.model.se_widths().values()))
    shown = ", ".join(f"{c}→{h}" if h else str(c) for c, h in widths)
    block = f"SE r={config.se.reduction}" if config.se and config.se.block == "se" else ""
    se = f", {block or f'se.block={config.se.block}'}: {shown}" if config.se else ""
    batch, world, total = data.config.batch_size, trainer.world_size, config.global_batch
    rate = config.optimizer.scaled_lr(total)
    base, lr_batch = config.optimizer.lr, config.optimizer.lr_batch
    scaled = f" = {base:g} x {total}/{lr_batch}" if lr_batch else ""
    say(f"run       {run.path}")
    say(f"model     {config.model['name']}, {count_parameters(module.model):,} parameters{se}")
    for line in how:
        say(line)
    say(
        f"data      {config.data.name}: {data.train_size:,} training and {data.val_size:,} validation images, "
        f"{len(data.classes)} classes, {data.preprocessing.size} px, {data.decoder}"
    )
    if data.left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in data.left_out.most_common())
        say(f"left out  files that are no images: {kinds} (senet check names them)")
    say(
        f"batch     {total} = {batch} images x {world} device(s) x {total // (batch * world)} accumulated; "
        f"lr {rate:g}{scaled}"
    )


def summarise(module: ClassificationModule) -> dict[str, Any]:
    """Return what every run has to say of its network, data and figures."""
    config, data = module.config, module.data
    return {
        "model": config.model["name"],
        "se": config.se.to_dict() if config.se else None,
        "se_widths": module.model.se_widths(),
        "parameters": count_parameters(module.model),
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
        "config_hash": config.hash,
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
    from senet.analysis.run_page import conclude  # draws: nothing before needs matplotlib

    rate = median(progress.rates) if progress.rates else None  # the first epoch of a short run is slower
    summary = summarise(module) | {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "samples_seen": module.samples_seen,
        "devices": trainer.world_size,
        "seconds": round(seconds, 1),
        "images_per_second": round(rate, 1) if rate is not None else None,
    }
    skipped = read_bad_images(run.skipped_file)
    summary["data"] |= {"skipped_images": len(skipped), "timings": module.data.timings.to_dict()}
    write_json(run.summary_file, summary)
    table = module.predictions.get("raw" if module.ema is None else "ema")
    drawn = conclude(run, table, module.data.val)
    say("")
    if "val/count" in module.results:
        count = int(module.results["val/count"])
        say(f"{'':10}{'last':>9}{'best':>9}   (validation top-1, %, of {count:,} images)")
    else:
        say("trained without validation: there are no figures and there is no best checkpoint")
    for prefix, label in (("val", "raw"), ("val_ema", "average")):
        if f"{prefix}/top1" in module.results:
            last, best = module.results[f"{prefix}/top1"], module.best[f"{prefix}/top1"]
            say(f"{label:10}{last:>9.2f}{best:>9.2f}")
    say(f"{'time':10}{readable(seconds)}" + (f", {rate:,.0f} images/s in training" if rate else ""))
    hint = module.data.timings.hint(module.data.workers, cores())
    if hint:
        say(f"{'data':10}{hint}")
    if idle := _idle_units(module):
        say(f"{'SE':10}{idle}")
    if skipped:
        say(f"{'skipped':10}{len(skipped)} unreadable images, listed in {run.skipped_file}")
    say(f"{'run':10}{run.path}")
    say(f"{'page':10}{drawn}")


def _idle_units(module: ClassificationModule, count: int = 256) -> str | None:
    """Return in words which hidden units of the excitations never fire, seen on ``count`` validation images.

    None where there is nothing to see, or it cannot be seen: a sentence is not worth a finished run.
    """
    config, data = module.config, module.data
    if config.se is None or config.se.block != "se":
        return None
    network = copy.deepcopy(module.model).float().eval()  # neither compiled nor in use
    device = next(network.parameters()).device
    try:
        with torch.inference_mode(), watch_hidden(network) as fired:
            for batch in data.few_validation_images(count):
                network(data.preprocessing.normalise(batch.images.to(device)))
    except Exception as error:
        return f"its hidden units could not be watched ({type(error).__name__}: {error})"
    return dead_units(fired, min(count, data.val_size))
