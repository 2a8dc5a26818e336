"""The rules of docs/images.md, a test for each row: which files are images, and what their pixels become."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from senet import UserError
from senet.data.files import decoders
from senet.data.files.decoders import build_decoder
from senet.data.files.folder import list_images, scan
from senet.data.tools.check import check
from senet.data.tools.inspection import inspect
from senet.integrations.fast_jpeg import hide_orientation, jpeg_frame

RAMP = np.linspace(0, 65535, 32 * 32).reshape(32, 32)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def decoded(data: bytes) -> Tensor:
    """The pixels, which must be the same from every decoder."""
    reference, fast = (build_decoder(name, "RGB")(data) for name in ("reference", "fast"))
    assert reference.equal(fast)
    return reference


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


PNG = encoded(Image.new("RGB", (8, 8), (9, 99, 200)), "PNG")
JPEG = encoded(Image.new("RGB", (8, 8), (9, 99, 200)), "JPEG")


def test_which_files_are_images(tmp_path: Path):
    split = folder(
        tmp_path / "train",
        {
            "a/1.jfif": JPEG, "a/2.PNG": PNG, "a/deep/3.webp": PNG, "a/._1.jpg": JPEG,
            "a/.ipynb_checkpoints/1-checkpoint.jpg": JPEG, "a/__MACOSX/1.jpg": JPEG, "a/Thumbs.db": b"x",
            "a/notes.txt": b"x",
            ".hidden/1.jpg": JPEG, "b/1.jpg": JPEG,
        },
    )  # fmt: skip
    os.mkfifo(split / "b" / "pipe.jpg")
    (split / "b" / "nowhere.jpg").symlink_to("missing.jpg")
    listing = list_images(split)
    names = [listing.names[i] for i in range(len(listing.names))]
    assert names == ["a/1.jfif", "a/2.PNG", "a/deep/3.webp", "b/1.jpg"]
    assert listing.left_out == {"hidden": 3, ".db": 1, ".txt": 1, "no regular file": 2}


def test_linked_folders_are_followed_and_loops_cut(tmp_path: Path):
    split = folder(tmp_path / "train", {"a/1.jpg": JPEG})
    more = folder(tmp_path / "more", {"2.jpg": JPEG, "3.jpg": JPEG})
    (split / "a" / "more").symlink_to(more)
    (more / "again").symlink_to(split / "a")
    (split / "b").symlink_to(more)
    tree = scan(split)
    assert len(tree) == 3 + 3  # b sees a through the loop's link, and itself only once


def test_a_new_image_is_seen_where_time_stamps_are_pinned(tmp_path: Path):
    split = folder(tmp_path / "train", {"a/1.jpg": JPEG, "b/1.jpg": JPEG})

    def pin() -> None:
        for path, _, _ in os.walk(split):
            os.utime(path, (1_000_000_000, 1_000_000_000))

    pin()
    assert len(scan(split)) == 2
    folder(split, {"a/2.jpg": JPEG})
    pin()
    assert len(scan(split)) == 3


def test_composed_and_decomposed_names_are_explained(tmp_path: Path):
    split = folder(tmp_path / "val", {"cafe\u0301/1.jpg": JPEG})
    with pytest.raises(UserError, match="looks the same in another Unicode form"):
        scan(split, ["caf\u00e9"])


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled(form: str):
    wide = RAMP.astype(np.uint16)
    found = decoded(encoded(Image.fromarray(wide), form))
    expected = np.rint(wide.astype(np.float64) * 255 / 65535)
    assert np.array_equal(found.numpy(), np.broadcast_to(expected, (3, 32, 32)))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_without_a_known_range_is_refused(kind: type, tmp_path: Path):
    data = encoded(Image.fromarray(RAMP.astype(kind)), "TIFF")
    for name in ("reference", "fast"):
        with pytest.raises(ValueError, match="32-bit grey"):
            build_decoder(name, "RGB")(data)
    folder(tmp_path, {"train/a/1.tif": data, "val/a/1.png": PNG})
    assert check(tmp_path, tmp_path / "out")["problems"]["unknown-range"] == ["train/a/1.tif"]


def test_one_bit_is_black_and_white():
    bits = RAMP > 30000
    found = decoded(encoded(Image.fromarray(bits), "PNG"))
    assert np.array_equal(found.numpy(), np.broadcast_to(255 * bits, (3, 32, 32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_dropped(mode: str):
    colour = (10, 60, 110, 0) if mode == "RGBA" else (70, 0) if mode == "LA" else 1
    image = Image.new(mode, (4, 4), colour)
    options = {}
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 60, 110])
        options = {"transparency": bytes([255, 0])}
    expected = (70, 70, 70) if mode == "LA" else (10, 60, 110)
    assert decoded(encoded(image, "PNG", **options))[:, 0, 0].tolist() == list(expected)


def test_of_an_animation_the_first_picture_is_read(tmp_path: Path):
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decoded(data)[:, 0, 0].tolist() == [200, 0, 0]
    folder(tmp_path, {"train/a/1.gif": data, "val/a/1.png": PNG})
    assert check(tmp_path, tmp_path / "out")["problems"]["animated"] == ["train/a/1.gif"]


@pytest.mark.parametrize("fill", [0, 1, 3])
def test_no_decoder_rotates_wherever_exif_stands(fill: int):
    exif = Image.Exif()
    exif[0x112] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), "JPEG", exif=exif, comment=b"before it")
    at = data.index(b"\xff\xe1")
    data = data[:at] + b"\xff" * fill + data[at:]  # fill bytes, which any marker may have
    assert hide_orientation(data) != data
    assert jpeg_frame(data) == (40, 24, 3)
    assert decoded(data).shape == (3, 24, 40)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pillow_itself_rotates_tiff_files_and_no_others(form: str):
    exif = Image.Exif()
    exif[0x112] = 6
    data = encoded(Image.new("RGB", (40, 24)), form, exif=exif)
    theirs = pil_to_tensor(Image.open(io.BytesIO(data)))  # torchvision's way
    assert decoded(data).shape == theirs.shape == ((3, 40, 24) if form == "TIFF" else (3, 24, 40))
    assert ("exif-rotated" in inspect(data, f"1.{form.lower()}").problems) == (form != "TIFF")


def test_a_photograph_with_others_behind_it_is_a_jpeg():
    """Telephones write them, and call them .jpg."""
    data = encoded(Image.new("RGB", (8, 8)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert inspect(data, "1.jpg").problems == ("animated",)
    assert inspect(data, "1.png").problems == ("wrong-format", "animated")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch):
    bomb = encoded(Image.new("1", (13000, 13000)), "PNG")
    assert len(bomb) < 30_000
    claims = bytearray(JPEG)  # a header that claims 65,000 x 65,000 pixels
    frame = claims.index(b"\xff\xc0")
    claims[frame + 5 : frame + 9] = (65_000).to_bytes(2, "big") * 2
    monkeypatch.setattr(decoders, "decode", lambda *_: pytest.fail("decoded"))
    for data in (bomb, bytes(claims)):
        for name in ("reference", "fast"):
            with pytest.raises(Exception, match=r"data\.max_pixels=100,000,000: too large"):
                build_decoder(name, "RGB")(data)
    with pytest.raises(ValueError, match=r"data\.max_pixels=63"):
        build_decoder("fast", "RGB", 63)(JPEG)
    monkeypatch.undo()
    folder(tmp_path, {"train/a/1.png": bomb, "train/a/2.jpg": bytes(claims), "val/a/1.png": PNG})
    assert check(tmp_path, tmp_path / "out")["problems"]["too-large"] == ["train/a/1.png", "train/a/2.jpg"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)  # Pillow's own limit, which data.max_pixels may exceed
    assert build_decoder("reference", "RGB", 64)(PNG).shape == (3, 8, 8)


def test_mutated_files_give_pillows_pixels_or_an_error():
    """Bits, lengths and headers changed at random: never other pixels, never a hang."""
    generator = np.random.default_rng(7)
    pixels = generator.integers(0, 255, (20, 28, 3), np.uint8)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = encoded(Image.fromarray(pixels), form)
        for _ in range(12):
            data = bytearray(whole[: generator.integers(len(whole) // 2, len(whole) + 1)])
            for at in generator.integers(0, len(data), 3):
                data[at] ^= 1 << generator.integers(8)
            found: list[Tensor | None] = []
            for name in ("reference", "fast"):
                try:
                    found.append(build_decoder(name, "RGB")(bytes(data)))
                except Exception:  # whatever a decoder raises is a file that cannot be read
                    found.append(None)
            reference, fast = found
            assert (reference is None) == (fast is None)
            assert reference is None or torch.equal(reference, fast)
