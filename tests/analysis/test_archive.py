"""A study without its weights gives the same report, byte for byte."""

import json
from pathlib import Path

import pytest
from run_fakes import config, write_run

from senet import cli
from senet.analysis.report import report
from senet.ledger import Job, Ledger, PlannedPoint


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two points of two seeds, one run of which is still missing."""
    path = tmp_path / "study"
    path.mkdir()
    ledger = Ledger(path)
    ledger.head = {"name": "twins", "command": []}
    for label, model in (("plain", "resnet20"), ("se", "se_resnet20")):
        ledger.points[label] = PlannedPoint(label, [], None if label == "plain" else "plain")
        for seed in (0, 1):
            name = f"{label}{seed}"
            missing = name == "se1"
            ledger.jobs[name] = Job(
                name, label, seed, [], name, "missing" if missing else "finished", handle="7"
            )
            if not missing:
                right = [index % (5 + seed) > (label == "plain") for index in range(60)]
                run = write_run(path / name, config(model), seed, right)
                (run / "metrics.csv").write_text("epoch,val/top1\n0,50.0\n")
                (run / "checkpoints").mkdir()
                (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
                record = json.loads((run / "run.json").read_text())
                (run / "run.json").write_text(json.dumps(record | {"pid": 1, "host": "here"}))
    ledger.save()
    return path


def test_the_report_is_the_same(study: Path, tmp_path: Path, capsys):
    out = tmp_path / "kept"
    assert cli.main(["study", "archive", str(study), str(out)]) == 0
    assert "3 finished runs" in capsys.readouterr().out
    ours, theirs = report([out], tmp_path / "a"), report([study], tmp_path / "b")
    assert len(ours.files) == len(theirs.files)
    for one, other in zip(ours.files, theirs.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_neither_weights_nor_machine_are_kept_and_an_archive_of_it_is_the_same(study: Path, tmp_path: Path):
    for source, name in ((study, "first"), (tmp_path / "first", "second")):
        assert cli.main(["study", "archive", str(source), str(tmp_path / name)]) == 0
    first = {p.relative_to(tmp_path / "first"): p.read_bytes() for p in (tmp_path / "first").rglob("*.*")}
    second = {p.relative_to(tmp_path / "second"): p.read_bytes() for p in (tmp_path / "second").rglob("*.*")}
    assert first == second
    assert not [path for path in first if path.suffix == ".ckpt"]
    assert b"here" not in first[Path("se0/run.json")]


def test_nothing_to_keep(study: Path, tmp_path: Path, capsys):
    ledger = Ledger.open(study)
    for job in ledger.jobs.values():
        (ledger.directory(job).record_file).unlink(missing_ok=True)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["study", "archive", str(study), str(tmp_path / "kept")])
    assert "no run has finished yet" in capsys.readouterr().err
