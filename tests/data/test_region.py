"""A box of a JPEG is what Pillow has there, and a file that Pillow refuses is refused, wherever the box lies."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from jpeg_fakes import encoded, random_box
from PIL import Image
from torch.utils.data import DataLoader

from senet.data import AugmentConfig, Preprocessing
from senet.data.augment import ImageAugmentation
from senet.data.datasets import BadImage, FileDataset
from senet.data.files.decoders import Box, build_decoder, decode_reference
from senet.data.files.folder import ImageTree
from senet.integrations.fast_jpeg import decode_region, is_one_whole_scan, region_available
from senet.integrations.nvimgcodec import decode_box, open_jpeg

pytestmark = pytest.mark.skipif(not region_available(), reason="nvImageCodec is not installed")
PRE = Preprocessing(size=16, resize=20)


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def boxes(generator: np.random.Generator, height: int, width: int, count: int) -> list[Box]:
    """Random boxes, the whole, the corners, and boxes on the borders of the blocks that a JPEG is made of."""
    found = [random_box(generator, height, width) for _ in range(count)]
    found += [Box(0, 0, height, width), Box(0, 0, 1, min(2, width)), Box(height - 1, width // 2, 1, 1)]
    return found + [Box(y, x, 16, 16) for y in range(0, height - 15, 8) for x in range(0, width - 15, 8)]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(83, 67), (64, 48), (5, 17), (1, 1), (130, 9)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_box_is_pillows(mode: str, size: tuple[int, int], subsampling: int) -> None:
    generator = np.random.default_rng(3)
    noise = Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    data = encoded(noise.convert(mode), quality=90, subsampling=subsampling)
    stream, whole = open_jpeg(data), pillow(data)
    assert (stream.height, stream.width) == whole.shape[:2]
    for box in boxes(generator, *whole.shape[:2], 60):
        crop = decode_box(stream, box)
        assert (crop is None) == (box.width == 1)
        if crop is not None:
            theirs = whole[box.top : box.top + box.height, box.left : box.left + box.width]
            assert np.array_equal(crop.permute(1, 2, 0).numpy(), theirs), box


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_a_cut_file_is_refused_wherever_the_box_lies(photo: Image.Image, where: float) -> None:
    data = encoded(photo)
    header = data.index(b"\xff\xda") + 14
    cut = data[: header + int(where * (len(data) - header))]
    with pytest.raises(OSError, match="truncated"):
        pillow(cut)
    with pytest.raises(OSError, match="truncated"):
        decode_region(cut, "RGB", lambda height, width: Box(0, 0, 4, 4))


@pytest.mark.parametrize("tail", [b"\0", b"\r\n", b"\xff\xd9", b"some text\xff\xd9"])
def test_what_lies_behind_the_image_is_left_to_the_others(photo: Image.Image, tail: bytes) -> None:
    data = encoded(photo)
    assert is_one_whole_scan(data)
    assert not is_one_whole_scan(data + tail)
    assert decode_region(data + tail, "RGB").equal(decode_reference(data, "RGB"))


def test_damaged_files_are_refused_or_read_as_pillow_does(photo: Image.Image) -> None:
    generator = np.random.default_rng(0)
    taken = refused = 0
    for number in range(600):
        data = bytearray(encoded(photo, quality=85, subsampling=number % 3))
        # One byte of the header, or the pixels with some bytes changed, lost or added.
        at = int(generator.integers(2, 620 if number % 2 else len(data) - 2))
        new = bytes(generator.integers(0, 256, int(generator.integers(0, 4)), dtype=np.uint8))
        data[at : at + 1] = new
        try:
            whole = pillow(bytes(data))
        except Exception:
            refused += 1
            with pytest.raises(Exception):  # noqa: B017, PT011
                decode_region(bytes(data), "RGB", lambda height, width: Box(0, 0, 4, 4))
            continue
        box = random_box(generator, *whole.shape[:2])
        crop = decode_region(bytes(data), "RGB", lambda height, width, box=box: box)
        assert crop.equal(box.cut(torch.from_numpy(whole.copy()).permute(2, 0, 1)))
        taken += is_one_whole_scan(data) and open_jpeg(bytes(data)) is not None
    assert taken > 100
    assert refused > 50


@pytest.fixture
def odd_tree(tree: ImageTree, tmp_path: Path, photo: Image.Image) -> ImageTree:
    """The tree with a cut, a progressive, a CMYK and a PNG file in it."""
    odd = {
        3: encoded(photo)[:-100],
        5: encoded(photo, progressive=True),
        6: encoded(photo.convert("CMYK")),
        7: encoded(photo.convert("L")),
    }
    for index in range(len(tree)):
        copy = tmp_path / "odd" / tree.name(index)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(odd.get(index) or tree.read(index))
    photo.save(tmp_path / "odd" / tree.name(9), "PNG")
    return ImageTree(tmp_path / "odd", tree.names, tree.labels, tree.classes)


def dataset(tree: ImageTree, decoder: str, train: bool = True) -> FileDataset:
    augment = ImageAugmentation(AugmentConfig(rand_augment=(2, 9), erase=0.5), PRE) if train else None
    return FileDataset(tree, PRE, build_decoder(decoder, "RGB"), augment, seed=4)


@pytest.mark.parametrize("train", [True, False])
def test_training_and_evaluation_images_are_the_reference_decoders(odd_tree: ImageTree, train: bool) -> None:
    ours, theirs = dataset(odd_tree, "fast", train), dataset(odd_tree, "reference", train)
    for epoch in range(3):
        for index in range(len(odd_tree)):
            one, other = ours.image(epoch, index), theirs.image(epoch, index)
            assert type(one) is type(other)
            if index == 3:
                assert isinstance(one, BadImage)
                assert one == other
            elif index != 6:  # CMYK is converted by another library
                assert one.equal(other)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_decode_what_this_one_does(tree: ImageTree, start: str) -> None:
    data = dataset(tree, "fast")
    here = [data.image(1, index) for index in range(len(tree))]  # a decoder is in use before a worker starts
    selections = [(1, list(range(at, at + 4)), [0] * 4) for at in range(0, len(tree), 4)]
    loader = DataLoader(
        data, sampler=selections, batch_size=None, num_workers=1, multiprocessing_context=start
    )
    there = torch.cat([batch.images for batch in loader])
    assert there.equal(torch.stack(here))


def test_threads_decode_what_one_thread_does(tree: ImageTree) -> None:
    files = [tree.read(index) for index in range(len(tree))] * 4
    decoder = build_decoder("fast", "RGB")
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(decoder, files), map(decoder, files), strict=True):
            assert one.equal(other)


@pytest.mark.slow
def test_the_start_says_nothing() -> None:
    code = "from senet.integrations.fast_jpeg import region_available; print(region_available())"
    paths = os.pathsep.join(filter(None, sys.path))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert (result.stdout, result.stderr) == ("True\n", "")
