"""The authors' Caffe files, ``caffe:FILE.caffemodel``: to layers of arrays, and layers to our weights."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.integrations.peers import PEERS, convert_from, peer
from senet.weights.read import existing_file
from senet.weights.record import CLASS_ORDER, WeightRecord, Weights

CHANGES = (
    "first convolution flipped from BGR to RGB",
    "BN scale factors and Scale layers folded into BN",
    "classes reordered from ILSVRC2012 ids to sorted WordNet ids",
)
# 0..255 BGR images minus (104, 117, 123), undivided: the same numbers from RGB images in 0..1.
PREPROCESSING = Preprocessing(224, 256, "bilinear", (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3)

BLOBS = {"BatchNorm": (3,), "Scale": (2,), "Convolution": (1, 2), "InnerProduct": (1, 2)}
"""How many arrays a layer has that is read here; a bias may be missing."""

_Field = descriptor_pb2.FieldDescriptorProto
# The part of caffe.proto that weights need: message -> (field, number, type, repeated). An array of numbers
# and a string of bytes look alike in the file, so ``data`` is declared as bytes and read without a copy.
_MESSAGES: dict[str, tuple[tuple[str, int, Any, bool], ...]] = {
    "BlobShape": (("dim", 1, _Field.TYPE_INT64, True),),
    "BlobProto": (
        ("num", 1, _Field.TYPE_INT32, False),
        ("channels", 2, _Field.TYPE_INT32, False),
        ("height", 3, _Field.TYPE_INT32, False),
        ("width", 4, _Field.TYPE_INT32, False),
        ("data", 5, _Field.TYPE_BYTES, False),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, _Field.TYPE_BYTES, False),
    ),
    "LayerParameter": (
        ("name", 1, _Field.TYPE_STRING, False),
        ("type", 2, _Field.TYPE_STRING, False),
        ("blobs", 7, "BlobProto", True),
    ),
    "OldLayer": (("name", 4, _Field.TYPE_STRING, False),),
    "NetParameter": (
        ("name", 1, _Field.TYPE_STRING, False),
        ("layers", 2, "OldLayer", True),
        ("layer", 100, "LayerParameter", True),
    ),
}


def read(name: str, model: Mapping[str, Any]) -> Weights:
    """Read the file ``name`` for a network with record ``model``; see ``senet.weights.load_weights``."""
    path = existing_file(name)
    layers = read_caffemodel(path)
    theirs = caffe_name(model["name"]) if model else _recognise(layers, path)
    state = from_caffe(layers, theirs)
    record = peer("caffe", theirs).record(state)
    imagenet = record["num_classes"] == len(ilsvrc_class_order())
    order, changes = (CLASS_ORDER, CHANGES) if imagenet else (None, CHANGES[:-1])
    return Weights(state, WeightRecord(f"caffe:{path}", record, PREPROCESSING, order, changes))


class Layer(NamedTuple):
    """A Caffe layer that has weights: its type and its blobs (float32)."""

    type: str
    blobs: tuple[np.ndarray[Any, np.dtype[np.float32]], ...]


@cache
def _net_parameter() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="caffe_weights")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = described.field.add(name=name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".caffe_weights.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe_weights.NetParameter"))


def _array(blob: Any, layer: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    data, kind = (blob.data, "<f4") if blob.data else (blob.double_data, "<f8")
    if len(data) % np.dtype(kind).itemsize:
        raise UserError(f"the Caffe layer {layer} is cut off within a number: the file is damaged")
    values = np.frombuffer(data, kind).astype(np.float32, copy=False)
    if values.size != np.prod(shape):
        raise UserError(f"the Caffe layer {layer} has {values.size} values for a blob of shape {shape}")
    return values.reshape(shape)


def read_caffemodel(path: Path) -> dict[str, Layer]:
    """Return the layers of a ``.caffemodel`` that have weights, by name.

    Raises:
        UserError: if the file is not one, is in the format of 2014 or older, or has no weights.
    """
    net = _net_parameter()()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path} cannot be read as a .caffemodel: it is damaged or something else") from error
    layers = {
        layer.name: Layer(layer.type, tuple(_array(blob, layer.name) for blob in layer.blobs))
        for layer in net.layer
        if layer.blobs
    }
    if not layers:
        old = "its layers are in Caffe's old format: run upgrade_net_proto_binary on it first"
        raise UserError(f"{path}: {old if net.layers else 'no layer has weights'}")
    return layers


def _fold(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Return parameters by Caffe's layer names, BatchNorm and Scale layers as one BN each."""
    state: dict[str, Tensor] = {}
    for name, layer in layers.items():
        counts = BLOBS.get(layer.type, ())
        if counts and len(layer.blobs) not in counts:
            raise UserError(
                f"the Caffe layer {name} ({layer.type}) has {len(layer.blobs)} blobs, not {counts[-1]}"
            )
        blobs = [torch.from_numpy(blob.copy()) for blob in layer.blobs]
        if layer.type == "BatchNorm":
            # Sums of the moving average and their common weight; Caffe reads a weight of 0 as no statistics.
            mean, variance, weight = (blob.flatten() for blob in blobs)
            factor = 0.0 if weight.item() == 0 else 1 / weight.item()
            state[f"{name}.running_mean"], state[f"{name}.running_var"] = mean * factor, variance * factor
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)
        elif layer.type == "Scale":
            bn = name.removesuffix("/scale")
            state[f"{bn}.weight"], state[f"{bn}.bias"] = (blob.flatten() for blob in blobs)
        elif layer.type in ("Convolution", "InnerProduct"):
            state |= {f"{name}.{leaf}": blob for leaf, blob in zip(("weight", "bias"), blobs, strict=False)}
        else:
            raise UserError(f"the Caffe layer {name} has weights of a type not known here: {layer.type}")
    return state


