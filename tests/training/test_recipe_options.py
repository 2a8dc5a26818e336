"""What recipes ask of a run beside optimiser and schedule, each against an independent truth."""

import csv
import json
import shutil
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from senet import SEConfig, UserError, create_model
from senet.data.datasets import Batch
from senet.data.inputs import InputStep
from senet.data.sets import FolderConfig, SyntheticConfig
from senet.integrations.imagenet_names import wordnet_ids
from senet.nn.tail import ResidualTail, set_drop_path
from senet.rundir import RunDir
from senet.training import module
from senet.training.effects import notes
from senet.training.entry import check_run, new_run
from senet.training.jobs import run_processes
from senet.training.module import ClassificationModule
from senet.training.objective import LossConfig
from senet.training.optimizers import TimmConfig, parameter_groups
from senet.weights import read_checkpoint
from senet.weights.classes import outputs_for
from senet.weights.trained import read_trained

QUICK = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=96", "data.val_images=32",
         "data.batch_size=16", "trainer.max_epochs=2", "augment.pad=1")  # fmt: skip


def state(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / f"{name}.ckpt").state_dict


def watched(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Return a list to which every optimiser step of a training adds the weights that it left."""
    seen: list[dict[str, torch.Tensor]] = []
    end = ClassificationModule.on_train_batch_end

    def watch(self, *args):
        seen.append({key: value.clone() for key, value in self.model.state_dict().items()})
        end(self, *args)

    monkeypatch.setattr(ClassificationModule, "on_train_batch_end", watch)
    return seen


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("batch_norm.frozen_from=0.5 batch_norm.precise_batches=2", "set one of them alone"),
        ("batch_norm.precise_batches=2 model.freeze=2", "batch_norm.precise_batches=2 has no effect here"),
        ("batch_norm.frozen_from=1", "batch_norm.frozen_from=1 must be a number above 0 and below 1"),
        ("ema.epochs=2", "ema.epochs=2 has no effect here: it needs batch_norm.precise_batches"),
        ("ema.epochs=2 ema.decay=0.9", "set one of them alone"),
        ("loss.temperature=3", "needs loss.teacher"),
        (
            "model=se_preact_resnet110 model.drop_path=0.1",
            "has no residual units whose branch can be dropped",
        ),
        ("se.block=eca model.drop_path=0.1", "drops no branch with se.block=eca"),
        ("model.drop_path=1", "model.drop_path=1 must be a number from 0 and below 1"),
        ("optimizer=timm optimizer.kind=lio", 'did you mean "lion"'),
        ("optimizer=timm optimizer.kind=adahessian", "needs second derivatives"),
        ("optimizer=timm optimizer.kind=bnbadam", "is not installed with senet"),
        ("optimizer=timm optimizer.momentum=0.9", "optimizer.momentum has no effect here: lion has none"),
        ("augment.policy=augmi", 'did you mean "augmix"'),
        ("augment.rotation=10", "augment.rotation works on single images"),
        ("augment.pixel_jitter=256", "augment.pixel_jitter=256 must be a whole number from 0 to 255"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(overrides: str, words: str, compose):
    values = compose(*overrides.split())
    values.pop("resume")
    with pytest.raises(UserError) as caught:
        check_run(values, overrides.split())
    assert words in str(caught.value)


@pytest.mark.slow
def test_batch_norm_stands_still_from_its_share_of_the_run_on(train, monkeypatch):
    seen = watched(monkeypatch)
    train(*QUICK, "batch_norm.frozen_from=0.5")  # of 12 steps
    norms = [key.removesuffix("running_mean") for key in seen[0] if key.endswith("running_mean")]
    for step in range(1, 12):
        before, after = seen[step - 1], seen[step]
        moved = {key for key in after if not torch.equal(after[key], before[key])}
        of_norms = {key for key in moved if key.startswith(tuple(norms))}
        assert moved - of_norms, step
        assert bool(of_norms) == (step < 6), step


def test_precise_statistics_are_those_of_all_training_images(train):
    whole = ("augment.crop=none", "augment.flip=0", "batch_norm.precise_batches=6")
    run = train(*QUICK[:-1], *whole)
    weights = read_checkpoint(run / "checkpoints" / "last.ckpt").state("raw")
    data = SyntheticConfig(train_images=96, batch_size=16)
    images = data.open("train", data.preprocessing.at(8), None).images.double()  # 6 batches: every image once
    maps = F.conv2d((images / 255 - 0.5) / 0.25, weights["stem.0.weight"].double(), padding=1)
    torch.testing.assert_close(
        weights["stem.1.running_mean"].double(), maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5
    )
    assert int(weights["stem.1.num_batches_tracked"]) == 6


@pytest.mark.slow
def test_precise_statistics_leave_no_data_workers_behind(train, tree: Path, monkeypatch):
    seen = []

    def counted(*arguments: object) -> None:
        update_bn(*arguments)
        seen.append(len(active_children()))

    update_bn = module.update_bn
    monkeypatch.setattr(module, "update_bn", counted)
    data = ("data=imagefolder", f"data.root={tree}", "data.in_memory=false", "data.workers=1",
            "data.batch_size=8", "data.preprocessing.size=8", "data.preprocessing.resize=8")  # fmt: skip
    train(*data, "model=se_resnet20", "batch_norm.precise_batches=1", "trainer.max_epochs=4")
    assert len(seen) == 4
    assert seen[1] == seen[3]


@pytest.mark.parametrize("se", [None, SEConfig(reduction=2)])
def test_a_dropped_branch_leaves_the_shortcut_and_the_others_count_more(se):
    torch.manual_seed(0)
    tails = torch.nn.Sequential(ResidualTail(8, se), ResidualTail(8, se), ResidualTail(8, se))
    set_drop_path(tails, 0.5)
    assert [tail.drop_path for tail in tails] == [0, 0.25, 0.5]
    tail, x, shortcut = tails[2], torch.randn(200, 8, 3, 3), torch.randn(200, 8, 3, 3)
    u = F.batch_norm(x, None, None, tail.bn.weight, tail.bn.bias, training=True)
    scale = tail.se.gate(u) if se else 1
    out, dropped, kept = tail(x, shortcut), F.relu(shortcut), F.relu(2 * scale * u + shortcut)
    is_dropped = torch.isclose(out, dropped, atol=1e-5).flatten(1).all(1)
    is_kept = torch.isclose(out, kept, atol=1e-5).flatten(1).all(1)
    assert (is_dropped ^ is_kept).all()
    assert 70 < int(is_dropped.sum()) < 130  # 4 standard deviations
    tail.eval()
    tail.drop_path = 0.0
    plain = tail(x, shortcut)
    tail.drop_path = 0.5
    assert torch.equal(tail(x, shortcut), plain)


def test_optimisers_of_timm_take_our_groups():
    """Lion's first step by hand: w (1 - lr wd) - lr sign(g), without decay where there is none."""
    network = create_model("se_resnet20")
    config = TimmConfig(kind="lion", lr=0.01, weight_decay=0.5)
    optimizer = config.build(parameter_groups(network, config), 0.01)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, after in network.named_parameters():
        decay = 0.5 if name.endswith("weight") and after.ndim > 1 else 0.0
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * after.grad.sign()
        torch.testing.assert_close(after.detach(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_equal_average_is_that_of_the_last_epochs(train, monkeypatch):
    seen = watched(monkeypatch)
    run = train(*QUICK, "trainer.max_epochs=3", "ema.epochs=2", "batch_norm.precise_batches=1")
    last_two = [seen[11], seen[17]]  # 6 steps an epoch
    average = read_checkpoint(run / "checkpoints" / "last.ckpt").state("ema")
    for key in (key for key in average if key.endswith("weight")):
        expected = torch.stack([weights[key].double() for weights in last_two]).mean(0)
        torch.testing.assert_close(average[key].double(), expected, rtol=1e-5, atol=1e-6)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    same = [row["val/loss"] == row["val_ema/loss"] for row in rows]
    assert same == [True, True, False]  # before the second of them it is the raw weights
    short = train(
        *QUICK, "trainer.max_steps=3", "ema.epochs=2", "batch_norm.precise_batches=1"
    )  # half an epoch
    kept = read_checkpoint(short / "checkpoints" / "last.ckpt")
    raw = kept.state("raw")
    assert all(
        torch.equal(value, raw[key]) for key, value in kept.state("ema").items() if key.endswith("weight")
    )


def test_the_teachers_loss_is_the_papers():
    """Hinton et al. 2015, in float64: the gradient of the soft part is scaled back by T^2."""
    generator = np.random.default_rng(0)
    logits, taught = generator.normal(size=(2, 5, 7))
    share, temperature = 0.3, 4.0

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(taught / temperature), softmax(logits / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    config = LossConfig(teacher="x", teacher_share=share, temperature=temperature)
    loss = config.with_teacher(torch.tensor(1.5), torch.tensor(logits).float(), torch.tensor(taught).float())
    assert float(loss) == pytest.approx(0.7 * 1.5 + 0.3 * soft, rel=1e-5)


@pytest.mark.slow
def test_a_student_learns_from_a_run_and_keeps_nothing_of_it(train, monkeypatch):
    teacher = train(*QUICK, "trainer.max_epochs=1", "model=resnet20", "name=teacher")
    seen: list[torch.Tensor] = []
    enter, learn = InputStep.forward, LossConfig.with_teacher

    def watch(self, *args):
        seen.append(enter(self, *args))
        return seen[-1]

    def compare(self, loss, logits, taught):
        network = read_trained(str(teacher)).network
        torch.testing.assert_close(taught, network(seen[-1].detach()).detach(), rtol=1e-4, atol=1e-4)
        return learn(self, loss, logits, taught)

    monkeypatch.setattr(InputStep, "forward", watch)
    monkeypatch.setattr(LossConfig, "with_teacher", compare)
    student = train(
        *QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=2", f"loss.teacher={teacher}"
    )
    assert all(key.startswith("model.") for key in state(student))
    train(*QUICK, f"loss.teacher={teacher}", "data.num_classes=5", expect=2)
    train(*QUICK, f"loss.teacher={teacher}", "data.preprocessing.mean=[0.4,0.5,0.5]", expect=2)


@pytest.mark.slow
def test_a_resumed_student_has_the_teacher_it_began_with(train):
    teacher = train(*QUICK, "trainer.max_epochs=1", "model=resnet20", "name=teacher")
    latest = teacher.parent / "latest"
    student = train(*QUICK, "trainer.max_epochs=1", f"loss.teacher={latest}")
    assert latest.resolve() == student
    train("trainer.max_epochs=2", resume=student)
    assert f"teacher   {teacher}" in (student / "log.txt").read_text().rpartition("continuing at")[2]
    other = train(*QUICK, "trainer.max_epochs=1", "model=resnet20", "seed=1")
    shutil.copy(other / "checkpoints/best.ckpt", teacher / "checkpoints/best.ckpt")
    train("trainer.max_epochs=3", resume=student, expect=2)
    assert "other weights than when the run began" in RunDir(student).record()["error"]


@pytest.mark.slow
def test_out_of_memory_goes_on_with_half_the_batch_and_the_same_steps(compose, tmp_path, monkeypatch, caplog):
    """The run that found its batch is bit for bit the one that was asked for it."""
    step = ClassificationModule.training_step

    def small_machine(self, batch: Batch, index: int):
        if len(batch.labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, batch, index)

    def run(*overrides: str) -> Path:
        typed = [*QUICK, f"runs_dir={tmp_path}", *overrides]
        values = compose(*typed)
        values.pop("resume")
        directory, config = new_run(values, typed)
        assert run_processes("train", directory, config) == 0, directory.record()
        return directory.path

    asked = run("data.batch_size=4", "trainer.accumulate_grad_batches=4")
    monkeypatch.setattr(ClassificationModule, "training_step", small_machine)
    found = run("fit_memory=true")
    assert "data.batch_size=4 and trainer.accumulate_grad_batches=4" in caplog.text
    theirs = state(asked)
    assert all(torch.equal(value, theirs[key]) for key, value in state(found).items())
    assert json.loads((found / "run.json").read_text())["global_batch"] == 16


def test_folders_of_imagenet_v2_are_classes_by_number(image_tree: Path, tmp_path: Path):
    for name, source in (("10", "cat"), ("2", "dog"), ("999", "cat")):
        (tmp_path / name).symlink_to(image_tree / "val" / source)
    data = FolderConfig(root=str(tmp_path), name="imagenet_v2")
    classes = data.open("val", data.preprocessing, None).classes
    assert (
        outputs_for(classes, wordnet_ids(), 1000, "weights")
        == [int(name) for name in classes]
        == [10, 2, 999]
    )
    with pytest.raises(UserError, match="which weights does not know"):
        outputs_for(["1000"], wordnet_ids(), 1000, "weights")
    with pytest.raises(UserError, match="no training images"):
        data.open("train", data.preprocessing, None)


def test_a_network_for_larger_images_is_told_apart_from_the_default_crop(compose):
    typed = ["model=se_inception_v3", "data=imagefolder", "recipe=paper"]
    for more, lines in (
        ([], ["data.preprocessing.size=299 data.preprocessing.resize=352"]),
        (["data.preprocessing.size=224"], []),
    ):
        values = compose(*typed, *more)
        values.pop("resume")
        said = notes(*check_run(values, [*typed, *more]), [*typed, *more])
        assert len(said) == len(lines)
        assert all(words in line for words, line in zip(lines, said, strict=True))
