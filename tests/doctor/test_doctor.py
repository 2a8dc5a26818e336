"""The doctor kills and resumes, notices whatever differs, and leaves nothing running."""

import random
import signal
from pathlib import Path

import pytest
import torch

from senet.cli import main
from senet.doctor.faults import FAULTS, KILL, Fault, TrainJob, kills, send
from senet.doctor.trials import PARTS, Outcome, Trials, digests, steps_done
from senet.processes import processes
from senet.rundir import RunDir


@pytest.mark.slow
def test_a_killed_run_of_two_ranks_ends_as_one_that_was_not(tmp_path: Path, capsys):
    status = main(["doctor", "resume", "--kills", "1", "--ranks", "2", "--out", str(tmp_path)])
    table = capsys.readouterr().out
    assert status == 0, table
    assert "1 tried, 1 right" in table
    assert "  identical" in table
    (hurt,) = (record.parent for record in tmp_path.glob("hurt-*/2*/run.json"))
    assert (hurt / "summary.json").exists()


@pytest.mark.slow
def test_two_ranks_stopped_between_saves_end_as_two_that_were_not(tmp_path: Path):
    """Each rank goes on from BN statistics of its own: two times in three no planned save has averaged them there."""
    (fault,) = (fault for fault in FAULTS if fault.name.startswith("SIGTERM to two ranks"))
    outcome = Trials(tmp_path, seed=2).try_out(fault)
    assert outcome.wrong == [], outcome


@pytest.mark.slow
def test_a_damaged_checkpoint_is_an_outcome_and_does_not_end_the_trials(tmp_path: Path):
    """The resume itself goes on from the checkpoint before it."""

    def hurt(job: TrainJob, images: Path) -> None:
        everyone = job.everyone()
        send(signal.SIGKILL, {job.first})
        job.wait(everyone)
        (run,) = (RunDir(record.parent) for record in images.parent.glob("hurt-*/2*/run.json"))
        run.checkpoint("last").write_bytes(run.checkpoint("last").read_bytes()[:-100])

    outcome = Trials(tmp_path, seed=0).try_out(Fault("damage", hurt, within=(0.5, 0.7)))
    assert outcome.wrong == ["directory"], outcome


@pytest.mark.slow
def test_every_part_that_differs_is_noticed(train):
    """Parts of one run, changed by a bit or a letter one after the other."""
    tiny = (
        "data=synthetic",
        "data.preprocessing.size=8",
        "augment.pad=1",
        "debug=one_batch",
        "ema.decay=0.9",
    )
    run = RunDir(train(*tiny, "data.batch_size=8"))
    before = digests(run)
    last = torch.load(run.checkpoint("last"), weights_only=True)
    del last["digests"]
    momentum = last["optimizer_states"][0]["state"][0]["momentum_buffer"]
    state = last["state_dict"]
    weight, average, mean = (
        next(tensor for key, tensor in state.items() if key.startswith(start) and key.endswith(end))
        for start, end in (("model.", ".weight"), ("ema.module.", ".weight"), ("model.", ".running_mean"))
    )
    for part, tensor in {"weights": weight, "average": average, "BN": mean, "optimiser": momentum}.items():
        tensor.view(torch.int32)[(0,) * tensor.dim()] ^= 1
        torch.save(last, run.checkpoint("last"))
        after = digests(run)
        assert {key for key in PARTS if after[key] != before[key]} == {part}
        before = after
    last["senet"]["samples_seen"] += 1
    torch.save(last, run.checkpoint("last"))
    after = digests(run)
    assert {key for key in PARTS if after[key] != before[key]} == {"record"}
    tables = {"metrics.csv": run.metrics_file, "steps.csv": run.steps_file,
              "predictions": run.predictions_file("best", "ema")}  # fmt: skip
    for part, table in tables.items():
        before = digests(run)
        table.write_text(table.read_text() + "1")
        after = digests(run)
        assert {key for key in PARTS if after[key] != before[key]} == {part}


@pytest.mark.parametrize("part", [*PARTS, "directory"])
def test_one_difference_is_said_and_is_the_exit_status(part: str, monkeypatch, capsys):
    found = iter([[], [part]])
    monkeypatch.setattr(
        Trials, "try_out", lambda self, fault: Outcome(fault, "error: RUN | x", 1.0, 2, 3.0, next(found))
    )
    assert main(["doctor", "resume", "--kills", "2"]) == 1
    out = capsys.readouterr().out
    assert out.count("DIFFERS") == 1
    assert f"DIFFERS: {part}\n" in out
    assert "2 tried, 1 right" in out


def test_kills_are_on_all_numbers_of_ranks_and_some_while_saving():
    faults = list(kills(25, (1, 1, 2), random.Random(0)))
    assert [fault.ranks for fault in faults] == [2 if index % 3 == 2 else 1 for index in range(25)]
    for ranks in (1, 2):
        assert {fault.saving for fault in faults if fault.ranks == ranks} == {True, False}
    assert {fault.hurt for fault in faults if fault.ranks == 1} == {KILL.hurt}
    assert len({fault.hurt for fault in faults if fault.ranks == 2}) == 2


def test_mistakes_are_one_line(capsys):
    assert main(["doctor", "resume", "--kills", "0"]) == 2
    assert capsys.readouterr().err == "error: --kills=0 must be 1 or more\n"


def test_nothing_is_left_running(tmp_path: Path, image_tree: Path):
    words = ("data=imagefolder", f"data.root={image_tree}", "data.in_memory=false", "data.workers=1",
             "data.batch_size=4", "data.preprocessing.size=8", "data.preprocessing.resize=8",
             "augment.crop=random_resized", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
             "trainer.max_epochs=500", f"runs_dir={tmp_path}")  # fmt: skip
    with TrainJob(words, tmp_path / "output.txt") as job:
        # What is started before the first step may have ended a moment later.
        job.wait_until(lambda: any(steps_done(RunDir(p)) for p in tmp_path.glob("2*")), "a step")
        everyone = job.everyone()
    assert len(everyone) >= 2, job.said()
    assert not everyone & processes().keys()


def test_the_page_has_a_row_for_every_fault_and_all_ended_well():
    page = (Path(__file__).parents[2] / "docs/explanation/faults.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")][2:]
    assert [row[0] for row in rows] == [fault.name for fault in FAULTS]
    assert {row[-1] for row in rows} == {"identical"}
