"""(e) Our Lightning loop against a bare loop: the same network, batches and optimiser, step by step in turns.

Ours is a training run as ``train.py`` starts it, with its callbacks and CSV logger. After each of its steps the
bare loop does one: next batch, copy, normalise, forward, loss, backward, SGD. A turn of ours is all the time that
is not the bare loop's, so nothing that Lightning does between steps is left out. ``overhead`` is ours / bare - 1.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from measure import CLOCKS, Report, arguments, demanded_tail, median, parse, row
from pytorch_lightning import Callback, LightningModule, Trainer

from senet.data import Batch
from senet.data.inputs import InputStep
from senet.data.module import ImageData
from senet.rundir import RunDir
from senet.study.plan import compose_run, composing
from senet.training.callbacks.checkpoints import Checkpoints, OrderlyStop
from senet.training.callbacks.checks import FiniteLossGuard, RanksAgree
from senet.training.callbacks.progress import ProgressReport
from senet.training.config import RunConfig
from senet.training.entry import register_models
from senet.training.launch import StopRequest
from senet.training.loggers import build_loggers
from senet.training.module import ClassificationModule
from senet.training.optimizers import parameter_groups
from senet.training.run import build_network
from senet.training.trainer import build_trainer

WARMUP = 3
PRECISION = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def bare_steps(config: RunConfig, device: str, dtype: torch.dtype) -> Iterator[None]:
    """Train the run's network without Lightning, a step each time."""
    data = ImageData(config.data, config.augment, config.seed)
    step = InputStep(data.preprocessing, data.augment, config.channels_last).to(device)
    if device == "cuda":
        step.compile()
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = build_network(config, data).to(device, memory_format=layout).train()
    optimiser = config.optimizer.build(parameter_groups(network, config.optimizer), config.optimizer.lr)
    watch = demanded_tail("bare loop", network, device)
    for batch in data.train_dataloader():
        batch = Batch(*(_move(part, device) for part in batch))
        optimiser.zero_grad()
        with watch:
            with torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext():
                loss = config.loss(network(step(batch.images, batch.numbers)), batch.labels)
            loss.backward()
        watch = nullcontext()
        optimiser.step()
        yield


def _move(part: object, device: str) -> object:
    return part.to(device, non_blocking=True) if isinstance(part, torch.Tensor) else part


class Turns(Callback):
    """After each step of Lightning's, one of the bare loop; both are timed.

    ``after_round`` is given the seconds of both so far without the first ``WARMUP``, and takes none of their time.
    """

    def __init__(
        self,
        bare: Iterator[None],
        device: str,
        clock: str,
        after_round: Callable[[dict[str, list[float]]], object],
    ) -> None:
        self.bare, self.device, self.clock, self.after_round = bare, device, CLOCKS[clock], after_round
        self.seconds: dict[str, list[float]] = {"Lightning loop": [], "bare loop": []}
        self._last: float | None = None
        self._watch = ExitStack()

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.clock()

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Watch the tails of the first step, which is not timed."""
        if trainer.global_step == 0:
            self._watch.enter_context(demanded_tail("Lightning loop", module, self.device))

    def on_train_batch_end(self, *_: object) -> None:
        """Note the time of Lightning's step, then take and time the bare one."""
        end = self._now()
        self._watch.close()
        if self._last is not None:
            self.seconds["Lightning loop"].append(end - self._last)
            next(self.bare)
            self.seconds["bare loop"].append(self._now() - end)
        else:
            next(self.bare)
        steady = {name: values[WARMUP:] for name, values in self.seconds.items()}
        if all(steady.values()):
            self.after_round(steady)
        self._last = self._now()


def table(model: str, seconds: dict[str, list[float]]) -> list[dict[str, object]]:
    """Return a row per loop."""
    overhead = median(seconds["Lightning loop"]) / median(seconds["bare loop"]) - 1
    return [
        row(model, name, values, overhead=overhead if "Lightning" in name else None)
        for name, values in seconds.items()
    ]


def main(argv: Sequence[str] | None = None) -> Path:
    """Run both loops on images in memory."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="se_resnet50")
    parser.add_argument("--size", type=int, default=224)
    options = parse(parser, argv)
    settings = {"batch": options.batch, "size": options.size}
    settings["dtype"] = str(options.dtype).removeprefix("torch.")
    report = Report(options.out, "loop", options.device, **settings)
    register_models()
    with tempfile.TemporaryDirectory() as folder, composing():
        images = options.batch * (options.rounds + WARMUP + 1)
        values = compose_run([
            f"model={options.model}", f"runs_dir={folder}", "data=synthetic", f"data.batch_size={options.batch}",
            f"data.preprocessing.size={options.size}", f"data.train_images={images}",
            "optimizer.lr=1e-6",  # time alone is asked; few small images and a real rate end in NaN
            f"data.val_images={options.batch}", "trainer.max_epochs=1", f"trainer.precision={PRECISION[options.dtype]}",
            f"trainer.accelerator={'gpu' if options.device == 'cuda' else 'cpu'}",
        ])  # fmt: skip
        config = RunConfig.of(values)
        run = RunDir.create(Path(folder), "loop", values, {"status": "running"})
        data = ImageData(config.data, config.augment, config.seed)
        module = ClassificationModule(build_network(config, data), config, data)
        bare = bare_steps(config, options.device, options.dtype)

        def keep(seconds: dict[str, list[float]]) -> None:
            report.put(options.model, table(options.model, seconds))

        turns = Turns(bare, options.device, options.clock, keep)
        guard, stop = FiniteLossGuard(run), StopRequest()
        ours = [
            guard,
            RanksAgree(config.identity, config.ranks.check_every_n_steps),
            ProgressReport(module),
            Checkpoints(run, config.checkpoint, guard, stop),
            OrderlyStop(stop),
        ]
        loggers = build_loggers(config, run, 0, stop)
        build_trainer(config.trainer, run.path, logger=loggers, callbacks=[*ours, turns]).fit(module, data)
    return report.finish()


if __name__ == "__main__":
    main()
