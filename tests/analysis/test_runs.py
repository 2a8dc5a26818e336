"""Run directories become points with the right labels, baselines and gaps."""

import json
from pathlib import Path

import numpy as np
import pytest
from run_fakes import config, write_run

from senet import UserError
from senet.analysis.labels import label_points
from senet.analysis.runs import collect, find_runs
from senet.analysis.table import paper_keys

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
    ],
)  # fmt: skip
def test_a_label_says_what_differs(configs, labels):
    assert label_points(configs) == labels


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


def test_what_is_missing_is_kept_with_its_reason(tmp_path: Path):
    good = write_run(tmp_path / "b", config(), 0, RIGHT)
    older = write_run(tmp_path / "a", config(), 0, RIGHT)
    write_run(tmp_path / "c", config(), 1, RIGHT, status="failed", error="ValueError: no")
    write_run(tmp_path / "d", config(), 2, RIGHT, status="running")
    write_run(tmp_path / "e", config(), 3, RIGHT, status="interrupted")
    (write_run(tmp_path / "f", config(), 4, RIGHT) / "summary.json").unlink()
    (write_run(tmp_path / "g", config(), 5, RIGHT) / "run.json").write_text("{")
    forged = write_run(tmp_path / "h", config(), 6, RIGHT) / "summary.json"
    forged.write_text(forged.read_text().replace("95.0", "96.0"))
    # Started again after a failure: the failure is history.
    write_run(tmp_path / "i", config(), 7, RIGHT, status="failed", error="out of memory")
    write_run(tmp_path / "j", config(), 7, RIGHT)
    study = collect([tmp_path])
    (point,) = study.points
    assert {seed: run.path for seed, run in point.runs.items()} == {0: good, 7: tmp_path / "j"}
    gaps = {gap.seed: gap.reason for gap in study.gaps if gap.missing and gap.path != tmp_path / "g"}
    assert gaps == {
        1: "failed: ValueError: no",
        2: "unfinished: still running, or killed",
        3: "interrupted",
        4: "finished without summary.json",
        6: "summary.json says 4.000 % top-1 error, the predictions 5.000 %",
    }
    assert [gap.path for gap in study.gaps if not gap.missing] == [older]
    (broken,) = [gap for gap in study.gaps if gap.path == tmp_path / "g"]
    assert broken.reason.startswith("cannot be read")


def test_study_json_decides(tmp_path: Path):
    jobs = {
        "a": ("r=16", 0, "finished", None), "b": ("r=16", 1, "finished", None),
        "c": ("r=4", 0, "finished", None), "d": ("r=4", 1, "killed", "its process ended with signal 9"),
        "e": ("plain", 0, "missing", None), "f": ("plain", 1, "finished", None),
    }  # fmt: skip
    plan = {
        "name": "reduction",
        "baseline": "plain",
        "points": [
            {"label": "r=16", "overrides": [], "paper": "r16"},
            {"label": "r=4", "overrides": ["se.reduction=4"], "paper": "r4", "baseline": "r=16"},
            {"label": "plain", "overrides": ["model=resnet20"], "paper": "none", "baseline": None},
        ],
        "jobs": {
            f"hash of {run}": {"run": run, "label": label, "seed": seed, "status": status, "reason": reason}
            for run, (label, seed, status, reason) in jobs.items()
        },
    }
    (tmp_path / "study.json").write_text(json.dumps(plan))
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
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UserError, match=r"study.json cannot be read"):
        collect([tmp_path])


def test_finding(tmp_path: Path):
    run = write_run(tmp_path / "study" / "a", config(), 0, RIGHT)
    write_run(run / "evaluations" / "inner", config(), 0, RIGHT)
    (tmp_path / "study" / "latest").symlink_to("a")
    assert find_runs([tmp_path, run, tmp_path / "stu*"]) == [run]
    with pytest.raises(UserError, match="no such directory"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run directory"):
        collect([tmp_path / "empty"])
