"""Run directories become points with the right labels, baselines and gaps."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_fakes import config, write_run

from senet import UserError
from senet.analysis.labels import label_points, settings, with_new_settings
from senet.analysis.plots import draw
from senet.analysis.rows import build_rows, paper_keys
from senet.analysis.runs import collect, find_runs, read_run
from senet.ledger import Job, Ledger, PlannedPoint
from senet.rundir import RunDir

RIGHT = np.arange(20) > 0


@pytest.mark.parametrize(
    ("configs", "labels"),
    [
        ([config("resnet20"), config(reduction=4), config(reduction=16)], ["plain", "r=4", "r=16"]),
        ([config("resnet20"), config()], ["plain", "SE"]),
        ([config(), config(placement="pre")], ["placement=standard", "placement=pre"]),
        ([config(stages=[2]), config()], ["stages=2", "stages=all"]),
        ([config("resnet20"), config(), config("resnet32"), config("se_resnet32")],
         ["resnet20", "se_resnet20", "resnet32", "se_resnet32"]),
        ([config(lr=0.1), config(lr=0.05)], ["lr=0.1", "lr=0.05"]),
        ([config("resnet20", lr=0.1), config(lr=0.1), config(lr=0.05)],
         ["plain, lr=0.1", "SE, lr=0.1", "SE, lr=0.05"]),
        ([config()], ["se_resnet20"]),
        ([config(bias=b) | {"optimizer": {"bias": not b}} for b in (True, False)],
         ["se.bias=True, optimizer.bias=False", "se.bias=False, optimizer.bias=True"]),
    ],
)  # fmt: skip
def test_a_label_says_what_differs(configs, labels):
    assert label_points(configs).labels == labels


def test_a_long_label_is_cut_and_the_rest_is_listed():
    values = [
        config(lr=0.1 + i)
        | {"augment": {"crop": "random_resized", "scale": [0.08 + i, 1.0], "root": "/long" * 9 + str(i)}}
        for i in range(2)
    ]
    labels, others = label_points(values)
    assert labels == ["lr=0.1, scale=0.08,1", "lr=1.1, scale=1.08,1"]
    assert others == ["augment.root"]
    many = [config() | {"augment": {"a_setting_of_some_length": "x" * 50, "another": i}} for i in range(3)]
    assert label_points(many).labels == ["another=0", "another=1", "another=2"]


def test_one_axis_after_the_other_is_named_by_what_most_do_not_share():
    usual = {"lr": 0.1, "a_weight_decay": 0.0001, "momentum_of_the_mean": 0.9, "an_epsilon": 1e-5}
    points = [config(**(usual | changed)) for changed in ({}, {"lr": 0.2}, {"an_epsilon": 1e-3, "lr": 0.3})]
    points += [config(**(usual | {"momentum_of_the_mean": 0.8})), config("se_resnet56", **usual)]
    labels, others = label_points(points)
    assert labels == ["base", "lr=0.2", "an_epsilon=0.001, lr=0.3", "momentum_of_the_mean=0.8", "se_resnet56"]
    assert others == []


def test_a_run_of_an_older_version_lacks_settings_that_changed_nothing(compose) -> None:
    new = compose("model=se_resnet18", "mixing.mixup=0.2")
    old = json.loads(json.dumps(new))
    for section, key in (("se", "block"), ("augment", "policy"), ("loss", "teacher"), ("model", "drop_path")):
        del old[section][key]
    del old["batch_norm"], old["fit_memory"]
    assert settings(with_new_settings(old)) == settings(new)
    old["mixing"]["mixup"] = 0.0
    assert settings(with_new_settings(old)) != settings(new)


def test_points_baselines_and_order(tmp_path: Path):
    for model in ("se_resnet32", "resnet32", "se_resnet20", "resnet20"):
        for seed in (0, 1):
            write_run(tmp_path / f"{model}_{seed}", config(model), seed, RIGHT)
    study = collect([tmp_path])
    assert [(p.label, p.baseline, sorted(p.runs)) for p in study.points] == [
        ("resnet20", None, [0, 1]),
        ("se_resnet20", "resnet20", [0, 1]),
        ("resnet32", None, [0, 1]),
        ("se_resnet32", "resnet32", [0, 1]),
    ]
    assert not study.gaps
    chosen = collect([tmp_path / "resnet*", str(tmp_path / "se_resnet20_0")], baseline="se_resnet20")
    assert [(p.label, p.baseline) for p in chosen.points] == [
        ("resnet20", "se_resnet20"), ("se_resnet20", None), ("resnet32", "se_resnet20"),
    ]  # fmt: skip
    with pytest.raises(UserError, match='did you mean "se_resnet32"'):
        collect([tmp_path], baseline="se_resnet3")


def test_order_is_numeric_and_the_first_point_stands_in_for_a_plain_one(tmp_path: Path):
    for reduction in (16, 2, 8):
        write_run(tmp_path / str(reduction), config(reduction=reduction), 0, RIGHT)
    study = collect([tmp_path])
    assert [(p.label, p.baseline) for p in study.points] == [("r=2", None), ("r=8", "r=2"), ("r=16", "r=2")]
    assert paper_keys(study) == {"r=2": "r2", "r=8": "r8", "r=16": "r16"}


@pytest.mark.parametrize(
    ("axis", "values", "keys"),
    [
        ("squeeze", ["avg", "max", "none"], ["squeeze_avg", "squeeze_max", "nosqueeze"]),
        ("gate", ["relu", "sigmoid", "tanh"], ["excite_relu", "excite_sigmoid", "excite_tanh"]),
        ("placement", ["conv3x3", "identity", "post", "pre", "standard"],
         ["se_3x3", "se_identity", "se_post", "se_pre", "se_standard"]),
        ("stages", [[2], [3], [4], None], ["stage2", "stage3", "stage4", "stage_all"]),
        ("bias", [True, False], []),
    ],
)  # fmt: skip
def test_the_papers_ablations_are_found(tmp_path: Path, axis, values, keys):
    for index, value in enumerate(values):
        write_run(tmp_path / str(index), config(**{axis: value}), 0, RIGHT)
    assert sorted(paper_keys(collect([tmp_path])).values()) == sorted(keys)


def test_the_papers_networks_are_found(tmp_path: Path):
    for name in ("preact_resnet110", "se_preact_resnet110", "resnet50", "se_resnet50", "resnet20"):
        values = config(name) | {"data": {"name": "cifar100"}}
        write_run(tmp_path / name, values, 0, RIGHT)
    keys = paper_keys(collect([tmp_path]))
    assert keys == {
        "preact_resnet110": "c100_resnet110", "se_preact_resnet110": "c100_se_resnet110",
        "resnet50": "resnet50_main", "se_resnet50": "se_resnet50_main",
    }  # fmt: skip


@pytest.mark.parametrize(
    "points",
    [
        [config("resnet50"), config("se_resnet50", block="eca")],
        [config("resnet50"), config("se_resnet50", squeeze="max")],
        [config(block="cbam", reduction=r) for r in (4, 8)],
        [config(reduction=4), config(lr=0.2)],
    ],
    ids=["rival", "variant", "rival's r", "other recipes"],
)
def test_no_figure_of_the_paper_stands_beside_another_network(tmp_path: Path, points):
    for index, values in enumerate(points):
        write_run(tmp_path / str(index), values, 0, RIGHT)
    assert set(paper_keys(collect([tmp_path])).values()) <= {"resnet50_main"}


@pytest.mark.parametrize(
    ("other", "drawn"),
    [({"block": "eca"}, False), ({"block": "cbam"}, False), ({"placement": "pre"}, False), ({}, True)],
    ids=str,
)
def test_a_curve_over_r_is_of_points_that_differ_in_nothing_else(tmp_path: Path, other, drawn):
    write_run(tmp_path / "8", config(reduction=8), 0, RIGHT)
    write_run(tmp_path / "16", config(**other), 0, RIGHT)
    plots = draw(build_rows(collect([tmp_path]), "last"))
    assert ("Error and reduction ratio" in plots) == drawn


def test_what_is_missing_is_kept_with_its_reason(tmp_path: Path):
    good = write_run(tmp_path / "b", config(), 0, RIGHT)
    older = write_run(tmp_path / "a", config(), 0, RIGHT)
    write_run(tmp_path / "c", config(), 1, RIGHT, status="failed", error="ValueError: no")
    write_run(tmp_path / "d", config(), 2, RIGHT, status="running")
    write_run(tmp_path / "e", config(), 3, RIGHT, status="interrupted")
    (write_run(tmp_path / "f", config(), 4, RIGHT) / "summary.json").unlink()
    (write_run(tmp_path / "g", config(), 5, RIGHT) / "run.json").write_text("{")
    (write_run(tmp_path / "k", config(), 8, RIGHT) / "config.yaml").write_text("a: [")
    forged = write_run(tmp_path / "h", config(), 6, RIGHT) / "summary.json"
    forged.write_text(forged.read_text().replace("95.0", "96.0"))
    # Started again after a failure: the failure is history.
    write_run(tmp_path / "i", config(), 7, RIGHT, status="failed", error="out of memory")
    write_run(tmp_path / "j", config(), 7, RIGHT)
    study = collect([tmp_path])
    (point,) = study.points
    assert {seed: run.path for seed, run in point.runs.items()} == {0: good, 7: tmp_path / "j"}
    damaged = [tmp_path / "g", tmp_path / "k"]
    gaps = {gap.seed: gap.reason for gap in study.gaps if gap.missing and gap.path not in damaged}
    assert gaps == {
        1: "failed: ValueError: no",
        2: "unfinished: still running, or killed",
        3: "interrupted",
        4: "finished without summary.json",
        6: "summary.json says 4.000 % top-1 error, the predictions 5.000 %",
    }
    assert [gap.path for gap in study.gaps if not gap.missing] == [older]
    broken = [gap.reason for gap in study.gaps if gap.path in damaged]
    assert len(broken) == 2
    assert all(reason.startswith("cannot be read: ") for reason in broken)


def test_lost_predictions_are_not_other_images(tmp_path: Path):
    for seed in (0, 1):
        run = write_run(tmp_path / f"s{seed}", config(), seed, RIGHT)
        summary = json.loads((run / "summary.json").read_text())
        summary["data"]["manifest"] = {"val": "names:b3a885b217f54b25"}
        (run / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "s1" / "predictions" / "last_raw.csv").unlink()
    (point,) = collect([tmp_path]).points
    assert sorted(point.runs) == [0, 1]


def test_seeds_on_other_images_are_not_averaged(tmp_path: Path):
    """Of a study, too, whose data changed while it ran."""
    _sweep(tmp_path, {"SE": config()}, seeds=(0, 1, 2))
    shutil.rmtree(tmp_path / "SE-2")
    write_run(tmp_path / "SE-2", config(), 2, [True] * 30)
    study = collect([tmp_path])
    assert list(study.points[0].runs) == [0, 1]
    assert [(gap.seed, gap.reason) for gap in study.gaps] == [
        (2, "validated on other images than most runs of its point")
    ]


def test_images_that_cannot_be_read_count_as_wrong(tmp_path: Path):
    run = write_run(tmp_path / "run", config(), 0, [True] * 19 + [False])
    summary = json.loads((run / "summary.json").read_text())
    summary["last"] |= {"val/top1": 100 * 19 / 21, "val/unreadable": 1, "val/count": 21}
    (run / "summary.json").write_text(json.dumps(summary))
    assert read_run(run).problem is None


def test_top5_of_the_best_epoch_is_of_that_epoch(tmp_path: Path):
    """The summary has the best top-5 of any epoch; an image that cannot be read counts as wrong there, too."""
    run = write_run(tmp_path / "run", config(), 0, [True] * 19 + [False])
    summary = json.loads((run / "summary.json").read_text())
    summary["last"] = {"val/top1": 80.0, "val/top5": 98.0, "val/unreadable": 1, "val/count": 21}
    summary["best"] = {"val/top1": 100 * 19 / 21, "val/top5": 98.0}
    (run / "summary.json").write_text(json.dumps(summary))
    header, *rows = (run / "predictions" / "last_raw.csv").read_text().splitlines()
    best = [f"{header},top5", *(f"{row},{int(number < 17)}" for number, row in enumerate(rows))]
    (run / "predictions" / "best_raw.csv").write_text("\n".join(best))
    (run / "predictions" / "last_raw.csv").unlink()
    found = read_run(run, "best")
    assert found.problem is None
    assert found.error("best") == pytest.approx(100 * 2 / 21)
    assert found.error("best", 5) == pytest.approx(100 * 4 / 21)
    assert read_run(run, "last").error("last", 5) == pytest.approx(2.0)


def test_a_run_without_figures_is_a_gap(tmp_path: Path):
    for name, changed in (
        ("a run without validation", {"best": {}, "last": {}}),
        ("of another version", {"images_per_second": ...}),
    ):
        file = write_run(tmp_path / name, config(), len(name), RIGHT) / "summary.json"
        summary = json.loads(file.read_text()) | changed
        file.write_text(json.dumps({key: value for key, value in summary.items() if value is not ...}))
    write_run(tmp_path / "whole", config(), 0, RIGHT)
    study = collect([tmp_path])
    assert {gap.path.name: gap.reason for gap in study.gaps} == {
        "a run without validation": "trained without validation: it has no figures",
        "of another version": "summary.json lacks images_per_second",
    }
    assert build_rows(study, "last")[0].errors == {0: pytest.approx(5.0)}


def test_study_json_decides(tmp_path: Path):
    jobs = {
        "a": ("r=16", 0, "finished", None), "b": ("r=16", 1, "finished", None),
        "c": ("r=4", 0, "finished", None), "d": ("r=4", 1, "killed", "its process ended with signal 9"),
        "e": ("plain", 0, "missing", None), "f": ("plain", 1, "finished", None),
    }  # fmt: skip
    ledger = Ledger(tmp_path)
    ledger.head = {"name": "reduction", "baseline": "plain"}
    for label, baseline, paper in (("r=16", None, "r16"), ("r=4", "r=16", "r4"), ("plain", None, "none")):
        ledger.points[label] = PlannedPoint(label, [], baseline, paper)
    for run, (label, seed, status, reason) in jobs.items():
        ledger.jobs[f"hash of {run}"] = Job(f"hash of {run}", label, seed, [], run, status, reason)
    ledger.save()
    for run, (label, seed, status, _) in jobs.items():
        values = config("resnet20") if label == "plain" else config(reduction=int(label[2:]))
        if status != "missing":
            # A run that is killed dies with "running" in its record.
            write_run(tmp_path / run, values, seed, RIGHT, status={"killed": "running"}.get(status, status))
    write_run(tmp_path / "stray", config(), 5, RIGHT)
    study = collect([tmp_path])
    assert study.name == "reduction"
    assert [(p.label, p.baseline, sorted(p.runs)) for p in study.points] == [
        ("r=16", "plain", [0, 1]),
        ("r=4", "r=16", [0]),
        ("plain", None, [1]),
    ]
    assert [(gap.label, gap.seed, gap.reason) for gap in study.gaps] == [
        ("r=4", 1, "killed: its process ended with signal 9"),
        ("plain", 0, "was not run"),
        ("stray", 5, "belongs to no point of study.json"),
    ]
    assert paper_keys(study) == {"r=16": "r16", "r=4": "r4", "plain": "none"}


def _sweep(folder: Path, points: dict[str, dict], seeds=(0, 1), **head) -> None:
    """Write a finished study as ``train.py -m`` leaves one, which names no baseline."""
    ledger = Ledger(folder)
    ledger.head = {"name": "sweep", "baseline": None, **head}
    for label, values in points.items():
        ledger.points[label] = PlannedPoint(label, [])
        for seed in seeds:
            run = f"{label}-{seed}"
            ledger.jobs[run] = Job(run, label, seed, [], run, "finished")
            write_run(folder / run, values, seed, RIGHT)
    ledger.save()


def test_a_sweep_is_compared_with_the_plain_twin_trained_alike(tmp_path: Path):
    points = {
        f"{model}, lr={lr}": config(model, lr) for model in ("se_resnet20", "resnet20") for lr in (0.1, 0.2)
    } | {"resnet32": config("resnet32")}
    _sweep(tmp_path, points)
    study = collect([tmp_path])
    assert study.inferred
    assert {point.label: point.baseline for point in study.points} == {
        "se_resnet20, lr=0.1": "resnet20, lr=0.1",
        "se_resnet20, lr=0.2": "resnet20, lr=0.2",
        "resnet20, lr=0.1": None,
        "resnet20, lr=0.2": None,
        "resnet32": None,
    }
    named = collect([tmp_path], baseline="resnet32")
    assert not named.inferred
    assert {point.baseline for point in named.points} == {"resnet32", None}


def test_a_point_of_which_nothing_is_left_is_compared_with_nothing(tmp_path: Path):
    """An archive made while the study ran has the ledger of all its points and the runs of some."""
    _sweep(tmp_path, {"resnet20": config("resnet20"), "se_resnet20": config()})
    for seed in (0, 1):
        shutil.rmtree(tmp_path / f"se_resnet20-{seed}")
    study = collect([tmp_path])
    assert [(p.label, p.baseline, len(p.runs)) for p in study.points] == [
        ("resnet20", None, 2), ("se_resnet20", None, 0),
    ]  # fmt: skip
    assert not study.inferred


def test_trials_of_a_search_are_not_compared(tmp_path: Path):
    _sweep(tmp_path, {f"lr={lr}": config(lr=lr) for lr in (0.1, 0.2)}, search={"name": "optuna"})
    assert not any(point.baseline for point in collect([tmp_path]).points)


def test_a_pruned_trial_is_not_missing(tmp_path: Path):
    _sweep(tmp_path, {f"lr={lr}": config(lr=lr) for lr in (0.1, 0.2)}, seeds=(0,), search={"name": "optuna"})
    ledger = Ledger.open(tmp_path)
    job = ledger.jobs["lr=0.2-0"]
    job.status, job.reason = "pruned", "pruned in epoch 1 at val/top1 10"
    ledger.save()
    record = tmp_path / job.run / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "interrupted"}))
    (gap,) = collect([tmp_path]).gaps
    assert (gap.reason, gap.missing) == ("pruned: pruned in epoch 1 at val/top1 10", False)


def test_a_sweep_over_r_has_the_papers_table_beside_it(tmp_path: Path):
    _sweep(tmp_path, {f"se.reduction={r}": config(reduction=r) for r in (2, 4, 8, 16, 32)})
    study = collect([tmp_path])
    assert paper_keys(study) == {f"se.reduction={r}": f"r{r}" for r in (2, 4, 8, 16, 32)}
    assert {point.baseline for point in study.points[1:]} == {"se.reduction=2"}
    assert "Error and reduction ratio" in draw(build_rows(study, "last"))


def test_a_damaged_study_json_is_one_line(tmp_path: Path):
    point = {"label": "r=4", "overrides": []}
    job = {"hash": "1", "label": "r=4", "seed": 0, "overrides": [], "run": "a"}
    for wrong, words in (
        ("{", "cannot be read"), ("[]", "cannot be read"), ({}, "cannot be read"),
        ({"points": [point], "jobs": {"1": {"label": "r=4"}}}, "cannot be read"),
        ({"points": [point, point], "jobs": {}}, "two points of one label"),
        ({"points": [point], "jobs": {"1": job | {"label": "r=8"}}}, "a job of no point"),
    ):  # fmt: skip
        (tmp_path / "study.json").write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        with pytest.raises(UserError, match=words) as raised:
            collect([tmp_path])
        assert "\n" not in str(raised.value)


def test_an_evaluation_is_no_run_of_a_report(tmp_path: Path):
    """Those of released weights lie in runs/evaluations."""
    write_run(tmp_path / "a", config(), 0, RIGHT)
    RunDir.create(tmp_path / "evaluations", "best", {"size": 8}, {"task": "eval", "status": "finished"})
    study = collect([tmp_path])
    assert len(study.points) == 1
    assert not study.gaps
    with pytest.raises(UserError, match="no run directory"):
        collect([tmp_path / "evaluations"])


def test_finding(tmp_path: Path):
    run = write_run(tmp_path / "study" / "a", config(), 0, RIGHT)
    write_run(run / "evaluations" / "inner", config(), 0, RIGHT)
    (tmp_path / "study" / "latest").symlink_to("a")
    assert find_runs([tmp_path, run, tmp_path / "stu*"]) == [run]
    odd = write_run(tmp_path / "s[ab]" / "c", config(), 0, RIGHT)
    write_run(tmp_path / "sa" / "d", config(), 0, RIGHT)
    assert find_runs([tmp_path / "s[ab]"]) == [odd]
    with pytest.raises(UserError, match="no such directory"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run directory"):
        collect([tmp_path / "empty"])
