"""Every decoder gives Pillow's pixels, on plain and on odd files."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jpeg_fakes import encoded, random_box
from PIL import Image

from senet.data import AugmentConfig, Preprocessing
from senet.data.augment import ImageAugmentation
from senet.data.datasets import BadImage, FileDataset
from senet.data.files.decoders import Box, build_decoder, decode_reference, describe_decoder
from senet.data.files.folder import ImageTree, scan
from senet.integrations.fast_jpeg import (
    decode_region,
    decode_torchcodec,
    hide_orientation,
    region_available,
    torchcodec_available,
    torchcodec_decoder,
)
from senet.integrations.nvjpeg import DeviceDecoder

needs_torchcodec = pytest.mark.skipif(not torchcodec_available(), reason="torchcodec is not installed")
needs_region = pytest.mark.skipif(not region_available(), reason="nvImageCodec is not installed")
Decoder = Callable[..., torch.Tensor]
FAST = [
    pytest.param(decode_torchcodec, marks=needs_torchcodec),
    pytest.param(decode_region, marks=needs_region),
]


def odd_files(photo: Image.Image) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    alpha = photo.convert("RGBA")
    alpha.putalpha(100)
    return {
        "plain": encoded(photo, quality=90),
        "4:4:4": encoded(photo, quality=95, subsampling=0),
        "progressive": encoded(photo, progressive=True),
        "grey": encoded(photo.convert("L")),
        "cmyk": encoded(photo.convert("CMYK")),
        "rotated": encoded(photo, exif=exif),
        "png": encoded(photo, "PNG"),
        "png with alpha": encoded(alpha, "PNG"),
        "webp": encoded(photo, "WEBP", lossless=True),
        "16 bit": encoded(Image.fromarray(np.full((9, 9), 40000, dtype=np.uint16)), "PNG"),
        "bilevel": encoded(photo.convert("1"), "PNG"),
    }


@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("colour", ["RGB", "L"])
@pytest.mark.parametrize("kind", odd_files(Image.new("RGB", (8, 8))))
def test_fast_gives_pillows_pixels(photo: Image.Image, fast: Decoder, kind: str, colour: str) -> None:
    data = odd_files(photo)[kind]
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert(colour)).astype(int)
    if kind == "16 bit":
        theirs = np.full_like(theirs, round(40000 * 255 / 65535))  # Pillow would clip it
    ours = fast(data, colour).permute(1, 2, 0).numpy().astype(int)
    assert np.array_equal(theirs, ours.reshape(theirs.shape))


@pytest.mark.parametrize("name", ["reference", "fast"])
@pytest.mark.parametrize("damage", ["half", "empty", "text", "head"])
def test_damaged_files_raise(photo: Image.Image, name: str, damage: str) -> None:
    data = encoded(photo)
    broken = {"half": data[: len(data) // 2], "empty": b"", "text": b"not an image", "head": data[:30]}[
        damage
    ]
    with pytest.raises((OSError, SyntaxError, ValueError)):
        build_decoder(name, "RGB")(broken)


def test_hiding_the_orientation_changes_one_byte_and_no_other_file(photo: Image.Image) -> None:
    plain = encoded(photo)
    assert hide_orientation(plain) is plain
    exif = Image.Exif()
    exif[0x0112] = 3
    rotated = encoded(photo, exif=exif)
    hidden = hide_orientation(rotated)
    assert sum(a != b for a, b in zip(rotated, hidden, strict=True)) == 1
    assert Image.open(io.BytesIO(hidden)).getexif().get(0x0112) is None
    assert hide_orientation(rotated[:5]) == rotated[:5]


@pytest.mark.parametrize("colour", ["RGB", "L"])
@pytest.mark.parametrize("kind", odd_files(Image.new("RGB", (8, 8))))
def test_every_decoder_asks_once_for_a_box_and_cuts_it(photo: Image.Image, kind: str, colour: str) -> None:
    data = odd_files(photo)[kind]
    for decode in (decode_reference, decode_torchcodec, decode_region):
        asked = []

        def choose(height: int, width: int, asked: list = asked) -> Box:
            asked.append((height, width))
            return Box(1, 2, 5, 6)

        crop = decode(data, colour, choose)
        whole = decode(data, colour)
        assert crop.equal(whole[:, 1:6, 2:8])
        assert asked == [tuple(whole.shape[1:])]


def test_fast_is_the_best_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for region, torchcodec in ((True, True), (True, False), (False, True), (False, False)):
        monkeypatch.setattr("senet.integrations.fast_jpeg.region_available", lambda region=region: region)
        monkeypatch.setattr(
            "senet.integrations.fast_jpeg.torchcodec_available", lambda found=torchcodec: found
        )
        found.append((build_decoder("fast", "RGB").func, describe_decoder("fast")))
    assert found == [
        (decode_region, "nvImageCodec (crops), torchcodec"),
        (decode_region, "nvImageCodec (crops), Pillow"),
        (decode_torchcodec, "torchcodec"),
        (decode_reference, "Pillow (senet[fast] brings decoders that are faster)"),
    ]
    assert build_decoder("reference", "RGB").func is decode_reference


def test_without_torchcodec_its_part_is_pillows(monkeypatch: pytest.MonkeyPatch, photo: Image.Image) -> None:
    monkeypatch.setattr("senet.integrations.fast_jpeg.torchcodec_available", lambda: False)
    data = encoded(photo, progressive=True)
    assert decode_region(data, "RGB").equal(decode_reference(data, "RGB"))


@needs_torchcodec
def test_the_device_decoder_does_what_workers_do(tree: ImageTree, tmp_path: Path) -> None:
    root = tmp_path / "d" / "c"
    root.mkdir(parents=True)
    for index in range(5):
        (root / f"{index}.jpg").write_bytes(tree.read(index))
    (root / "5.jpg").write_bytes(tree.read(5)[:500])
    Image.new("RGB", (30, 30), "red").save(root / "6.png")
    records = scan(tmp_path / "d")
    pre = Preprocessing(size=16, resize=20)
    augment = ImageAugmentation(AugmentConfig(), pre)
    in_worker = FileDataset(records, pre, build_decoder("reference", "RGB"), augment, seed=1)
    encoded_only = FileDataset(records, pre, None, augment, seed=1)
    selection = (2, range(7), [0] * 7)
    theirs = in_worker[selection]
    ours = DeviceDecoder(encoded_only, torch.device("cpu"))(encoded_only[selection])
    assert len(ours.ids) == 6
    assert ours.ids.equal(theirs.ids)
    assert ours.images.equal(theirs.images)
    assert [bad.path for bad in ours.bad] == ["c/5.jpg"]
    assert isinstance(in_worker.image(0, 5), BadImage)


@needs_torchcodec
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nvjpeg_is_near_pillow(photo: Image.Image) -> None:
    files = [encoded(photo, quality=90), encoded(photo.resize((301, 211)), quality=75)]
    for data, image in zip(files, torchcodec_decoder()(files, device="cuda"), strict=True):
        difference = (image.cpu().float() - decode_reference(data, "RGB").float()).abs()
        assert difference.mean() < 2  # grey levels: chroma is upsampled in another way
        assert difference.max() < 64


@pytest.mark.slow
@pytest.mark.parametrize("fast", FAST)
def test_decoders_agree_on_real_photographs(shared: Path, fast: Decoder) -> None:
    boxes = np.random.default_rng(0)
    with tarfile.open(shared / "data" / "imagenet-samples.tar") as archive:
        files = [archive.extractfile(member).read() for member in archive if member.isfile()]
    for data in files:
        whole = decode_reference(data, "RGB")
        assert fast(data, "RGB").equal(whole)
        box = random_box(boxes, *whole.shape[1:])
        assert fast(data, "RGB", lambda height, width, box=box: box).equal(box.cut(whole))
