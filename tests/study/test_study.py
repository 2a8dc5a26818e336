"""Studies without training: what is planned, refused, run again, and kept in an archive."""

import json
import shutil
from pathlib import Path

import pytest
from study_fakes import ROOT, FakeExecutor, flat, ledger_of, statuses

from senet import UserError, model_names
from senet.ledger import Ledger
from senet.rundir import RunDir
from senet.study import commands
from senet.study.commands import archive
from senet.study.plan import composing, parse, points_of
from senet.training.entry import command_line

ABLATIONS = sorted(path.stem for path in (ROOT / "configs" / "ablation").glob("*.yaml"))


@pytest.mark.slow
def test_ablation_times_sweep_times_seeds(study, tmp_path: Path):
    executor = FakeExecutor(flat)
    assert study(executor, "ablation=squeeze", "optimizer.lr=0.1,0.2", "seed=3,5", "se.bias=false") == 0
    ledger = ledger_of(tmp_path)
    assert (tmp_path / "runs" / "latest").resolve() == ledger["path"]
    with pytest.raises(UserError, match="it is a study: name one of the runs in"):
        RunDir.open(tmp_path / "runs" / "latest")
    assert set(statuses(tmp_path)) == {
        (f"{squeeze}, optimizer.lr={rate}", seed)
        for squeeze in ("avg", "max")
        for rate in ("0.1", "0.2")
        for seed in (3, 5)
    }
    for job in ledger["jobs"].values():
        run = RunDir(ledger["path"] / job["run"])
        config, record = run.config(), run.record()
        assert f"{config['se']['squeeze']}, optimizer.lr={config['optimizer']['lr']}" == job["label"]
        assert (config["seed"], config["se"]["bias"]) == (job["seed"], False)
        assert record["config_hash"] == job["hash"] == ledger["jobs"][job["hash"]]["hash"]
        assert not {"ablation", "search", "launcher"} & config.keys()
        point = next(p for p in ledger["points"] if p["label"] == job["label"])
        assert set(point["overrides"]) < set(record["overrides"])
        assert point["baseline"] == job["label"].replace("max", "avg")
        assert point["paper"] == f"squeeze_{config['se']['squeeze']}"
    assert executor.most_at_once == 1
    # A study that is cut short has compared its points already.
    assert [RunDir(run).config()["seed"] for run in executor.started] == [3] * 4 + [5] * 4


@pytest.mark.slow
def test_same_command_again_runs_nothing_and_more_seeds_extend(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "ablation=squeeze", "seed=0") == 0
    again = FakeExecutor(flat)
    assert study(again, "ablation=squeeze", "seed=0") == 0
    assert again.started == []
    more = FakeExecutor(flat)
    assert study(more, "ablation=squeeze", "seed=0,1", "launcher.slots=2x1") == 0
    assert len(more.started) == 2
    assert more.most_at_once == 2
    path = ledger_of(tmp_path)["path"]
    extended = FakeExecutor(flat)
    assert study(extended, call=lambda: commands.extend(path, ["seed=7"])) == 0
    assert len(extended.started) == 2
    assert ledger_of(tmp_path)["seeds"] == [0, 1, 7]
    assert len(statuses(tmp_path)) == 6


@pytest.mark.slow
def test_ranges_and_choices_are_values_like_typed_ones(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "se.reduction=choice(2,4)", "seed=range(0,2)") == 0
    assert set(statuses(tmp_path)) == {(f"se.reduction={r}", seed) for r in (2, 4) for seed in (0, 1)}


def test_another_base_configuration_is_another_study(study, tmp_path: Path):
    study(FakeExecutor(flat), "ablation=squeeze")
    study(FakeExecutor(flat), "ablation=squeeze", "optimizer.lr=0.3")
    studies = [p for p in (tmp_path / "runs" / "studies").iterdir() if not p.is_symlink()]
    assert len(studies) == 2
    assert all(len(json.loads((p / "study.json").read_text())["jobs"]) == 2 for p in studies)


