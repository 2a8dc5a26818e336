"""``senet predict`` and ``senet export``: the same numbers as the network here, whoever computes them."""

import csv
import io
import json
import os
import sys
from functools import partial
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from PIL import Image

import senet.integrations.timm  # noqa: F401 (our networks in timm's registry)
from senet import SEConfig, UserError, create_model
from senet.cli import main
from senet.data import Preprocessing
from senet.data.files.decoders import build_decoder
from senet.integrations import hub
from senet.integrations.export import compare
from senet.integrations.model_card import model_card
from senet.predict import load
from senet.weights.trained import read_trained

PRE = Preprocessing(32, 40)


def checkpoint(file: Path, name: str = "se_resnet20", **options: object) -> Path:
    """Write a made-up checkpoint with BN statistics that are not those of a new network."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, **options)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(8, 3, 32, 32))
        torch.nn.init.normal_(network.classifier().weight, std=0.5)
    record = {
        "config": {
            "model": {"name": name, "weights": "/somewhere/released.pth"},
            "data": {"name": "imagefolder", "root": "/nowhere", "batch_size": 2, "val_fraction": 0.2},
            "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 1e-4, "trunk_lr": 0.1},
            "schedule": {"name": "cosine"},
            "trainer": {"max_epochs": 3},
            "seed": 0,
        },
        "model": network.record,
        "preprocessing": PRE.to_dict(),
        "classes": ["cat", "dog, wild", "ox"],
    }
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"senet": record, "state_dict": state, "global_step": 7}, file)
    return file


@pytest.fixture
def folder(image_tree: Path, tmp_path: Path) -> Path:
    root = tmp_path / "photographs"
    (root / "more").mkdir(parents=True)
    for index, file in enumerate(sorted((image_tree / "train").rglob("*.jpg"))[:7]):
        Image.open(file).save(root / ("more" if index % 2 else ".") / f"{index}.png")
    return root


def expected(file: Path, photographs: list[str]) -> torch.Tensor:
    trained = read_trained(str(file))
    decoder = build_decoder("reference", "RGB")
    pixels = torch.stack([load((0, name), decoder, PRE)[1] for name in photographs])
    with torch.no_grad():
        return trained.network(PRE.normalise(pixels)).softmax(1)


def test_predict_in_every_format(folder, tmp_path, capsys):
    file = checkpoint(tmp_path / "last.ckpt")
    arguments = ["predict", str(file), str(folder), "--workers", "0", "--top", "2", "--batch-size", "3"]
    assert main([*arguments, "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    images = [row["image"] for row in rows]
    assert images == sorted(map(str, folder.rglob("*.png")))
    best = expected(file, images).topk(2)
    assert [[guess["index"] for guess in row["top"]] for row in rows] == best.indices.tolist()
    told = torch.tensor([[guess["probability"] for guess in row["top"]] for row in rows])
    torch.testing.assert_close(told, best.values, rtol=0, atol=2e-6)
    assert main([*arguments, "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == 14
    assert {row["class"] for row in table} <= {"cat", "dog, wild", "ox"}
    assert main(arguments) == 0
    assert " % " in capsys.readouterr().out


def test_predict_goes_on_over_broken_files(folder, tmp_path, capsys, monkeypatch):
    file = checkpoint(tmp_path / "last.ckpt")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    assert main(["predict", str(file), f"{folder}/*", str(folder), "--workers", "0"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 7
    assert "broken.jpg" in captured.err
    assert "1 of 8 images could not be read" in captured.err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/0.png\n\n{folder}/gone.png\n"))
    assert main(["predict", str(file), "-", "--workers", "0"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{folder}/0.png")
    assert "gone.png (FileNotFoundError" in captured.err
    (folder / "more" / "lost.png").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}\n"))
    assert main(["predict", str(file), "-", "--workers", "0"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 7
    assert "lost.png (FileNotFoundError" in captured.err
    for words, sentence in (
        ([str(folder), "--output", str(tmp_path / "no/such.csv")], "no/such.csv: No such file or directory"),
        ([str(tmp_path / "nothing")], "no such file, folder or match"),
        ([str(folder), "--top", "0"], "--top 0 must be 1 or more"),
        ([str(folder), "--device", "cuda:77"], "there is none here"),
    ):
        assert main(["predict", str(file), *words]) == 2
        assert sentence in capsys.readouterr().err


def test_names_are_written_as_they_are_on_the_disk(folder, tmp_path):
    """A name that is no UTF-8 leads back to its file, whatever the format."""
    checkpoint(tmp_path / "last.ckpt")
    odd, out = os.fsencode(folder) + b"/caf\xe9 \xe7\x8c\xab.png", tmp_path / "out"
    os.rename(folder / "0.png", odd)
    for form in ("csv", "jsonl", "table"):
        words = ["--workers", "0", "--top", "1", "--format", form, "--output", str(out)]
        assert main(["predict", str(tmp_path / "last.ckpt"), os.fsdecode(odd), *words]) == 0
        text = out.read_text(encoding="utf-8", errors="surrogateescape")
        if form == "csv":
            name = next(csv.DictReader(io.StringIO(text)))["image"]
        elif form == "jsonl":
            name = json.loads(out.read_bytes().decode())["image"]
            assert "猫" in text
        else:
            name = text.partition("  ")[0]
        assert os.fsencode(name) == odd


EXPORTS = {
    "onnx": lambda out: (
        lambda x: torch.from_numpy(
            onnxruntime.InferenceSession(out / "model.onnx").run(None, {"images": x.numpy()})[0]
        )
    ),
    "torch": lambda out: torch.export.load(out / "model.pt2").module(),
    "timm": lambda out: timm.create_model(f"local-dir:{out}", pretrained=True).eval(),
}


@pytest.mark.slow
@pytest.mark.parametrize(("to", "fold"), [("onnx", False), ("onnx", True), ("torch", True), ("timm", False)])
def test_an_export_is_the_same_network(folder, tmp_path, capsys, to, fold):
    file, out = checkpoint(tmp_path / "last.ckpt", se=SEConfig(reduction=4)), tmp_path / "out"
    words = ["export", str(file), "--to", to, "--output", str(out), "--images", str(folder)]
    assert main(words + ["--fold"] * fold) == 0, capsys.readouterr().err
    assert "the same class for 7 images" in capsys.readouterr().out
    network, theirs = read_trained(str(file)).network, EXPORTS[to](out)
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(theirs(images), network(images), rtol=1e-4, atol=1e-4)
    card = (out / "README.md").read_text()
    for said in ("se_resnet20", "r = 4", "shorter side to 40 px", "dog, wild", "sgd, lr 0.1",
                 "started from: released.pth; trunk at 0.1 of", "20% of each class, held out"):  # fmt: skip
        assert said in card


def test_timms_own_architecture_where_it_is_the_same(folder, tmp_path):
    file, out = checkpoint(tmp_path / "last.ckpt", "resnet18", stem_pool="pad"), tmp_path / "out"
    assert main(["export", str(file), "--to", "timm", "--output", str(out), "--images", str(folder)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    again = read_trained(str(out))
    assert again.classes == ("cat", "dog, wild", "ox")
    assert again.preprocessing == PRE
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again.network(images), read_trained(str(file)).network(images))


def test_a_trunk_of_timms_goes_back_to_timm(folder, tmp_path, capsys):
    file, out = checkpoint(tmp_path / "last.ckpt", "timm", timm_name="resnet10t.c3_in1k"), tmp_path / "out"
    words = ["--to", "timm", "--output", str(out), "--images", str(folder)]
    assert main(["export", str(file), *words]) == 0, capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["architecture"] == "resnet10t"
    theirs, images = timm.create_model(f"local-dir:{out}", pretrained=True).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), read_trained(str(file)).network(images))
    checkpoint(file, "se_timm", timm_name="resnet10t", se=SEConfig())
    assert main(["export", str(file), *words]) == 2
    assert "timm knows no SE attached to its own networks" in capsys.readouterr().err


def test_the_card_names_a_rival_with_what_it_depends_on(tmp_path):
    for block, line in (
        ("eca", "- eca: standard"),
        ("gc", "- gc: r = 4, standard"),
        ("se", "- SE: r = 4, standard, avg, sigmoid"),
    ):
        trained = read_trained(
            str(
                checkpoint(
                    tmp_path / "last.ckpt", se=SEConfig(block=block, reduction=4 if block != "eca" else 16)
                )
            )
        )
        assert line in model_card(trained, tmp_path, "", "timm").splitlines()


def test_exports_are_refused(tmp_path, capsys):
    file, out = checkpoint(tmp_path / "last.ckpt"), tmp_path / "out"
    assert main(["export", str(file), "--to", "onnx", "--output", str(out)]) == 2
    assert "give --images FOLDER" in capsys.readouterr().err
    assert main(["export", str(file), "--to", "timm", "--fold"]) == 2
    network = read_trained(str(file)).network

    def other(images: torch.Tensor) -> torch.Tensor:
        return network(images) + torch.tensor([0.0, 0.01, 0.0])

    other.file = out
    with pytest.raises(UserError, match="is not the same network"):
        compare(network, other, torch.randn(4, 3, 32, 32))


def test_a_folder_is_pushed(folder, tmp_path, capsys, monkeypatch):
    file, out = checkpoint(tmp_path / "last.ckpt"), tmp_path / "out"
    pushed = []

    class Api:
        def create_repo(self, name: str, **_: object) -> None:
            pushed.append(name)

        def upload_folder(self, repo_id: str, folder_path: Path) -> str:
            pushed.append(folder_path)
            return f"hub/{repo_id}"

    monkeypatch.setattr(hub.huggingface_hub, "HfApi", Api)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    words = ["export", str(file), "--to", "torch", "--output", str(out), "--images", str(folder)]
    assert main([*words, "--push", "me/net"]) == 0
    assert pushed == ["me/net", out]
    assert "pushed    hub/me/net" in capsys.readouterr().out


def test_what_cannot_be_pushed_is_said_before_the_export(tmp_path, capsys, monkeypatch):
    words = ["export", str(tmp_path / "none.ckpt"), "--to", "torch", "--push"]  # not even read
    monkeypatch.setattr(hub.huggingface_hub, "get_token", lambda: None)
    assert main([*words, "me/net"]) == 2
    assert "no token of the Hub here: hf auth login" in capsys.readouterr().err
    for name in ("net", "/net", "me/", "me/net/more"):
        assert main([*words, name]) == 2
        assert f"--push {name}: give OWNER/NAME" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "senet.integrations.hub")
    assert main([*words, "me/net"]) == 2
    assert "--push needs the huggingface_hub package: install" in capsys.readouterr().err


def test_a_hub_that_does_not_answer_is_one_line(tmp_path, monkeypatch):
    nobody = partial(hub.huggingface_hub.HfApi, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(hub.huggingface_hub, "HfApi", nobody)
    with pytest.raises(
        UserError, match=r"--push me/net: the Hub .* was not reached \(.*\); what was written stays in"
    ):
        hub.push(tmp_path, "me/net")


@pytest.mark.slow
def test_a_run_is_exported_by_its_own_images(train, capsys):
    run = train("debug=one_batch", "trainer.max_epochs=1")
    assert main(["export", str(run), "--to", "torch"]) == 0
    assert "the same class for 200 images" in capsys.readouterr().out
    card = (run / "export_torch" / "README.md").read_text()
    assert "validation images (95 % interval" in card
    assert "channels → hidden: 16 → 1, 32 → 2, 64 → 4" in card