def caffe_name(model: str) -> str:
    """Return the authors' name of our network ``model``.

    Raises:
        UserError: if they released no such network.
    """
    for name, match in PEERS["caffe"].items():
        if match.model == model:
            return name
    raise UserError(
        f"there are no Caffe weights for {model}; the authors released {', '.join(PEERS['caffe'])}"
    )


def _recognise(layers: Mapping[str, Layer], path: Path) -> str:
    """Return which of the authors' networks a file is."""
    for name in PEERS["caffe"]:
        with suppress(UserError):
            convert_from("caffe", _fold(layers), name)
            return name
    raise UserError(f"{path} is none of the authors' networks: {', '.join(PEERS['caffe'])}")


def from_caffe(layers: Mapping[str, Layer], name: str) -> dict[str, Tensor]:
    """Return the authors' weights of ``name`` (e.g. "SE-ResNet-50") under our names and for our images.

    The first convolution takes RGB instead of BGR, and the classifier's rows follow sorted WordNet ids.

    Raises:
        UserError: naming the first layer that is unknown, missing or of another shape.
    """
    state = convert_from("caffe", _fold(layers), name)
    return reorder(state, ilsvrc_class_order())


def reorder(state: Mapping[str, Tensor], class_order: Sequence[int]) -> dict[str, Tensor]:
    """Flip the colours of the first convolution and permute the classes, if they are ImageNet's 1000."""
    reordered = dict(state)
    stem = min(key for key, value in state.items() if value.ndim == 4 and key.startswith("stem."))
    reordered[stem] = state[stem].flip(1)
    if len(state["head.fc.bias"]) == len(class_order):
        for key in ("head.fc.weight", "head.fc.bias"):
            reordered[key] = state[key][list(class_order)]
    return reordered


def ilsvrc_class_order() -> list[int]:
    """Return for every class in sorted WordNet order its row in a classifier ordered by ILSVRC2012 ids.

    The authors' networks follow the ids of the challenge's development kit (kit fox first), everyone else the
    sorted WordNet ids (tench first).
    """
    ids = files("senet.integrations").joinpath("ilsvrc2012_ids.txt").read_text().split()
    return sorted(range(len(ids)), key=ids.__getitem__)