@pytest.mark.slow
def test_a_plain_point_has_no_se_settings(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "ablation=reduction", "se=ablation", "model=se_resnet32") == 0
    ledger = ledger_of(tmp_path)
    runs = {job["label"]: RunDir(ledger["path"] / job["run"]).config() for job in ledger["jobs"].values()}
    assert runs["plain"]["model"]["name"] == "resnet32"
    assert runs["plain"]["se"] is None
    assert {label: run["se"]["reduction"] for label, run in runs.items() if run["se"]} == {
        f"r={r}": r for r in (2, 4, 8, 16, 32)
    }
    assert not any(run["se"]["bias"] for run in runs.values() if run["se"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        # widths of the three stages: 16, 32 and 64 channels through 1 hidden channel, whatever r
        ("se.reduction=33,64", "se.reduction=33 and se.reduction=64 are the same"),
        ("se.stages=null,[2,3,4]", "are the same"),
        ("ablation=reduction se.reduction=8", "se.reduction is what ablation=reduction varies"),
        ("ablation=networks model=resnet20", "model is what ablation=networks varies"),
        ("ablation=se_3x3", "SE_3x3: se.placement=conv3x3"),
        ("ablation=squeeze seed=0,0", "name each seed once"),
        ("ablation=squeeze seed=0,a", "a seed is a whole number"),
        ("ablation=squeeze resume=x", "senet study retry"),
        ("ablation=squeeze hydra.verbose=true", "Hydra's own settings"),
        ("ablation=squeeze,stages", "one value here"),
        ("ablation=squeeze launcher.slots=2", "must be JxD"),
        ("ablation=squeeze launcher.slots=2x2", "trainer.devices=1"),
        ("ablation=squeeze trainer.devices=1,2", "share its slots"),
        ("trainer.num_nodes=1,2", "share its slots"),
        ("optimizer.lr=0.1,-1", "optimizer.lr=-1"),
        ("optimizer.lr=0.1,0.2 optimizer.lr=0.3", "optimizer.lr is set 2 times"),
        ("seed=0,1 optimizer.lr=0.1 seed=2,3", "seed is set 2 times"),
        ("optimizer.lr=interval(0.1,1)", "search=optuna draws from ranges"),
        ("search=optuna seed=0,1", "drop"),
        ("trainer.num_nodes=x seed=0,1", "trainer.num_nodes"),
        ("launcher.executor=rai seed=0,1", 'did you mean "ray"'),
        ("mixing.probability=0.5,0.7", "mixing.probability=0.5 has no effect here"),
        ("loss.temperature=3 se.reduction=2,4", "loss.temperature=3 has no effect here"),
        ("--config-dir nowhere seed=0,1", "there is no such directory"),
    ],
)
def test_mistakes_are_found_before_anything_runs(overrides: str, words: str, study, tmp_path: Path):
    executor = FakeExecutor(flat)
    with pytest.raises(UserError, match=r".*") as raised:
        study(executor, *overrides.split())
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert executor.started == []


def test_a_setting_may_be_idle_at_one_end_of_an_axis(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "mixing.mixup=0,0.2", "mixing.probability=0.5") == 0


def test_a_users_own_configurations_are_known_to_a_study_and_to_its_extension(study, tmp_path: Path):
    (tmp_path / "it's mine" / "recipe").mkdir(parents=True)
    (tmp_path / "it's mine" / "recipe" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [quick]\noptimizer: {lr: 0.0625}\n"
    )
    words = ("--config-dir", str(tmp_path / "it's mine"), "recipe=own", "se.reduction=2,4", "seed=0")
    assert study(FakeExecutor(flat), *words) == 0
    ledger = ledger_of(tmp_path)
    assert study(FakeExecutor(flat), call=lambda: commands.extend(ledger["path"], ["seed=1"])) == 0
    jobs = ledger_of(tmp_path)["jobs"].values()
    assert len(jobs) == 4
    assert {RunDir(ledger["path"] / job["run"]).config()["optimizer"]["lr"] for job in jobs} == {0.0625}
    assert {job["label"] for job in jobs} == {"se.reduction=2", "se.reduction=4"}


def test_a_point_whose_file_has_changed_is_not_mixed_with_what_it_was(study, tmp_path: Path):
    """What is common to the points, and so the study's directory, is as before."""
    recipe = tmp_path / "mine" / "recipe" / "own.yaml"
    recipe.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [quick]\noptimizer: {lr: 0.0625}\n"
    recipe.write_text(text)
    words = ("--config-dir", str(tmp_path / "mine"), "recipe=own,quick")
    assert study(FakeExecutor(flat), *words, "seed=0") == 0
    recipe.write_text(text.replace("0.0625", "0.125"))
    again = FakeExecutor(flat)
    with pytest.raises(
        UserError, match="recipe=own: its configuration files have changed since the study began"
    ):
        study(again, *words, "seed=0,1")
    assert again.started == []
    recipe.write_text(text)
    assert study(again, *words, "seed=0,1") == 0
    assert len(again.started) == 2


