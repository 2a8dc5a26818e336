"""`senet study` and `senet reproduce`: what they plan, print and refuse."""

from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from study_fakes import ROOT, FakeExecutor, ledger_of, statuses

from senet import UserError, cli
from senet.training.study import reproduce

QUICK = lambda config: [60.0 + config["seed"]]  # noqa: E731


@pytest.mark.parametrize(
    ("table", "tier", "points"),
    [
        ("T2", "imagenet", 16), ("T4", "cifar10", 8), ("T5", "cifar10", 8), ("T4", "digits", 6),
        ("T10", "digits", 6), ("T13", "imagefolder", 5), ("T15", "digits", 2), ("T16", "imagenet", 3),
    ],
)  # fmt: skip
def test_every_table_in_its_tiers_is_planned(
    table, tier, points, study, monkeypatch, capsys, image_tree: Path
):
    monkeypatch.setattr(reproduce, "probe", lambda values: reproduce.Probe(100.0, 1000, 15.0))
    where = [f"data.root={image_tree}"] if tier != "digits" else []
    assert cli.main(["reproduce", table, "--tier", tier, "--plan", "seed=0,1", *where]) == 0
    text = capsys.readouterr().out
    assert f"table     {table} of the paper" in text
    assert f"runs      {2 * points}: 2 of each: " in text
    assert "cost      about" in text
    if tier in ("imagenet", "imagefolder"):
        epochs, batch = ("100", "128") if table == "T2" else ("300", "32")
        assert f"epochs    {epochs}; paper:" in text
        assert f"batch     {batch}; paper:" in text


def test_reproduce_runs_the_study_and_resumes_it(study, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "probe", lambda values: reproduce.Probe(100.0, 1000, 15.0))
    call = ["reproduce", "t11", f"runs_dir={tmp_path}/runs", "seed=0,1", "trainer.max_epochs=30"]
    first = FakeExecutor(QUICK)
    assert study(first, call=lambda: cli.main(call)) == 0
    assert len(first.started) == 4
    # both networks have the same MACs; 2 x 2 runs x 30 epochs x 1000 images at 100 images/s
    assert (
        "cost      about 21 min 00 s, one job at a time: 20 min 00 s of training" in capsys.readouterr().out
    )
    again = FakeExecutor(QUICK)
    assert study(again, call=lambda: cli.main(call)) == 0
    assert again.started == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproduce", "T99"], 'there is no table "T99" here; valid: T10, T11'),
        (["reproduce", "T4", "--tier", "imagenet"], "use --tier cifar10"),
        (["study", "status", "/nonexistent"], "is not a study"),
        (["study", "export-wandb", "se.reduction=8"], "a sweep needs lists of values"),
        (["study", "export-wandb", "se.reductoin=8,4", "seed=a,b"], "a seed is a whole number"),
    ],
)
def test_mistakes(words: list[str], message: str, study, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors


def test_status_retry_extend(study, tmp_path: Path, capsys):
    from senet.training.study import commands

    def broken(config: dict) -> list[float]:
        if config["se"]["squeeze"] == "max":
            raise ValueError("no luck")
        return [70.0]

    assert study(FakeExecutor(broken), "ablation=squeeze") == 1
    path = str(ledger_of(tmp_path)["path"])
    capsys.readouterr()
    assert cli.main(["study", "status", path]) == 1
    assert "failed: max, seed 0: no luck" in capsys.readouterr().out
    assert study(FakeExecutor(QUICK), call=lambda: cli.main(["study", "retry", path])) == 0
    assert study(FakeExecutor(QUICK), call=lambda: cli.main(["study", "extend", path, "seed=1,2"])) == 0
    assert set(statuses(tmp_path).values()) == {"finished"}
    assert len(statuses(tmp_path)) == 6
    with pytest.raises(UserError, match=r"only launcher\.slots"):
        commands.retry(Path(path), ["optimizer.lr=1"])


@pytest.mark.parametrize("typed", [["se.reduction=4,8", "seed=0,1", "optimizer.lr=0.1"], ["search=optuna"]])
def test_a_sweep_file_makes_arguments_that_hydra_takes(typed: list[str], study, capsys):
    """What W&B's agent puts in place of ${args_no_hyphens} is composed like typed overrides."""
    assert cli.main(["study", "export-wandb", *typed]) == 0
    sweep = yaml.safe_load(capsys.readouterr().out)
    assert sweep["command"][:4] == ["${env}", "python3", "${program}", "${args_no_hyphens}"]
    chosen = {
        key: axis["values"][-1] if "values" in axis else axis["min"]
        for key, axis in sweep["parameters"].items()
    }
    arguments = [*sweep["command"][4:], *(f"{key}={value}" for key, value in chosen.items())]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = hydra_compose("train", overrides=arguments)
    assert config.logger.wandb is not None
    assert chosen["se.reduction"] == config.se.reduction
    if "seed" in chosen:
        assert config.seed == 1
        assert config.optimizer.lr == 0.1
        assert sweep["method"] == "grid"
