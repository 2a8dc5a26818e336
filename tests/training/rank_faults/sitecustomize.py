"""Hurts rank 1 of a run, as the environment variable SENET_FAULT says; Python imports this file when it starts."""

import atexit
import os
import signal
import time

FAULT = os.environ.get("SENET_FAULT", "")
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "terminated": signal.SIGTERM}


def hurt() -> None:
    from datetime import timedelta

    import senet.data.loader
    import senet.training.launch
    from senet.data.datasets import FileDataset
    from senet.training.module import ClassificationModule

    if FAULT == "stopped":  # longer than one rank starts after the other
        senet.training.launch.PATIENCE = timedelta(seconds=30)
    if FAULT == "stuck":
        senet.data.loader.PATIENCE = 3.0
    if os.environ["RANK"] != "1":
        return
    if FAULT == "image":  # the rank that made no mistake ends first
        atexit.register(time.sleep, 5.0)
    step, fetch = ClassificationModule.training_step, FileDataset.fetch

    def training_step(self, batch, batch_idx):
        if batch_idx == 2 and FAULT in SIGNALS:
            os.kill(os.getpid(), SIGNALS[FAULT])
        if batch_idx == 2 and FAULT == "raises":
            raise IndexError("what went wrong")
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if batch_idx == 2 and FAULT == "nan" else loss

    def fetch_or_fail(self, selection, memory=None):
        if selection[0] == 1 and FAULT == "stuck":  # the second epoch
            time.sleep(3600)
        if selection[0] == 1 and FAULT == "worker":
            os.kill(os.getpid(), signal.SIGKILL)
        return fetch(self, selection, memory)

    ClassificationModule.training_step, FileDataset.fetch = training_step, fetch_or_fail


if FAULT and "RANK" in os.environ:
    hurt()
