"""Gates streamed in one pass against gates computed by hand and kept."""

import csv
import warnings
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from senet import SEConfig, UserError, create_model
from senet.analysis.canvas import save_png
from senet.analysis.gate_statistics import (
    ClassStatistics,
    collect_gates,
    dead_units,
    panels,
    paper_panels,
    sampled_channels,
    saturation,
    watch_hidden,
)
from senet.analysis.gates import (
    choose_classes,
    class_means,
    configure,
    run,
    saturation_text,
    within_class,
    write,
)
from senet.analysis.paper import figure6
from senet.data import DigitsConfig, Preprocessing
from senet.data.files.folder import scan
from senet.data.tools.pack import PackOptions, pack


def test_one_pass_equals_two_passes():
    generator = torch.Generator().manual_seed(0)
    # Saturated gates: a naive sum of squares would lose the sd of 1e-7 that they have.
    values = 1 - 1e-7 * torch.rand(500, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (500,), generator=generator)
    labels[labels == 2] = 3  # a class without images
    found = ClassStatistics(4, 6)
    for part in torch.split(torch.arange(500), 37):
        found.update(values[part], labels[part])
    x, y = values.numpy(), labels.numpy()
    for k in (0, 1, 3):
        assert found.count[k] == (y == k).sum()
        np.testing.assert_allclose(found.mean[k], x[y == k].mean(0), rtol=1e-14)
        np.testing.assert_allclose(found.sd[k], x[y == k].std(0), rtol=1e-6)
    mean, sd = found.overall()
    np.testing.assert_allclose(mean, np.mean([x[y == k].mean(0) for k in (0, 1, 3)], 0), rtol=1e-14)
    np.testing.assert_allclose(sd, x.std(0), rtol=1e-6)