def test_study_settings_without_m(monkeypatch, capsys):
    import hydra

    from senet.training.entry import train

    monkeypatch.setattr("sys.argv", ["train.py", "ablation=reduction"])
    main = hydra.main(version_base="1.3", config_path=str(ROOT / "configs"), config_name="train")(train)
    with pytest.raises(SystemExit, match="2"):
        command_line(main)
    assert "ablation=reduction is for a study of many runs: add -m" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_planned_with_its_twins(name: str, study, tmp_path: Path):
    more = ("model=se_preact_resnet164",) if name == "se_3x3" else ()
    if name in ("networks", "networks_mobile", "networks_places", "senet154", "senet154_320"):
        more = ("data=imagefolder", "data.root=images")  # with recipes for photographs
    assert study(FakeExecutor(flat), f"ablation={name}", *more) == 0
    ledger = ledger_of(tmp_path)
    assert ledger["ablation"] == name
    labels = {p["label"] for p in ledger["points"]}
    assert len(labels) == len(ledger["jobs"])
    baselines = [p["baseline"] for p in ledger["points"] if p["baseline"]]
    assert bool(baselines) == (len(labels) > 1)
    assert set(baselines) <= labels
    if name.startswith("networks"):
        assert labels <= set(model_names())
        assert all(p["baseline"] == p["label"][3:] for p in ledger["points"] if p["label"].startswith("se_"))


@pytest.mark.slow
def test_rivals_get_what_they_read_and_published_figures_stand_beside_their_own_trunk(study, tmp_path: Path):
    small = ("ablation=rivals", "model=se_resnet20", "se=ablation", "se.reduction=8")
    assert study(FakeExecutor(flat), *small) == 0
    ledger = ledger_of(tmp_path)
    blocks = {
        job["label"]: RunDir(ledger["path"] / job["run"]).config()["se"] for job in ledger["jobs"].values()
    }
    assert blocks.pop("plain") is None
    assert {label: (se["reduction"], se["bias"]) for label, se in blocks.items()} == {
        "SE": (8, False), "ECA": (16, True), "CBAM": (8, False), "GE-theta-minus": (16, True), "GC, adding": (8, True),
        "GC, scaling": (8, True), "highway gate": (16, True), "soft mask": (8, False),
    }  # fmt: skip
    assert {point["paper"] for point in ledger["points"]} == {None}
    with composing():
        points = points_of(parse(["ablation=rivals", "model=se_resnet50"]))
    assert points[2].paper == "eca_resnet50"


@pytest.mark.slow
def test_an_archive_goes_on_as_a_study(study, tmp_path: Path):
    """On another machine, say: the kept runs count, the others are trained."""

    def some(config: dict) -> list[float] | int:
        return 1 if config["se"]["squeeze"] == "max" else flat(config)

    assert study(FakeExecutor(some), "ablation=squeeze", "seed=0,1") == 1
    path = ledger_of(tmp_path)["path"]
    kept = tmp_path / "kept"
    assert archive(path, kept) == 2
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    again = FakeExecutor(flat)
    assert study(again, "ablation=squeeze", "seed=0,1") == 0
    assert [RunDir(run).config()["se"]["squeeze"] for run in again.started] == ["max", "max"]
    assert set(statuses(tmp_path).values()) == {"finished"}


def test_an_archive_replaces_neither_the_study_nor_another(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "se.reduction=2") == 0
    first = ledger_of(tmp_path)["path"]
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="is the study itself"):
        archive(first, first.parent / "." / first.name)
    assert {file: file.read_bytes() for file in before} == before
    assert archive(first, tmp_path / "kept") == archive(first, tmp_path / "kept") == 1
    assert study(FakeExecutor(flat), "optimizer.lr=0.1,0.2") == 0
    (second,) = first.parent.glob("optimizer*")
    with pytest.raises(UserError, match=f"holds another study, {first.name}"):
        archive(second, tmp_path / "kept")
    assert Ledger.open(tmp_path / "kept").head["name"] == first.name
