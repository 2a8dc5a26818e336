"""``eval.py weights=``: other people's weights on folders of images, with answers that are known."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from senet.errors import UserError
from senet.integrations.imagenet_names import by_name, wordnet_ids
from senet.rundir import RunDir
from senet.training import jobs
from senet.training.bulk import bulk_arguments, evaluate_all
from senet.weights.classes import outputs_for
from senet.weights.trained import read_trained

TEN = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079")
NAMES = ("tench", "English springer", "cassette_player", "chain saw", "church")


def folders(root: Path, names: tuple[str, ...]) -> Path:
    for index, name in enumerate(names):
        (root / "val" / name).mkdir(parents=True)
        for number in range(index + 1):  # 1, 2, 3, 4, 5 images
            pixels = np.full((40, 40, 3), 20 * index + number, dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{number}.png")
    return root


@pytest.fixture
def one_answer(tmp_path: Path) -> Path:
    """timm's ResNet-18 whose weights say class 701 (not among the five) first, then n03000684, the fourth, always."""
    network = timm.create_model("resnet18")
    torch.nn.init.zeros_(network.fc.weight)
    torch.nn.init.zeros_(network.fc.bias)
    with torch.no_grad():
        network.fc.bias[701] = 5.0
        network.fc.bias[wordnet_ids().index("n03000684")] = 3.0
    file = tmp_path / "made_up.pth"
    torch.save({"state_dict": network.state_dict()}, file)
    return file


@pytest.mark.parametrize("names", [TEN, NAMES])
def test_a_subset_of_imagenets_classes(evaluate, one_answer, tmp_path, names, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    root = folders(tmp_path / "data", names)
    caplog.set_level("INFO", "senet")
    result = evaluate(f"weights={one_answer}", "data=imagefolder", f"data.root={root}", "data.workers=0")
    assert result["count"] == 15
    assert result["top1"] == pytest.approx(100 * 4 / 15)
    assert result["top1_among_all"] == 0
    assert result["preprocessing"]["resize"] == 256
    assert "5 of the network's 1000" in caplog.text
    assert "does not say for which images: assumed RGB, 224 px, resize 256 (bilinear)" in caplog.text


def test_outputs_for_classes():
    ids = wordnet_ids()
    assert len(ids) == 1000
    assert [ids[i] for i in outputs_for(NAMES, ids, 1000, "w")] == list(TEN)
    assert outputs_for(["n01440764_tench", "n01443537 goldfish"], ids, 1000, "w") == [0, 1]
    assert outputs_for(["b", "a"], ["a", "b", "c"], 3, "w") == [1, 0]
    assert outputs_for(["x", "y"], None, 2, "w") == [0, 1]
    assert len(by_name()["crane"]) == 2
    for wanted, classes, count, sentence in (
        (["crane"], ids, 1000, 'class "crane" may be n02012849 and n03126707'),
        (["cat"], ["cats", "dog"], 2, 'did you mean "cats"'),
        (["x"], None, 2, "tells 2 classes apart and does not say which"),
        (["chain saw", "n03000684"], ids, 1000, "two classes of the data are one class"),
    ):
        with pytest.raises(UserError, match=sentence):
            outputs_for(wanted, classes, count, "w")


def test_what_has_no_classes_or_record_is_refused(tmp_path):
    torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="has no classifier"):
        read_trained(str(tmp_path / "w.pth"))
    safetensors.torch.save_file(timm.create_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    trained = read_trained(str(tmp_path / "w.safetensors"))
    assert trained.classes == wordnet_ids()
    assert trained.network.record["options"] == {"stem_pool": "pad"}


def test_bulk_arguments():
    assert bulk_arguments(["data=imagenet"]) == ["data=imagenet"]
    assert bulk_arguments(["--bulk", "weights=a.pth,timm:b.c", "x=1"]) == [
        "x=1",
        "weights=['a.pth','timm:b.c']",
    ]
    with pytest.raises(UserError, match="give weights=A,B"):
        bulk_arguments(["--bulk"])


def test_bulk_ends_with_an_interrupt(monkeypatch, tmp_path):
    asked = []

    def interrupted(task: str, run: RunDir, config: object) -> int:
        asked.append(run.path)
        run.update(status="interrupted")
        return 130

    monkeypatch.setattr(jobs, "run_processes", interrupted)
    assert evaluate_all(["a", "b"], lambda spec: (RunDir.create(tmp_path, spec, {}, {}), None)) == 130
    assert len(asked) == 1


@pytest.mark.slow
def test_bulk_ends_in_a_table(command, one_answer, tmp_path):
    root = folders(tmp_path / "data", TEN)
    arguments = (
        "--bulk",
        f"weights={one_answer},{tmp_path}/none.pth",
        "data=imagefolder",
        f"data.root={root}",
    )
    done = command("eval.py", *arguments, "data.workers=0", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "26.67" in done.stdout.splitlines()[-2]
    assert "none.pth: weights" in done.stderr