def by_hand(network, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Gates from the squeezed maps and the two matrices of each block (Eq. 3), in float64."""
    gates = {}

    def keep(name):
        def hook(excitation, inputs):
            z = inputs[0].double().flatten(1)
            w1, w2 = (fc.weight.double().flatten(1) for fc in (excitation.fc1, excitation.fc2))
            b1, b2 = excitation.fc1.bias.double(), excitation.fc2.bias.double()
            gates[name] = torch.sigmoid(F.relu(z @ w1.T + b1) @ w2.T + b2).numpy()

        return hook

    handles = [
        se.excitation.register_forward_pre_hook(keep(name)) for name, se in network.se_blocks().items()
    ]
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    return gates


def lively(**options):
    """A small network whose gates are far from 1/2."""
    torch.manual_seed(0)
    network = create_model("se_resnet20", se=SEConfig(reduction=4), **options)
    for se in network.se_blocks().values():
        torch.nn.init.normal_(se.excitation.fc2.bias, std=2.0)
        se.excitation.fc2.weight.data *= 5
    return network


def test_every_block_class_and_channel():
    network = lively(num_classes=3)
    images, labels = torch.randn(23, 3, 8, 8), torch.randint(0, 3, (23,))
    batches = [(images[i : i + 5], labels[i : i + 5]) for i in range(0, 23, 5)]
    found = collect_gates(network, batches, 3)
    expected = by_hand(network, images)
    assert (
        list(found) == list(expected) == [f"SE_{stage}_{block}" for stage in (2, 3, 4) for block in (1, 2, 3)]
    )
    for name, gates in expected.items():
        for k in range(3):
            mine = gates[labels.numpy() == k]
            np.testing.assert_allclose(found[name].mean[k], mine.mean(0), atol=1e-6)
            np.testing.assert_allclose(found[name].sd[k], mine.std(0), atol=1e-6)
        row = saturation(name, found[name])
        means = np.stack([gates[labels.numpy() == k].mean(0) for k in range(3)])
        overall = means.mean(0)
        assert row.channels == gates.shape[1]
        assert row.mean == pytest.approx(overall.mean(), abs=1e-6)
        assert row.class_sd == pytest.approx(means.std(0).mean(), abs=1e-6)
        assert row.image_sd == pytest.approx(gates.std(0).mean(), abs=1e-6)
        assert row.dead == pytest.approx((overall < 0.05).mean())
        assert row.always_on == pytest.approx((overall > 0.95).mean())
        assert row.identity == pytest.approx(np.sqrt(((gates - 1) ** 2).mean()), abs=1e-6)
    assert sum(saturation(n, s).dead for n, s in found.items()) > 0
    with torch.no_grad():
        network(images)  # no hook is left behind
    assert found["SE_2_1"].count.sum() == 23


def test_gates_that_are_maps_and_networks_without():
    network = create_model("se_resnet20", se=SEConfig(squeeze="none"), num_classes=2)
    found = collect_gates(network, [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))], 2)
    assert found["SE_4_3"].mean.shape == (2, 64)
    with pytest.raises(UserError, match="no SE block"):
        collect_gates(create_model("resnet20"), [], 10)


@pytest.mark.parametrize("block", ["eca", "cbam", "ge", "gc", "highway"])
@torch.inference_mode()
def test_rivals_with_a_gate_per_channel(block: str):
    """Seen from outside: what a channel was multiplied by, of a block that only scales."""
    torch.manual_seed(0)
    network = create_model("se_resnet20", se=SEConfig(block=block), num_classes=2).eval()
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
    seen = {}

    def keep(module, inputs, output):
        seen["in"], seen["out"] = inputs, output.clone()  # a ReLU in place follows a highway gate

    rival = network.se_blocks()["SE_4_3"]
    rival.register_forward_hook(keep)
    found = collect_gates(network, [(images, labels)], 2)
    x, scaled = seen["in"][0], seen["out"]
    if block == "highway":  # of scaled = t x + (1 - t) shortcut
        x, scaled = x - seen["in"][1], scaled - seen["in"][1]
    elif block == "cbam":  # whose spatial half scales all channels alike
        scaled = rival.inner.channel(x)
    gate = (scaled / x).mean((2, 3))
    expected = torch.stack([gate[labels == label].mean(0) for label in (0, 1)])
    torch.testing.assert_close(found["SE_4_3"].mean.float(), expected, rtol=1e-2, atol=1e-3)
    row = saturation("SE_4_3", found["SE_4_3"])
    assert (row.hidden, row.dead_hidden) == (None, None)
    with pytest.raises(UserError, match=r"se\.block=gca has no gate per channel"):
        collect_gates(create_model("se_resnet20", se=SEConfig(block="gca")), [], 10)


def test_hidden_units_that_never_fire_are_counted():
    network = lively(num_classes=3)
    blocks = network.se_blocks()
    torch.nn.init.constant_(blocks["SE_3_2"].excitation.fc1.bias, -1e3)  # all eight
    blocks["SE_4_1"].excitation.fc1.bias.data[:3] = -1e3
    for name, block in blocks.items():
        if name != "SE_3_2":
            torch.nn.init.constant_(block.excitation.fc1.bias[3:], 1e3)
            torch.nn.init.constant_(block.excitation.fc1.bias[:3], -1e3 if name == "SE_4_1" else 1e3)
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    found = collect_gates(network, [(images[:4], labels[:4]), (images[4:], labels[4:])], 3)
    rows = {name: saturation(name, statistics) for name, statistics in found.items()}
    assert {name: row.dead_hidden for name, row in rows.items() if row.dead_hidden} == {
        "SE_3_2": 8,
        "SE_4_1": 3,
    }
    assert rows["SE_3_2"].hidden == 8
    assert rows["SE_3_2"].image_sd == pytest.approx(0, abs=1e-7)
    words = dead_units({name: statistics.fired for name, statistics in found.items()}, 6)
    assert words == (
        "11 of 84 hidden units never fired on 6 validation images; the gate is constant in SE_3_2"
    )
    fires_once = lively(num_classes=3)
    with torch.no_grad(), watch_hidden(fires_once) as fired:
        fires_once.eval()(images)
    assert not any(module._forward_hooks for module in fires_once.modules())
    assert fired["SE_2_1"].shape == (4,)


def test_entropy_of_a_gate_is_that_of_its_histogram():
    found = ClassStatistics(2, 3)
    values = torch.tensor([[0.5, 0.1, 0.01], [0.5, 0.9, 0.26], [0.5, 0.1, 0.51], [0.5, 0.9, 0.76]])
    found.update(values[:3], torch.tensor([0, 1, 1]))
    found.update(values[3:], torch.tensor([0]))
    assert found.entropy == pytest.approx((0 + 1 + 2) / 3)  # one value, two, and four, equally often
    found.update(-values, torch.tensor([0, 0, 1, 1]))  # as a tanh may be
    assert found.entropy is None


def test_figure6_shows_what_the_paper_shows():
    blocks = {2: 3, 3: 4, 4: 6, 5: 3}  # of SE-ResNet-50
    assert panels(f"SE_{s}_{b}" for s, n in blocks.items() for b in range(1, n + 1)) == list(figure6())
    for block, curves in figure6().items():
        assert [channel + 1 for channel in sampled_channels(128 * 2 ** (int(block[3]) - 1))] == curves[
            "index"
        ]


def test_paper_statistics_as_published():
    rounded = {name: (round(p.mean, 3), round(p.class_sd, 4)) for name, p in paper_panels().items()}
    means = {
        "SE_2_3": 0.396,
        "SE_3_4": 0.418,
        "SE_4_6": 0.341,
        "SE_5_1": 0.613,
        "SE_5_2": 0.975,
        "SE_5_3": 0.159,
    }
    sds = {
        "SE_2_3": 0.017,
        "SE_3_4": 0.019,
        "SE_4_6": 0.082,
        "SE_5_1": 0.136,
        "SE_5_2": 0.0003,
        "SE_5_3": 0.092,
    }
    for name, (mean, sd) in rounded.items():
        assert mean == pytest.approx(means[name], abs=0.001)
        assert sd == pytest.approx(sds[name], abs=0.0006)
    found = ClassStatistics(4, 256)
    found.update(torch.rand(8, 256), torch.arange(8) % 4)
    text = saturation_text([saturation("SE_2_3", found)], {"SE_2_3": 0.0123}, paper=True)
    groups = text.splitlines()[2].split("|")
    assert [group.split() for group in groups[1:]] == [["0.0123"], ["0.396", "0.0171"]]


def test_classes_to_show():
    letters = list("abcdefghij")
    assert choose_classes(None, letters) == {"a": 0, "d": 3, "g": 6, "j": 9}
    assert choose_classes("b, a", letters) == {"b": 1, "a": 0}
    imagenet = ["n01440764", "n01443537", "n02110958", "n02690373", "n09246464"]
    assert list(choose_classes(None, imagenet).values()) == [1, 3, 2, 4]
    assert choose_classes("goldfish,n02110958", imagenet) == {"n01443537": 1, "n02110958": 2}
    with pytest.raises(UserError, match='did you mean "n01440764"'):
        choose_classes("n0144076", imagenet)


def test_a_class_without_images_is_not_drawn_as_gates_of_zero(tmp_path: Path):
    statistics = ClassStatistics(3, 4)
    statistics.update(torch.rand(8, 4), torch.arange(8) % 2)
    with pytest.raises(UserError, match="no validation image of c:"):
        write({"SE_2_1": statistics}, {"a": 0, "c": 2}, tmp_path / "out", paper=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_command(tmp_path: Path, capsys):
    network = lively(num_classes=10, in_channels=1)
    preprocessing = Preprocessing(size=8, resize=None, mean=(0.3,), std=(0.4,), colour="L")
    data = {"name": "digits", "preprocessing": preprocessing.to_dict(), "batch_size": 50}
    record = {
        "config": {"data": data},
        "model": network.record,
        "preprocessing": preprocessing.to_dict(),
        "classes": [str(digit) for digit in range(10)],
        "selected_by": "raw",
    }
    (tmp_path / "checkpoints").mkdir()
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"senet": record, "state_dict": state}, tmp_path / "checkpoints" / "best.ckpt")
    parser = ArgumentParser()
    configure(parser)
    assert run(parser.parse_args([str(tmp_path), "--classes", "3,7"])) == 0
    said = capsys.readouterr().out
    assert "se_resnet20, best checkpoint, raw weights" in said
    assert f"of {3 * (4 + 8 + 16)} hidden units never fired on 360 validation images" in said
    assert run(parser.parse_args([str(tmp_path), str(tmp_path)])) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    with (tmp_path / "gates" / "saturation.csv").open(newline="") as file:
        entropy = np.mean([float(row["entropy"]) for row in csv.DictReader(file)])
    assert [line.split()[1:3] for line in lines] == [["4", f"{entropy:.4f}"]] * 2
    assert run(parser.parse_args([str(tmp_path), "--classes", "3,7"])) == 0
    split = DigitsConfig().open("val", preprocessing, None)
    pictures = preprocessing.normalise(split.images)
    gates, labels = by_hand(network, pictures)["SE_4_3"], split.labels.numpy()
    with (tmp_path / "gates" / "gates.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["block"] == "SE_4_3"]
    assert [row["class"] for row in rows] == ["3"] * 64 + ["7"] * 64 + ["all"] * 64
    assert rows[-1]["images"] == str(len(labels))
    for row in rows[:128]:
        mine = gates[labels == int(row["class"]), int(row["channel"]) - 1]
        assert float(row["mean"]) == pytest.approx(mine.mean(), abs=1e-5)
        assert float(row["sd"]) == pytest.approx(mine.std(), abs=1e-5)
    for name in ("figure6.png", "figure7.png"):
        assert (tmp_path / "gates" / name).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "gates" / "saturation.csv").open(newline="") as file:
        assert [row["block"] for row in csv.DictReader(file)] == list(network.se_blocks())
    with pytest.raises(UserError, match="has no folder"):
        run(parser.parse_args([str(tmp_path), "--root", "elsewhere"]))


@pytest.mark.slow
def test_gates_of_packed_images_are_those_of_the_folder(train, image_tree: Path, tmp_path: Path):
    """A pack keeps the files' bytes; both say the same of every channel."""
    pack({split: scan(image_tree / split) for split in ("train", "val")}, tmp_path / "pack", PackOptions(), 1)
    one = (
        "debug=one_batch",
        "data.batch_size=2",
        "recipe=cifar",
        "data.preprocessing.size=32",
        "data.workers=0",
    )
    found = []
    for name, root in (("imagefolder", image_tree), ("packed", tmp_path / "pack")):
        folder = ("data.in_memory=false",) if name == "imagefolder" else ()
        trained = train(f"data={name}", f"data.root={root}", "data.preprocessing.resize=36", *one, *folder)
        parser = ArgumentParser()
        configure(parser)
        assert run(parser.parse_args([str(trained), "--which", "last"])) == 0
        found.append((trained / "gates" / "gates.csv").read_text())
    assert found[0] == found[1]
    assert "cat" in found[0]


def test_every_name_is_in_the_figures_whole(tmp_path: Path):
    names = ["x" * 60, "猫 🐈", "_10 of $5$", "golden retriever, of some length in words"]
    found = ClassStatistics(4, 8)
    found.update(torch.rand(8, 8), torch.arange(8) % 4)
    for draw in (class_means, within_class):
        figure = draw({"SE_2_1": found}, {name: index for index, name in enumerate(names)})
        save_png(figure, tmp_path / "figure.png")  # a letter that no font has is no warning
        (legend,) = figure.legends
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # measuring looks for the letter again
            extent = legend.get_window_extent()
        assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        written = {"".join(text.get_text().split()).replace("\\", "") for text in legend.get_texts()} - {
            "all"
        }
        assert written == {name.replace(" ", "") for name in names}
