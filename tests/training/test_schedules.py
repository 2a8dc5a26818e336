import math

import pytest
import torch

from senet import UserError
from senet.training.schedules import CosineSchedule, PlateauSchedule, Progress, StepSchedule


def at(samples: int, total: int = 1000, epoch: int = 100, losses: tuple[float, ...] = ()) -> Progress:
    return Progress(samples, epoch, total, losses)


def test_cosine_equals_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000, eta_min=0.1)
    ours = CosineSchedule(final=0.1)
    for samples in range(1000):
        assert ours.factor(at(samples)) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_papers_steps():
    """Divided by 10 every 30 of 100 epochs (v4 section 5.1)."""
    schedule = StepSchedule()
    epochs = [schedule.factor(at(e * 100, total=10_000)) for e in range(100)]
    assert epochs == pytest.approx([10.0 ** -(e // 30) for e in range(100)])


def test_shorter_run_keeps_the_shape():
    schedule = StepSchedule(milestones=(0.5, 0.75))
    assert [schedule.factor(at(s, total=400)) for s in (0, 199, 200, 299, 300)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


def test_warm_ups():
    linear = CosineSchedule(warmup_epochs=2, warmup_start=0.5)
    assert linear.factor(at(0)) == 0.5
    assert linear.factor(at(100)) == pytest.approx(0.75)
    assert linear.factor(at(200)) == pytest.approx(1.0)
    constant = StepSchedule(warmup_epochs=1, warmup_start=0.1, warmup_shape="constant")
    assert [constant.factor(at(s)) for s in (0, 99, 100)] == pytest.approx([0.1, 0.1, 1.0])


def test_plateau_equals_torchs():
    generator = torch.Generator().manual_seed(0)
    losses = [3 * math.exp(-e / 10) + 0.3 * float(torch.rand((), generator=generator)) for e in range(80)]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # torch waits for more than `patience` bad epochs, we for as many.
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=4, threshold=1e-3, min_lr=1e-3, eps=0
    )
    ours = PlateauSchedule(patience=5, drops=3)
    for epoch in range(80):
        assert ours.factor(at(0, losses=tuple(losses[:epoch]))) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        theirs.step(losses[epoch])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)  # the three drops did happen


def test_bad_milestones():
    with pytest.raises(UserError, match="shares of the run"):
        StepSchedule(milestones=(30.0, 60.0))
