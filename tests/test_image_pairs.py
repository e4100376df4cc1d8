"""Pairs of images in two folders: which belong together, and the batches of their patches."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from convext.image import pairs as image_pairs
from convext.image.images import extract_patches, load_image, luminance, save_image
from convext.image.pairs import ImagePairs, PatchBatches

Image = pytest.importorskip("PIL.Image")


def fill(folder, sizes, channels=1, suffix=".png"):
    """Write an image of each size (H, W), with random pixels."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(len(folder.name))
    for i, size in enumerate(sizes):
        pixels = generator.integers(0, 256, (channels, *size), np.uint8)
        save_image(folder / f"{i}{suffix}", pixels)


@pytest.fixture
def folders(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    return before, after


def touch(folder, *names):
    for name in names:
        save_image(folder / name, np.zeros((1, 4, 5)))


# Which files belong together


def test_files_match_by_their_names_without_the_suffix(folders):
    before, after = folders
    touch(before, "0.jpg", "1.PNG", "photo.2.tif")
    touch(after, "0.png", "1.tif", "photo.2.jpg")
    for name in ("._0.jpg", "Thumbs.db", ".DS_Store"):
        (before / name).write_bytes(b"no image")
    found = [tuple(f.rpartition("/")[2] for f in pair) for pair in ImagePairs(*folders, 1).files]
    assert found == [("0.jpg", "0.png"), ("1.PNG", "1.tif"), ("photo.2.tif", "photo.2.jpg")]


def test_the_same_names_in_both_folders_match_whatever_the_suffix(folders):
    for folder in folders:
        touch(folder, "0.jpg", "0.png")
    assert len(ImagePairs(*folders, 1).files) == 2


def test_an_ambiguous_name_is_an_error_that_names_both_files(folders):
    before, after = folders
    touch(before, "0.jpg", "0.png")
    touch(after, "0.tif")
    with pytest.raises(ValueError, match=r"0\.jpg and 0\.png in .*before: which of them"):
        ImagePairs(*folders, 1)


def test_a_file_without_a_partner_is_an_error(folders):
    before, after = folders
    touch(before, "0.jpg")
    touch(after, "0.png", "1.png")
    with pytest.raises(ValueError, match=r"1\.png is in only one of .*before and .*after"):
        ImagePairs(*folders, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_images(orientation, folders):
    before, after = folders
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("jpg", "png", "tif", "webp"):
        Image.new("L", (5, 4)).save(before / f"{suffix}.{suffix}", exif=exif)
        size = (4, 5) if orientation < 5 else (5, 4)
        save_image(after / f"{suffix}.png", np.zeros((1, *size)))
    pairs = ImagePairs(*folders, 3)
    assert pairs.sizes == [size] * 4
    for i in range(4):
        assert [image.shape for image in pairs.load(i)] == [(3, *size)] * 2


# Batches

SIZES = [(20, 31), (9, 40), (5, 5), (33, 12), (26, 26), (18, 30)]


def batches_of(folders, channels=1, **options):
    settings = {"size": 8, "stride": 3, "batch_size": 7, "share": 0.2}
    settings |= {"inner": (slice(1, 7), slice(2, 8))} | options
    return PatchBatches(ImagePairs(*folders, channels), **settings)


def of_all_images(folder, channels):
    images = [load_image(folder / f"{i}.png") for i in range(len(SIZES))]
    images = [luminance(i) if channels == 1 else np.repeat(i, 3 // len(i), 0) for i in images]
    return extract_patches([image.astype(np.float32) for image in images], 8, 3)


def in_order(patches):
    """Sort patches, so that their order does not count."""
    rows = patches.reshape(len(patches), -1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("group_bytes", [1, 10_000, 1 << 30])
@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_epoch_has_every_patch_once(channels, stored, group_bytes, folders, monkeypatch):
    monkeypatch.setattr(image_pairs, "GROUP_BYTES", group_bytes)
    for folder in folders:
        fill(folder, SIZES, stored)
    expected = [of_all_images(folder, channels) for folder in folders]
    expected[1] = expected[1][:, :, 1:7, 2:8]
    count = int(len(expected[0]) * 0.8)
    batches = batches_of(folders, channels)
    assert batches.total == len(expected[0])
    for validation, all_patches in zip(batches.validation(), expected, strict=True):
        np.testing.assert_array_equal(validation, all_patches[count:])
    generator = np.random.default_rng(0)
    first = None
    for _ in range(3):
        epoch = list(batches(generator))
        assert max(len(x) for x, _ in epoch) == 7
        x, y = (np.concatenate(arrays) for arrays in zip(*epoch, strict=True))
        both = np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1)], 1)
        wanted = [a[:count].reshape(count, -1) for a in expected]
        np.testing.assert_array_equal(in_order(both), in_order(np.concatenate(wanted, 1)))
        assert first is None or not np.array_equal(first, both)
        first = both


def test_the_order_depends_on_the_seed_alone(folders, monkeypatch):
    monkeypatch.setattr(image_pairs, "GROUP_BYTES", 10_000)
    for folder in folders:
        fill(folder, SIZES)
    load, generator = ImagePairs.load, np.random.default_rng(9)

    def slow(self, index):
        time.sleep(generator.choice([0, 0, 0.02]))
        return load(self, index)

    epochs = []
    for reader in (load, slow, slow):
        monkeypatch.setattr(ImagePairs, "load", reader)
        epochs.append([x for x, _ in batches_of(folders)(np.random.default_rng(5))])
        time.sleep(0.01 * len(epochs))
    for other in epochs[1:]:
        for a, b in zip(epochs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_in_memory_does_not_grow_with_the_folders(folders, monkeypatch):
    group = 4 << 20
    monkeypatch.setattr(image_pairs, "GROUP_BYTES", group)
    monkeypatch.setattr(image_pairs, "VALIDATION_BYTES", 1 << 20)
    for folder in folders:
        fill(folder, [(300, 400)] * 36)
    in_all = 36 * 2 * 4 * 300 * 400
    batches = batches_of(folders, size=33, stride=14, batch_size=16)
    tracemalloc.start()
    try:
        x, y = batches.validation()
        assert x.nbytes + y.nbytes <= 1 << 20
        for _ in batches(np.random.default_rng(0)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * group + (7 << 20) < in_all / 2


def test_a_damaged_image_ends_the_epoch_with_its_name(folders, monkeypatch):
    monkeypatch.setattr(image_pairs, "GROUP_BYTES", 1)
    for folder in folders:
        fill(folder, SIZES)
    path = folders[1] / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image"):
        list(batches_of(folders)(np.random.default_rng(0)))


def test_an_epoch_can_be_left_early(folders, monkeypatch):
    monkeypatch.setattr(image_pairs, "GROUP_BYTES", 1)
    for folder in folders:
        fill(folder, SIZES)
    epoch = batches_of(folders)(np.random.default_rng(0))
    next(epoch)
    epoch.close()


def test_too_few_patches_are_an_error(folders):
    for folder in folders:
        fill(folder, [(8, 8)])
    with pytest.raises(ValueError, match="1 patches are too few to train on and to validate with"):
        batches_of(folders)
    with pytest.raises(ValueError, match="no image is as large as a patch of 9x9"):
        batches_of(folders, size=9)
