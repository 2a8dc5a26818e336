"""Weights & Biases as a logger: one wandb run per run directory, in the group of runs that belong together."""

import logging
from collections.abc import Mapping
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from senet.errors import UserError
from senet.rundir import RunDir
from senet.training.console import rank
from senet.training.sections import WandbConfig


class RunLogger(WandbLogger):
    """Tells wandb at the end whether the run succeeded."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the wandb run."""
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def open_logger(config: WandbConfig, run: RunDir, values: Mapping[str, Any]) -> RunLogger:
    """Return the logger of a run; a resume continues the same wandb run, another job can never join it.

    Offline, too: ``wandb sync`` puts a part that says so behind those before it, any other in their place. The wandb
    run is opened here: Lightning would pass on a setting that wandb warns of on the terminal.

    Raises:
        UserError: if wandb refuses a setting, has no account, or is not reached.
    """
    logging.getLogger("wandb").setLevel(logging.WARNING)
    if rank() != 0:
        return RunLogger()
    record = run.record()
    try:
        opened = wandb.init(
            dir=run.path,
            name=record["title"],
            id=run.path.name.replace("_", "-"),
            project=config.project,
            group=config.group or str(record.get("study") or values["name"]),
            entity=config.entity,
            mode="offline" if config.offline else None,
            tags=list(config.tags),
            resume="allow",
            config=dict(values),
            settings=wandb.Settings(silent=True, quiet=True, console="off"),
        )
    except (wandb.Error, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"logger=wandb: {reason}; logger.wandb.offline=true needs no account") from error
    opened.define_metric("trainer/global_step")
    opened.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return RunLogger(experiment=opened)
