"""Progress for people: a bar with images/s and remaining time on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from senet.data.timings import WORTH_SECONDS
from senet.training.console import say
from senet.training.module import ClassificationModule

WORTH_SAYING = 0.05
"""Share of the training time that the device may wait for data before the progress line says so."""


def readable(seconds: float) -> str:
    """Return a duration as people write it: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def in_lines(parts: Sequence[str], width: int = 80) -> str:
    """Return the parts on lines of at most so many columns, the second and later ones indented."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 > width:
            lines.append(" " * 10)
        lines[-1] += f"  {part}"
    return "\n".join(lines)


class ProgressReport(Callback):
    """One line per epoch; between them, on a terminal, a bar over the whole run.

    Args:
        module: that is trained.

    Attributes:
        rates: images/s of every training epoch, validation left out, over all devices.
    """

    def __init__(self, module: ClassificationModule) -> None:
        self.module = module
        self.rates: list[float] = []
        self._bar: Any = tqdm(disable=True)
        self._mark = (0.0, 0)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Open the bar over all samples of the run; a resume in mid-epoch starts no epoch, so start the clock."""
        self.on_train_epoch_start()
        self._bar = tqdm(
            total=self.module.progress().total_samples,
            initial=self.module.samples_seen,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            smoothing=0.1,
            disable=None if trainer.is_global_zero else True,  # None: where there is no terminal
        )

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the epoch's clock."""
        self._mark = (time.perf_counter(), self.module.samples_seen)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; stop the clock at the end of the epoch, before validation."""
        seen = self.module.samples_seen
        self._bar.update(seen - self._bar.n)
        if batch_idx % 50 == 49:
            self._bar.set_postfix_str(f"waited {100 * self.module.data.timings.waiting_share:.0f} %")
        if trainer.is_last_batch:
            start, samples = self._mark
            self.rates.append((seen - samples) / max(time.perf_counter() - start, 1e-9))

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Print the epoch's line."""
        if not trainer.is_global_zero:
            return
        r = self.module.results
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        parts = [f"epoch {trainer.current_epoch + 1:>3}{of}"]
        parts += [f"loss {r['train/loss']:.3f} val {r['val/loss']:.3f}"]
        parts += [f"top-1 {r['val/top1']:.2f} top-5 {r['val/top5']:.2f}"]
        if "val_ema/top1" in r:
            parts.append(f"average {r['val_ema/top1']:.2f}")
        if self.rates:  # none before the end of the first epoch
            parts.append(f"{self.rates[-1]:,.0f}/s  {self._remaining()}")
        timings = self.module.data.timings
        waiting = timings.waiting_share
        if waiting >= WORTH_SAYING and timings.elapsed >= WORTH_SECONDS:
            parts.append(f"waited for data {100 * waiting:.0f} %")
        self._bar.clear()
        say(in_lines(parts))
        self._bar.refresh()

    def _remaining(self) -> str:
        at = self.module.progress()
        left = max(0, at.total_samples - at.samples)
        if not left:
            return "done"
        seconds = left / median(self.rates)
        return f"{seconds / 3600:.3g} h left" if seconds >= 3600 else f"{readable(seconds)} left"

    def on_train_end(self, *_: Any) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar."""
        self._bar.close()
