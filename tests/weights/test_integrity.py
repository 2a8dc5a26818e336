"""Damaged checkpoints: each is one clean line, or reads as the very thing that was written."""

import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from senet import UserError, create_model
from senet.weights import read_checkpoint
from senet.weights.checkpoint import SEAL, Checkpoint, seal
from senet.weights.read import read_weights


def content() -> dict:
    """Return what a run writes of a small network, in little."""
    torch.manual_seed(0)
    network = create_model("se_resnet20", num_classes=3)
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    moments = {index: {"momentum_buffer": torch.randn(4, 4)} for index in range(3)}
    record = {"model": network.record, "config": {"seed": 1, "lr": 0.1}, "preprocessing": None,
              "classes": ["cat", "caf\udce9", "a\nb"], "results": {"val/top1": 61.25}}  # fmt: skip
    return {
        "epoch": 2,
        "global_step": 7,
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "done": True, "betas": (0.9, 0.999)}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}],
        "senet": record,
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "last.ckpt"
    written = content()
    seal(written)
    torch.save(written, path)
    return path


def without_seal(content: dict) -> dict:
    return {part: value for part, value in content.items() if part != SEAL}


def repack(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return an archive with other records, under checksums that are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(out, "w") as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    return out.getvalue()


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def flip_description(data: bytes, draw: random.Random) -> bytes:
    """Flip a bit of the pickle that says what the tensors are, and leave nothing to the checksums."""

    def change(records: dict[str, bytes]) -> None:
        name = next(name for name in records if name.endswith("data.pkl"))
        records[name] = flip(records[name], draw)

    return repack(data, change)


def overwrite(data: bytes, draw: random.Random) -> bytes:
    at, size = draw.randrange(len(data)), draw.choice((16, 512, 4096))
    return data[:at] + draw.choice((bytes(size), draw.randbytes(size))) + data[at + size :]


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((0, 1, 3, 4, len(data) - 1, draw.randrange(len(data))))]


def exchange_records(data: bytes, draw: random.Random) -> bytes:
    def change(records: dict[str, bytes]) -> None:
        a, b = draw.sample([name for name, record in records.items() if "/data/" in name and record], 2)
        records[a], records[b] = records[b], records[a]

    return repack(data, change)


def exchange_tensors(data: bytes, draw: random.Random) -> bytes:
    """Two tensors of one shape change places, as a careless program might let them."""
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    state, out = loaded["state_dict"], io.BytesIO()
    first = draw.choice([key for key in state if key.endswith("weight") and ".bn" in key])
    second = draw.choice([k for k, v in state.items() if v.shape == state[first].shape and k != first])
    state[first], state[second] = state[second], state[first]
    torch.save(loaded, out)
    return out.getvalue()


class Hostile:
    def __reduce__(self) -> tuple:
        return print, ("this must never be run",)


def other_pickle(data: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.2:  # lists in lists, deeper than a program may recurse
        return b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
    kinds = (
        {"senet": Hostile(), "state_dict": {}},
        {"senet": {}, "state_dict": {}},
        {"senet": {"model": 3}, "state_dict": 5},
        [torch.zeros(3)],
        None,
    )
    return pickle.dumps(draw.choice(kinds), protocol=draw.choice((2, 4)))


MUTATIONS = (flip, flip_description, overwrite, truncate, exchange_records, exchange_tensors, other_pickle)


def attack(whole: Path, path: Path, seed: int) -> None:
    data, draw = whole.read_bytes(), random.Random(seed)
    mutated = MUTATIONS[seed % len(MUTATIONS)](data, draw)
    path.write_bytes(mutated)
    original = torch.load(whole, weights_only=True)
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_checkpoint(path),
        lambda: read_weights(str(path), create_model("se_resnet20", num_classes=3).record, "raw"),
    )
    for read in readers:
        try:
            got = read()
        except UserError as error:
            said = str(error)
            assert str(path) in said
            assert "\n" not in said
            assert not any(word in said for word in ("Error", "Traceback", "Pytorch", "pickle")), said
        else:
            if isinstance(got, Checkpoint):
                assert same(without_seal(original), without_seal(got.content))
            else:
                ours = {k.removeprefix("model."): v for k, v in original["state_dict"].items()}
                assert same(ours, got.state)


@pytest.mark.parametrize("seed", range(28))
def test_damaged_checkpoints(whole, tmp_path, capsys, seed):
    attack(whole, tmp_path / "last.ckpt", seed)
    assert "never" not in capsys.readouterr().out


@pytest.mark.slow
def test_hundreds_of_damaged_checkpoints(whole, tmp_path):
    for seed in range(28, 300):
        attack(whole, tmp_path / "last.ckpt", seed)


def test_a_whole_checkpoint_is_read_as_written_and_saved_again(whole, tmp_path):
    written = content()
    read = read_checkpoint(whole)
    for part, value in written.items():
        assert same(value, read.content[part]), part
    copy = tmp_path / "copy.ckpt"
    without_optimizer = {part: value for part, value in read.content.items() if part != "optimizer_states"}
    torch.save(without_optimizer, copy)
    assert same(read.state_dict, read_checkpoint(copy).state_dict)


@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "senet", "global_step"])
def test_each_part_is_under_the_seal(whole, tmp_path, part):
    loaded = torch.load(whole, weights_only=True)
    changed = {
        "state_dict": lambda: loaded["state_dict"]["model.head.fc.bias"].add_(1e-6),
        "optimizer_states": lambda: loaded["optimizer_states"][0]["state"][1]["momentum_buffer"].neg_(),
        "senet": lambda: loaded["senet"]["classes"].reverse(),
        "global_step": lambda: loaded.update(global_step=8),
    }
    changed[part]()
    torch.save(loaded, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=f'is damaged: its "{part}" is not what was written'):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_checkpoint_of_before_the_seal_is_read(tmp_path):
    torch.save(content(), tmp_path / "old.ckpt")
    assert read_checkpoint(tmp_path / "old.ckpt").step == 7
