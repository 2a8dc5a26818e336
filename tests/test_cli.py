"""The ``senet`` command."""

import csv
import io
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from senet.cli import COMMANDS, main
from senet.ledger import Job, Ledger, PlannedPoint

ROOT = Path(__file__).parents[1]


def test_help_lists_every_command_without_importing_torch():
    code = (
        "import sys\nfrom senet.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=1200, cwd=ROOT, check=True
    )
    assert result.stdout.endswith("False\n")
    for name, (_, text) in COMMANDS.items():
        assert f"{name}" in result.stdout
        assert text in result.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_fits_80_columns(command: str, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 3
    assert [line for line in said if len(line) > 80] == []


def test_the_status_of_a_study_fits_80_columns(tmp_path: Path, monkeypatch, capsys):
    for where in ("senet.terminal", "senet.study.commands"):
        monkeypatch.setattr(f"{where}.terminal_width", lambda *_: 80)
    ledger = Ledger(tmp_path)
    ledger.points = {label: PlannedPoint(label, []) for label in ("model=se_resnet18", "model=resnet18")}
    for label in ledger.points:
        run = f"20260101-000000_{label}-seed0_abcdef"
        ledger.jobs[run] = Job(run, label, 0, [], run, "killed", "its process ended with signal 9")
        (tmp_path / run).mkdir()
        (tmp_path / run / "run.json").write_text('{"status": "running"}')
    ledger.save()
    assert main(["study", "status", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert sum("ended with signal 9" in line for line in said) == 2
    assert [line for line in said if len(line) > 80 and str(tmp_path) not in line] == []


def test_the_console_script_is_this_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["senet"] == "senet.cli:main"


def test_mistakes_are_one_line_and_status_2(capsys):
    assert main(["modles"]) == 2
    assert capsys.readouterr().err == 'error: there is no command "modles"; did you mean "models"?\n'
    assert main(["models", "se_resnet5"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        main(["models", "--format", "html"])
    assert caught.value.code == 2


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_mistake():
    command = [sys.executable, "-m", "senet", "models", "se_resnet20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_ctrl_c_is_one_line_and_the_status_of_the_signal(monkeypatch, capsys):
    def run(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("senet.analysis.zoo.run", run)
    assert main(["models"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "stopped\n"


def test_models_in_every_format(capsys):
    def output(*words: str) -> str:
        assert main(["models", "resnet101", "se_resnet20", *words]) == 0
        return capsys.readouterr().out

    rows = json.loads(output("--format=json"))
    assert [row["model"] for row in rows] == ["resnet101", "se_resnet20"]
    assert rows[0]["parameters"] == 44_549_160
    assert rows[0]["paper_gmacs"] == 7.58
    assert rows[1]["paper_gmacs"] is None
    read = list(csv.DictReader(io.StringIO(output("--format=csv"))))
    assert [row["macs"] for row in read] == [str(row["macs"]) for row in rows]
    table = output()
    assert "7.58  -0.010" in table
    assert table.splitlines()[1].endswith("[1]")
    assert "[1] the paper counts a little more" in table
    markdown = output("--format=markdown").split("\n\n")[0].splitlines()
    assert [line.count("|") for line in markdown] == [markdown[0].count("|")] * 4


def test_models_by_stage(capsys):
    assert main(["models", "se_resnet20", "--stages"]) == 0
    out = capsys.readouterr().out
    assert "stage 3" in out
    assert "272,095" in out


@pytest.mark.slow
def test_bench_lists_every_question_and_runs_it_with_its_own_options(capsys):
    assert main(["bench"]) == 0
    listed = capsys.readouterr().out
    assert "tail " in listed
    assert "measure" not in listed
    assert main(["bench", "tial"]) == 2
    assert 'did you mean "tail"' in capsys.readouterr().err
    assert main(["bench", "cost", "--sizes", "wide"]) == 2  # the script's own refusal
