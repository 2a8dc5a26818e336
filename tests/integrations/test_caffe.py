"""The authors' Caffe files, written here byte by byte, against timm's port of the same network."""

import struct
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from senet import UserError, create_model
from senet.integrations.caffe import Layer, from_caffe, ilsvrc_class_order, read_caffemodel, reorder
from senet.integrations.peers import PEERS, convert_to, peer
from senet.weights import load_weights

FACTOR = 0.4
"""What the sums of a BatchNorm layer are to be divided by."""


def to_caffe(state: dict[str, Tensor], name: str) -> dict[str, Layer]:
    """Return our weights as the layers of the authors' ``name``: the inverse of ``from_caffe``."""
    theirs = convert_to("caffe", reorder(state, np.argsort(ilsvrc_class_order()).tolist()), name)
    layers: dict[str, Layer] = {}
    for key in theirs:
        layer, _, leaf = key.rpartition(".")
        if leaf == "running_mean":
            blobs = [theirs[key], theirs[f"{layer}.running_var"], torch.ones(1)]
            layers[layer] = Layer("BatchNorm", arrays(blobs))
            scale = [theirs[f"{layer}.weight"], theirs[f"{layer}.bias"]]
            layers[f"{layer}/scale"] = Layer("Scale", arrays(scale))
        elif leaf == "weight" and f"{layer}.running_mean" not in theirs:
            kind = "InnerProduct" if theirs[key].ndim == 2 else "Convolution"
            layers[layer] = Layer(kind, arrays([theirs[k] for k in (key, f"{layer}.bias") if k in theirs]))
    return layers


