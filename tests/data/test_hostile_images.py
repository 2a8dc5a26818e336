"""Images that are damaged, huge, or no files at all: decoded or refused alike by all that read them."""

import io
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from senet import UserError
from senet.data import FolderConfig, Preprocessing
from senet.data.files.decoders import Box, build_decoder
from senet.data.files.folder import scan
from senet.data.module import ImageData
from senet.data.tools import pack
from senet.data.tools.check import ERRORS
from senet.data.tools.inspection import inspect
from senet.data.tools.pack import PackOptions, repack
from senet.files import read_regular
from senet.predict import load

MUTATIONS = int(os.environ.get("SENET_EXAMPLES", "200"))
MORE = {"save_all": True, "append_images": [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]}
EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010E] = 6, "a photograph"
FORMATS = {
    "jpg": ("JPEG", {}), "progressive.jpg": ("JPEG", {"progressive": True}), "png": ("PNG", {}), "gif": ("GIF", {}),
    "webp": ("WEBP", {}), "tif": ("TIFF", {}), "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "film.gif": ("GIF", MORE), "pages.tif": ("TIFF", MORE), "exif.jpg": ("JPEG", {"exif": EXIF}),
    "exif.webp": ("WEBP", {"exif": EXIF}),
}  # fmt: skip


def mutations(photo: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents: of every format in turn cut off, or with one or eight bits flipped."""
    draw = np.random.default_rng(0)
    encoded = {}
    for name, (form, options) in FORMATS.items():
        buffer = io.BytesIO()
        photo.save(buffer, form, **options)
        encoded[name] = buffer.getvalue()
    for index in range(MUTATIONS):
        name = list(FORMATS)[index % len(FORMATS)]
        data = bytearray(encoded[name])
        flips = draw.choice([0, 1, 8])
        for at in draw.integers(len(data), size=flips):
            data[at] ^= 1 << int(draw.integers(8))
        yield f"{index}.{name}", bytes(data if flips else data[: draw.integers(1, len(data))])


def centre(height: int, width: int) -> Box:
    return Box(height // 4, width // 4, max(1, height // 2), max(1, width // 2))


def test_mutated_images_have_one_verdict_everywhere(photo: Image.Image, tmp_path: Path, capfd) -> None:
    """Pillow, the fast decoders, a crop, ``check``, ``pack`` and ``predict`` decode or refuse the same images."""
    pillow, fast = (build_decoder(name, "RGB") for name in ("reference", "fast"))
    sound = 0
    for name, data in mutations(photo.resize((64, 48))):
        (tmp_path / name).write_bytes(data)
        decoded: dict[str, object] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what it forgives
            for way, attempt in {
                "pillow": lambda data=data: pillow(data),
                "fast": lambda data=data: fast(data),
                "crop": lambda data=data: fast(data, choose=centre),
                "pack": lambda data=data: repack(data, None, 90),
                "smaller": lambda data=data: repack(data, 16, 90),
            }.items():
                try:
                    decoded[way] = attempt()
                except Exception:
                    decoded[way] = None
            found = inspect(data, name)
            decoded["check"] = None if ERRORS.keys() & set(found.problems) else found
            guessed = load((0, str(tmp_path / name)), pillow, Preprocessing(size=16, resize=16))
            decoded["predict"] = guessed if isinstance(guessed, tuple) and len(guessed) == 2 else None
        verdicts = {way: result is not None for way, result in decoded.items()}
        assert len(set(verdicts.values())) == 1, (name, verdicts)
        if decoded["pillow"] is not None:
            sound += 1
            assert torch.equal(decoded["pillow"], decoded["fast"]), name
            box = centre(*decoded["pillow"].shape[-2:])
            assert torch.equal(box.cut(decoded["pillow"]), decoded["crop"]), name
    assert MUTATIONS // 10 < sound < MUTATIONS  # else nothing was tried


def bomb(file: Path) -> None:
    Image.new("1", (13000, 13000)).save(file)


@pytest.fixture
def with_bomb(image_tree: Path, tmp_path: Path) -> Path:
    shutil.copytree(image_tree, tmp_path / "tree")
    bomb(tmp_path / "tree" / "train" / "cat" / "bomb.png")
    return tmp_path / "tree"


def test_a_bomb_is_refused_by_pack_and_in_memory(with_bomb: Path, tmp_path: Path) -> None:
    splits = {split: scan(with_bomb / split) for split in ("train", "val")}
    with pytest.raises(UserError, match=r"bomb\.png cannot be decoded \(13,000 x 13,000 pixels"):
        pack.pack(splits, tmp_path / "pack", PackOptions(), 1)
    (with_bomb / "train" / "cat" / "bomb.png").unlink()
    config = {"root": str(with_bomb), "preprocessing": Preprocessing(size=16), "in_memory": True}
    ImageData(FolderConfig(**config), None, 0)
    with pytest.raises(UserError, match=r"data\.max_pixels=1,000"):
        ImageData(FolderConfig(**config, max_pixels=1000), None, 0)


def test_the_device_decoder_refuses_large_images(with_bomb: Path, image_tree: Path) -> None:
    nvjpeg = pytest.importorskip("senet.integrations.nvjpeg")
    pytest.importorskip("torchcodec")
    config = FolderConfig(
        root=str(image_tree), in_memory=False, decoder="gpu", preprocessing=Preprocessing(16, 20)
    )
    dataset = ImageData(config, None, 0).val
    device = torch.device("cpu")
    selection = (0, [0, 1], [0, 0])
    batch = nvjpeg.DeviceDecoder(dataset, device, 1000)(dataset.fetch(selection))
    assert [image.reason.startswith("ValueError: 48 x 40 pixels") for image in batch.bad] == [True, True]
    assert len(nvjpeg.DeviceDecoder(dataset, device, 10_000)(dataset.fetch(selection)).ids) == 2


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)])
def test_a_line_is_not_resized_to_gigabytes(image_tree: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    shutil.copytree(image_tree, tmp_path / "tree")
    line = tmp_path / "tree" / "val" / "dog" / "line.png"
    Image.new("L", size).save(line)
    said = r"70,000 .*pixels are too narrow: with a shorter side of 256 they would be 4,587,520,000"
    config = FolderConfig(root=str(tmp_path / "tree"), workers=0, eval_on_bad_image="count")
    data = ImageData(config, None, 0)
    assert sum(len(batch.ids) for batch in data.val_dataloader()) == 6
    (bad,) = data.eval_bad_images.rows
    assert (bad.path, bool(re.search(said, bad.reason))) == ("dog/line.png", True)
    guess = load((0, str(line)), build_decoder("reference", "RGB"), Preprocessing())
    assert re.search(said, str(guess))
    assert Preprocessing(size=1, resize=1).evaluate(torch.zeros(3, *size, dtype=torch.uint8)).shape == (
        3,
        1,
        1,
    )


def test_a_pipe_is_never_waited_for(image_tree: Path, tmp_path: Path) -> None:
    """One that took the place of an image after the folder was listed; ``open`` would wait for ever."""
    shutil.copytree(image_tree, tmp_path / "tree")
    records = scan(tmp_path / "tree" / "train")
    file = tmp_path / "tree" / "train" / records.name(0)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OSError, match="no regular file"):
        records.read(0)
    with pytest.raises(OSError, match="no regular file"):
        read_regular("/dev/zero")
    assert "no regular file" in str(load((0, str(file)), build_decoder("reference", "RGB"), Preprocessing()))
    assert len(scan(tmp_path / "tree" / "train")) == 15
