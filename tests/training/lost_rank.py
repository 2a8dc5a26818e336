"""One of two ranks; rank 1 is killed, and rank 0 prints what it says of that."""

import os
import signal

import torch
import torch.distributed as dist

from senet.training import launch

launch.join_group({"accelerator": "cpu", "devices": 2})
dist.all_reduce(torch.ones(1))
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
try:
    dist.all_reduce(torch.ones(1))
except RuntimeError as error:
    print(launch.describe_lost(error))
