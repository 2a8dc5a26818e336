"""`senet study` and `senet reproduce`: what they plan, print and refuse."""

from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose, initialize_config_dir
from study_fakes import ROOT, FakeExecutor, ledger_of, statuses

from senet import UserError, cli
from senet.analysis.paper import CLASSIFICATION_TABLES, paper_figures, paper_recipe
from senet.study import reproduce
from senet.study.plan import compose_run, composing

QUICK = lambda config: [60.0 + config["seed"]]  # noqa: E731


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "tier", "points", "lines"),
    [
        ("T2", "imagenet", 16, ["recipe    paper", "crop      299 of 352 px; as in", "crop      224 of 256 px; as in",
                                "batch     128 = 128 x 1; paper: 1024 (trainer.accumulate_grad_batches=8 makes it)"]),
        ("T3", "imagenet", 4, ["recipe    mobile", "epochs    400; as in", "lr        0.0125 = 0.1 at a batch of 256"]),
        ("T4", "cifar10", 8, ["recipe    cifar", "recipe    wrn", "recipe    shake_shake", "epochs    1800; as in"]),
        ("T5", "cifar10", 8, ["data      cifar100", "recipe    shake_even", "batch     32 = 32 x 1; as in"]),
        ("T6", "imagenet", 2, ["data      places365", "recipe    paper"]),
        ("T8", "imagenet", 1, ["recipe    senet154", "batch     32 = 32 x 1; paper: 2048"]),
        ("T9", "imagefolder", 1, ["crop      320 of 366 px"]),
        ("T4", "digits", 6, ["recipe    quick", "crop      8 px; paper: 32 px"]),
        ("T10", "digits", 6, ["SE        with biases; paper: without", "smoothing 0.1 of the labels; paper: yes"]),
        ("T13", "imagefolder", 5, ["recipe    paper_ablation"]), ("T15", "digits", 2, []),
        ("T16", "imagenet", 3, ["epochs    300; as in"]),
    ],
)  # fmt: skip
def test_every_table_in_its_tiers_is_planned_without_data(table, tier, points, lines, study, capsys):
    assert cli.main(["reproduce", table, "--tier", tier, "--plan", "seed=0,1"]) == 0
    text = capsys.readouterr().out
    assert f"table     {table} of the paper" in text
    assert f"runs      {2 * points}: 2 of each: " in text
    assert "cost " not in text
    for line in lines:
        assert f"\n{line}" in text


@pytest.mark.slow
def test_a_typed_recipe_is_that_of_every_row(study, capsys):
    call = ["reproduce", "T4", "--tier", "cifar10", "--plan", "recipe=quick", "data.preprocessing.size=32"]
    assert cli.main(call) == 0
    text = capsys.readouterr().out
    assert text.count("recipe    ") == text.count("recipe    quick")


def test_the_papers_rows_have_the_recipe_that_the_plan_names():
    """The second transcription: the printed rows say how, and at which crop, their network was judged."""
    for table in CLASSIFICATION_TABLES:
        rows = [row for row in paper_figures() if (row.version, row.table) == ("v4", table) and row.model]
        assert rows, table
        crops = {row.crop for row in rows if row.recipe != "cited" and row.key != "senet154_320"}
        assert crops == {paper_recipe(table, row.model).size for row in rows if row.recipe != "cited"}, table


@pytest.mark.slow
def test_reproduce_runs_the_study_and_resumes_it(study, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "probe", lambda values: reproduce.Probe(100.0, 1000, 15.0))
    call = ["reproduce", "t11", "--probe", f"runs_dir={tmp_path}/runs", "seed=0,1", "trainer.max_epochs=30"]
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


def test_the_time_of_a_study_is_that_of_every_run_by_its_own_length(study, monkeypatch):
    monkeypatch.setattr(reproduce, "probe", lambda values: reproduce.Probe(100.0, 1000, 15.0))
    lengths = (
        ["trainer.max_epochs=10"], ["trainer.max_epochs=30"], ["trainer.max_epochs=null", "trainer.max_steps=5"],
        ["trainer.max_epochs=2", "trainer.max_steps=5"],
    )  # fmt: skip
    with composing():
        runs = [compose_run([*length, "data.batch_size=40"]) for length in lengths]
    training, start = reproduce.estimate(runs)
    assert training == pytest.approx((10 * 1000 + 30 * 1000 + 5 * 40 + 5 * 40) / 100)
    assert start == 4 * 15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproduce", "T99"], 'there is no table "T99" here; did you mean "T9"?'),
        (["reproduce", "T7"], "T7 is object detection on COCO"),
        (["reproduce", "T8"], "use --tier imagenet"),
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


@pytest.mark.slow
def test_status_retry_extend(study, tmp_path: Path, capsys):
    from senet.study import commands

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


def test_a_sweep_file_has_numbers_where_they_were_typed(study, capsys):
    """Null is a word there: W&B's agent would write it as Python does."""
    assert cli.main(["study", "export-wandb", "optimizer.lr=1e-3,0.01", "se.stages=null,[2,3]"]) == 0
    sweep = yaml.safe_load(capsys.readouterr().out)
    values = {key: axis["values"] for key, axis in sweep["parameters"].items()}
    assert values == {"optimizer.lr": [0.001, 0.01], "se.stages": ["null", [2, 3]]}


def test_a_sweep_file_has_the_ranges_of_the_search(study, capsys):
    axes = {
        "augment.pad": "{low: 1, high: 5, step: 2}",  # of which W&B's own steps know the even ones alone
        "data.batch_size": "{low: 2, high: 32, log: true}",  # and its logarithms no whole numbers
        "loss.smoothing": "{low: 0.0, high: 1.0}",
        "optimizer.momentum": "{low: 0.5, high: 0.8, step: 0.1}",
        "ema.decay": "{choices: [null, 0.9]}",
    }
    typed = [f"+search.space.{key}={axis}" for key, axis in axes.items()]
    assert cli.main(["study", "export-wandb", "search=optuna", *typed]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["parameters"]
    assert found["augment.pad"] == {"values": [1, 3, 5]}
    assert found["data.batch_size"] == {"distribution": "q_log_uniform_values", "q": 1, "min": 2, "max": 32}
    assert found["loss.smoothing"] == {"distribution": "uniform", "min": 0.0, "max": 1.0}
    assert found["optimizer.momentum"]["values"] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert found["ema.decay"] == {"values": ["null", 0.9]}


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