def arrays(tensors: list[Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().float().cpu().numpy() for tensor in tensors)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob(values: Tensor, legacy: bool = False) -> bytes:
    """A BlobProto; with ``legacy``, its four sizes as fields of their own, as Caffe wrote until 2014."""
    if legacy:
        sizes = (1,) * (4 - values.ndim) + tuple(values.shape)
        shape = b"".join(varint(number << 3) + varint(size) for number, size in enumerate(sizes, start=1))
    else:
        shape = block(7, block(1, b"".join(map(varint, values.shape))))
    return shape + block(5, values.detach().numpy().astype("<f4").tobytes())


def layer(name: str, kind: str, *blobs: Tensor) -> bytes:
    fields = block(1, name.encode()) + block(2, kind.encode()) + block(3, b"data")
    return block(100, fields + b"".join(block(7, blob(values)) for values in blobs))


def authors_name(module: str) -> str:
    """The prototxt's name of a module of timm's port: "layer2.0.conv2" is "conv3_1_3x3"."""
    stem = {"layer0.conv1": "conv1/7x7_s2", "layer0.bn1": "conv1/7x7_s2/bn", "last_linear": "classifier"}
    if module in stem:
        return stem[module]
    stage, index, part = module.split(".", 2)
    parts = {
        "conv1": "1x1_reduce",
        "conv2": "3x3",
        "conv3": "1x1_increase",
        "downsample.0": "1x1_proj",
        "se_module.fc1": "1x1_down",
        "se_module.fc2": "1x1_up",
    }
    bns = {"bn1": "1x1_reduce/bn", "bn2": "3x3/bn", "bn3": "1x1_increase/bn", "downsample.1": "1x1_proj/bn"}
    return f"conv{int(stage[-1]) + 1}_{int(index) + 1}_{(parts | bns)[part]}"


def write_caffemodel(path: Path, theirs: nn.Module) -> None:
    """Write timm's port as the authors would have: BGR, their class order, BN as sums and Scale layers."""
    out = block(1, b"SE-ResNet-50")
    order = torch.tensor(ilsvrc_class_order())
    for module, part in theirs.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            name = authors_name(module)
            sums = (FACTOR * part.running_mean, FACTOR * part.running_var, torch.tensor([FACTOR]))
            out += layer(name, "BatchNorm", *sums) + layer(f"{name}/scale", "Scale", part.weight, part.bias)
        elif isinstance(part, nn.Conv2d):
            weight = part.weight.flip(1) if module == "layer0.conv1" else part.weight
            bias = () if part.bias is None else (part.bias,)
            out += layer(authors_name(module), "Convolution", weight, *bias)
        elif isinstance(part, nn.Linear):
            weight, bias = torch.empty_like(part.weight), torch.empty_like(part.bias)
            if len(weight) == len(order):
                weight[order], bias[order] = part.weight, part.bias
            else:
                weight, bias = part.weight, part.bias
            out += layer("classifier", "InnerProduct", weight, bias)
    path.write_bytes(out + layer("prob", "Softmax"))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("legacy_seresnet50").eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def caffemodel(theirs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("caffe") / "SE-ResNet-50.caffemodel"
    write_caffemodel(path, theirs)
    return path


def test_a_caffemodel_gives_the_logits_of_timms_port(theirs, caffemodel):
    ours = create_model("se_resnet50").eval()
    record = load_weights(f"caffe:{caffemodel}", ours)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    assert record.model == peer("caffe", "SE-ResNet-50").build().record | {"options": {"stride_on": "1x1"}}
    assert "flipped from BGR" in record.changes[0]
    assert record.class_order == "sorted WordNet ids"
    # (image - BGR mean), undivided, in terms of our 0..1 RGB images.
    pixel = np.array([10.0, 20.0, 30.0])
    images = record.preprocessing
    normalised = (pixel / 255 - images.mean) / images.std
    np.testing.assert_allclose(normalised, [10 - 123, 20 - 117, 30 - 104])


def test_another_stride_variant_is_refused(caffemodel):
    ours = create_model("se_resnet50", stride_on="3x3")
    with pytest.raises(UserError, match=r"needs stride_on=1x1.*set model\.stride_on=1x1"):
        load_weights(f"caffe:{caffemodel}", ours)


def test_another_network_is_refused_by_its_layers(caffemodel):
    with pytest.raises(UserError, match="needs"):
        load_weights(f"caffe:{caffemodel}", create_model("se_resnext50_32x4d"))
    with pytest.raises(
        UserError, match="no Caffe weights for resnet50; the authors released SE-BN-Inception"
    ):
        load_weights(f"caffe:{caffemodel}", create_model("resnet50"))


@pytest.mark.parametrize("name", PEERS["caffe"])
def test_every_released_network_goes_there_and_back(name):
    with torch.device("meta"):
        network = peer("caffe", name).build()
    state = {
        key: torch.zeros(()) if value.ndim == 0 else torch.zeros(1).expand(value.shape)
        for key, value in network.state_dict().items()
    }
    layers = to_caffe(state, name)
    back = from_caffe(layers, name)
    assert {key: value.shape for key, value in back.items()} == {k: v.shape for k, v in state.items()}
    assert sum(name.endswith("/bn/scale") for name in layers) == sum(
        isinstance(module, nn.BatchNorm2d) for module in network.modules()
    )


def test_numbers_survive_there_and_back():
    network = create_model("se_bn_inception")
    state = network.state_dict()
    back = from_caffe(to_caffe(state, "SE-BN-Inception"), "SE-BN-Inception")
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_ilsvrc_ids_are_a_permutation_of_the_sorted_ones():
    order = ilsvrc_class_order()
    assert sorted(order) == list(range(1000))
    # The development kit's ids, from 1: tench 449, sea snake 490 (the first validation image), kit fox 1.
    assert order[0] == 449 - 1
    assert order[65] == 490 - 1
    assert order[278] == 1 - 1


def test_old_sizes_and_old_layers(tmp_path):
    path = tmp_path / "net.caffemodel"
    values = torch.arange(6.0).view(2, 3)
    content = block(1, b"fc") + block(2, b"InnerProduct") + block(7, blob(values, legacy=True))
    path.write_bytes(block(100, content))
    (read,) = read_caffemodel(path)["fc"].blobs
    assert read.shape == (1, 1, 2, 3)
    path.write_bytes(block(2, block(4, b"conv1")))
    with pytest.raises(UserError, match="upgrade_net_proto_binary"):
        read_caffemodel(path)


@pytest.mark.parametrize("damage", [b"\x0a\xff", b"not a network at all", b""])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(damage)
    with pytest.raises(UserError, match=str(path)):
        read_caffemodel(path)


def test_a_blob_of_the_wrong_size_is_refused(tmp_path):
    path = tmp_path / "net.caffemodel"
    short = block(7, block(1, varint(9))) + block(5, struct.pack("<2f", 1, 2))
    path.write_bytes(block(100, block(1, b"conv1") + block(7, short)))
    with pytest.raises(UserError, match=r"conv1 has 2 values for a blob of shape \[9\]"):
        read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (block(7, block(7, block(1, varint(1))) + block(5, b"12345")), "conv1 is cut off within a number"),
        (block(2, b"Scale") + block(7, blob(torch.ones(4))), r"conv1 \(Scale\) has 1 blobs, not 2"),
        (
            block(2, b"BatchNorm") + 2 * block(7, blob(torch.ones(4))),
            r"conv1 \(BatchNorm\) has 2 blobs, not 3",
        ),
    ],
)
def test_a_layer_that_lacks_something_is_refused(tmp_path, content, words):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(block(100, block(1, b"conv1") + content))
    with pytest.raises(UserError, match=words):
        from_caffe(read_caffemodel(path), "SE-ResNet-50")


def test_batchnorm_without_statistics_is_read_as_caffe_does():
    layers = to_caffe(create_model("se_bn_inception").state_dict(), "SE-BN-Inception")
    bn = "conv1/7x7_s2/bn"
    mean, variance, _ = layers[bn].blobs
    layers[bn] = Layer("BatchNorm", (mean + 1, variance + 1, np.zeros(1, np.float32)))
    state = from_caffe(layers, "SE-BN-Inception")
    assert not state["stem.0.bn.running_mean"].any()
    assert not state["stem.0.bn.running_var"].any()
