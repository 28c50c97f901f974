"""The image cache gives the same items as the image files, notices changed files, and is never left incomplete."""

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import shutil
import struct
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.config import Config
from clipgan.data.cache import ImageCache, Preparation
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, make_loader
from clipgan.data.examples import Example, read_examples
from clipgan.data.from_config import training_set
from clipgan.errors import UserError

SIZES = [16, 32]
PREPARATION = Preparation(size=32, crop_scale=76 / 64, box_crop=True)
# Name, mode, size and box. The boxes: none, clipped by one edge, by all edges, inside, and smaller than the crop
SOURCES = [
    ("wide.jpg", "RGB", (90, 60), None),
    ("edge.jpg", "RGB", (80, 70), (60.0, 10.0, 30.0, 20.0)),
    ("beyond.png", "RGB", (50, 70), (-20.0, -10.0, 200.0, 40.0)),
    ("grey.png", "L", (64, 100), (10.5, 20.2, 30.0, 41.0)),
    ("clear.png", "RGBA", (41, 97), None),
    ("small.png", "P", (20, 24), (4.0, 4.0, 9.0, 12.0)),
]


def write_noise(path, mode="RGB", size=(90, 60), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGB" if mode == "P" else mode).convert(mode).save(path)


@pytest.fixture
def examples(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    for seed, (name, mode, size, _) in enumerate(SOURCES):
        write_noise(folder / name, mode, size, seed)
    captions = ("a red bird", "a bird, blue", "one more")
    return [Example(folder / name, name, captions, i, box) for i, (name, _, _, box) in enumerate(SOURCES)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "output" / "cache"


def tokenize(captions: list[str]) -> torch.Tensor:
    return torch.tensor([[len(caption), sum(map(ord, caption))] for caption in captions])


def build(examples, folder, preparation=PREPARATION, workers=2) -> ImageCache:
    return ImageCache.of(examples, preparation, folder, "noise", workers)


def make_dataset(examples, cache=None, **options):
    return TextImageDataset(examples, SIZES, tokenize, seed=5, cache=cache, **options)


def same_items(first, second, epochs=1) -> bool:
    pairs = [(first[epoch, i], second[epoch, i]) for epoch in range(epochs) for i in range(len(first))]
    return all(
        a.captions == b.captions and all(map(torch.equal, [*a.images, a.tokens], [*b.images, b.tokens]))
        for a, b in pairs
    )


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("box_crop", [True, False])
def test_items_are_the_same_bit_for_bit_with_and_without_the_cache(examples, folder, train, box_crop):
    cache = build(examples, folder, dataclasses.replace(PREPARATION, box_crop=box_crop))
    options = {"train": train, "box_crop": box_crop}
    assert same_items(make_dataset(examples, cache, **options), make_dataset(examples, **options), epochs=8)
    assert len({cache[i].shape for i in range(len(examples))}) > 2  # several shapes, all with the shorter side 38
    assert {min(cache[i].shape[:2]) for i in range(len(examples))} == {38}


def test_a_second_run_does_not_read_the_sources(examples, folder):
    expected = [list(build(examples, folder)[i].tobytes()) for i in range(len(examples))]
    for example in examples:
        status = example.image.stat()
        example.image.write_bytes(bytes(status.st_size))
        os.utime(example.image, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = build(examples, folder)
    assert [list(again[i].tobytes()) for i in range(len(examples))] == expected


@pytest.mark.parametrize("change", ["time", "size"])
def test_a_changed_source_image_is_reported_and_the_cache_is_built_again(examples, folder, capsys, change):
    build(examples, folder)
    source = examples[4].image
    before = source.stat()
    write_noise(source, "RGB" if change == "size" else "RGBA", (41, 97), seed=99)
    time_of_change = before.st_mtime_ns + (1_000_000 if change == "time" else 0)
    os.utime(source, ns=(before.st_atime_ns, time_of_change))
    assert capsys.readouterr().out == ""

    cache = build(examples, folder)
    said = capsys.readouterr().out
    assert "clear.png changed since it was made; it is built again" in said and said.count("\n") == 1
    assert same_items(make_dataset(examples, cache), make_dataset(examples))
    build(examples, folder)
    assert capsys.readouterr().out == ""


def test_a_missing_source_image_is_named(examples, folder):
    build(examples, folder)
    examples[2].image.unlink()
    with pytest.raises(UserError, match=r"beyond\.png: no such image$"):
        build(examples, folder)


def test_a_build_that_fails_half_way_leaves_no_file(examples, folder):
    many = [dataclasses.replace(examples[0], key=str(i)) for i in range(70)]
    many[46] = dataclasses.replace(examples[1], box=(900.0, 0.0, 10.0, 10.0))  # not in the sample for the space
    with pytest.raises(UserError, match=r"edge\.jpg: the box"):
        build(many, folder)
    assert list(folder.iterdir()) == []

    examples[0].image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"wide\.jpg: not a readable image"):
        build(examples, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, -1, -30, -2000])
def test_an_incomplete_cache_file_is_built_again(examples, folder, capsys, keep):
    path = build(examples, folder).path
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    cache = build(examples, folder)
    assert "not a whole image cache" in capsys.readouterr().out
    assert same_items(make_dataset(examples, cache), make_dataset(examples))
    path.write_bytes(whole[5:])
    build(examples, folder)
    assert "its beginning is missing" in capsys.readouterr().out


def forge(whole: bytes, change) -> bytes:
    """A cache file with other records, provenance or trailer, and with the hash that fits the records."""
    count, length, magic = struct.unpack("<QQ8s", whole[-24:])
    end = len(whole) - 24
    content = {
        "provenance": json.loads(whole[end - length : end]), "count": count, "length": None, "magic": magic,
        "records": np.frombuffer(whole[end - length - 40 * count : end - length], "<i8").reshape(count, 5).copy(),
    }  # fmt: skip
    pixels = whole[: end - length - 40 * count]
    change(content)
    table = content["records"].tobytes()
    if isinstance(content["provenance"], dict):
        content["provenance"]["records"] = hashlib.sha256(table).hexdigest()
    described = content["provenance"]
    described = described if isinstance(described, bytes) else json.dumps(described).encode()
    length = len(described) if content["length"] is None else content["length"]
    return pixels + table + described + struct.pack("<QQ8s", content["count"], length, content["magic"])


def set_record(row: int, column: int, value: int):
    return lambda content: content["records"].__setitem__((row, column), value)


def swap_shapes(content):
    content["records"][:, 1:3] = content["records"][:, 2:0:-1]


FORGERIES = {
    "count": lambda content: content.update(count=2**63),
    "count too small": lambda content: content.update(count=3),
    "length": lambda content: content.update(length=2**63 + 5),
    "magic": lambda content: content.update(magic=b"clipgan!"),
    "a list": lambda content: content.update(provenance=[1, 2]),
    "no JSON": lambda content: content.update(provenance=b"{" * 60),
    "deep JSON": lambda content: content.update(provenance=b"[" * 100_000),
    "no text": lambda content: content.update(provenance=b"\xff\xfe" * 40),
    "another size": lambda content: content["provenance"].update(size=39),
    "negative start": set_record(0, 0, -4),
    "start beyond the end": set_record(1, 0, 2**62),
    "overlap": lambda content: content["records"].__setitem__((1, 0), content["records"][0, 0]),
    "negative height": set_record(2, 1, -38),
    "huge height": set_record(2, 1, 2**62),
    "height 0": set_record(3, 1, 0),
    "image too small to crop": lambda content: content["records"].__setitem__((0, slice(1, 3)), (1, 38 * 57)),
    "no records": lambda content: content.update(records=content["records"][:0], count=0),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_cache_is_built_again(examples, folder, capsys, name):
    path = build(examples, folder).path
    whole = path.read_bytes()
    assert forge(whole, lambda content: None) == whole
    path.write_bytes(forge(whole, FORGERIES[name]))
    reader = ImageCache(path, PREPARATION, build(examples, folder)._provenance)
    said = capsys.readouterr().out
    assert "not a whole image cache" in said and said.count("\n") == 1 and len(said) < 600
    assert path.read_bytes()[-24:] == whole[-24:] and reader[0].shape == build(examples, folder)[0].shape
    path.write_bytes(forge(whole, FORGERIES[name]))
    with pytest.raises(UserError, match="removed or damaged since this run began"):
        ImageCache(path, PREPARATION, reader._provenance)[0]


def test_damaged_records_are_noticed_by_their_hash(examples, folder, capsys):
    path = build(examples, folder).path
    whole = bytearray(path.read_bytes())
    length = struct.unpack("<Q", whole[-16:-8])[0]
    whole[len(whole) - 24 - length - 8] ^= 1  # the last record's time of change
    path.write_bytes(whole)
    build(examples, folder)
    assert "its records are damaged" in capsys.readouterr().out


def test_a_pipe_in_the_place_of_the_cache_is_replaced(examples, folder, capsys):
    path = build(examples, folder).path
    path.unlink()
    os.mkfifo(path)
    cache = build(examples, folder)
    assert "is a pipe or a device" in capsys.readouterr().out
    assert same_items(make_dataset(examples, cache), make_dataset(examples))


def test_a_cache_of_images_that_were_read_in_another_way_is_not_used(examples, folder, monkeypatch):
    before = build(examples, folder).path
    monkeypatch.setattr("clipgan.data.cache.READING", 99)
    assert build(examples, folder).path != before


def test_a_disk_that_is_full_is_a_user_error_and_leaves_no_file(examples, folder, monkeypatch):
    def full(file, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("clipgan.data.cache._write_images", full)
    with pytest.raises(UserError, match=r"\.images: cannot be written \(No space left on device\)"):
        build(examples, folder)
    assert list(folder.iterdir()) == []


def test_a_turned_photo_is_cached_upright_and_cut_to_its_box(examples, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = folder.parent.parent / "turned.png"
    with Image.open(examples[0].image) as image:
        image.save(source, exif=exif)
    turned = [dataclasses.replace(examples[0], image=source, box=(10.0, 10.0, 20.0, 30.0))]
    cache = build(turned, folder)
    assert same_items(make_dataset(turned, cache), make_dataset(turned), epochs=4)
    upright = dataclasses.replace(turned[0], image=examples[0].image)
    stored = build([upright], folder)[0]
    difference = cache[0].astype(int) - np.rot90(stored, -1)  # resizing rounds after columns, then after rows
    assert cache[0].shape == (38, 40, 3) and np.abs(difference).max() <= 1


def test_other_settings_and_other_examples_get_files_of_their_own(examples, folder):
    preparations = [
        PREPARATION,
        dataclasses.replace(PREPARATION, size=16),
        dataclasses.replace(PREPARATION, crop_scale=1.5),
        dataclasses.replace(PREPARATION, box_crop=False),
    ]
    moved = [dataclasses.replace(examples[0], box=(1.0, 2.0, 30.0, 30.0)), *examples[1:]]
    lists = [moved, examples[:-1], examples[::-1]]
    paths = [build(examples, folder, preparation).path for preparation in preparations]
    paths += [build(other, folder).path for other in lists]
    assert len(set(paths)) == 7 and set(folder.iterdir()) == set(paths)
    assert paths[1].name.startswith("noise_16px_")


def test_a_dataset_refuses_a_cache_of_other_images_or_another_preparation(examples, folder):
    for wrong in (
        build(examples, folder, dataclasses.replace(PREPARATION, crop_scale=1.5)),
        build(examples[:-1], folder),
    ):
        with pytest.raises(ValueError, match="holds"):
            make_dataset(examples, wrong)


@pytest.mark.parametrize("mapped", [False, True])
def test_two_workers_read_the_cache_whether_or_not_the_main_process_has_read_it(examples, folder, mapped):
    cache = build(examples, folder)
    if mapped:
        cache[0]
    batches = []
    for dataset in (make_dataset(examples, cache), make_dataset(examples)):
        sampler = EpochBatchSampler(len(examples), 2, seed=1)
        batches.append(list(make_loader(dataset, sampler, 2, torch.device("cpu"))))
    assert len(batches[0]) == 3
    for first, second in zip(*batches, strict=True):
        assert first.keys == second.keys and all(map(torch.equal, first.images, second.images))


def test_a_pickled_dataset_holds_no_cached_pixels(examples, folder):
    dataset = make_dataset(examples, build(examples, folder))
    before = pickle.dumps(dataset)
    expected = dataset[0, 3].images
    assert abs(len(pickle.dumps(dataset)) - len(before)) < 1000  # the pixels are 40 kB
    for pickled in (before, pickle.dumps(dataset)):
        assert all(map(torch.equal, pickle.loads(pickled)[0, 3].images, expected))


def test_many_threads_do_not_write_into_each_others_images(examples, folder):
    many = [dataclasses.replace(examples[i % 4], key=str(i)) for i in range(160)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        cache = build(many, folder, workers=8)
    finally:
        sys.setswitchinterval(interval)
    expected = [PREPARATION.load(example).tobytes() for example in examples[:4]]
    assert all(cache[i].tobytes() == expected[i % 4] for i in range(160))


def test_simultaneous_builds_do_not_disturb_each_other(examples, folder):
    caches = []
    threads = [threading.Thread(target=lambda: caches.append(build(examples, folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caches) == 4 and list(folder.iterdir()) == [caches[0].path]
    assert all(same_items(make_dataset(examples, cache), make_dataset(examples)) for cache in caches)


def test_too_little_disk_space_is_refused_before_building(examples, folder, monkeypatch):
    many = [dataclasses.replace(examples[0], key=str(i)) for i in range(500)]  # 57 x 38 each: 3.249 MB
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_240_000))
    with pytest.raises(UserError, match=r"of 500 images needs about 3 MB, but 3 MB are free: make room"):
        build(many, folder)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_260_000))
    build(many, folder)


def test_a_folder_that_cannot_be_written_is_a_user_error(examples, tmp_path):
    (tmp_path / "output").write_text("a file")
    with pytest.raises(UserError, match=r"output/cache/noise_32px_\w+\.images: cannot be written \(.*DATA\.CACHE"):
        build(examples, tmp_path / "output" / "cache")


def test_a_cache_file_that_is_removed_during_the_run_is_a_user_error(examples, folder):
    cache = build(examples, folder)
    cache.path.unlink()
    with pytest.raises(UserError, match=r"removed or damaged since this run began"):
        make_dataset(examples, cache)[0, 0]


def test_old_unfinished_files_are_removed_and_recent_ones_are_kept(examples, folder):
    path = build(examples, folder).path
    path.unlink()
    old, young = (folder / f".{path.name}.{number}.tmp" for number in (1, 2))
    for leftover in (old, young):
        leftover.write_bytes(b"pixels")
    os.utime(old, (time.time() - 7200,) * 2)
    build(examples, folder)
    assert set(folder.iterdir()) == {path, young}


def test_a_config_keeps_the_cache_in_its_output_folder(toy_birds, tmp_path):
    sources = sorted(toy_birds.rglob("*"))
    config = Config(DATASET_NAME="birds", DATA_DIR=str(toy_birds), OUTPUT_DIR=str(tmp_path))
    examples = read_examples(toy_birds, "train", "birds", captions_per_image=10)
    without = training_set(config, examples, SIZES, tokenize)
    assert list(tmp_path.iterdir()) == []
    config.DATA.CACHE = True
    assert same_items(training_set(config, examples, SIZES, tokenize), without, epochs=2)
    (path,) = (tmp_path / "cache").iterdir()
    assert path.name.startswith("birds_32px_")
    assert sorted(toy_birds.rglob("*")) == sources
    dataset = training_set(config, examples, SIZES, tokenize)
    path.unlink()
    with pytest.raises(UserError, match="removed"):  # so its images come from this file
        dataset[0, 0]


def test_a_batch_holds_bytes_and_converts_them_to_floats_when_read(examples):
    sampler = EpochBatchSampler(len(examples), 3, seed=1)
    batch = next(iter(make_loader(make_dataset(examples), sampler, 1, torch.device("cpu"))))
    assert all(pixels.dtype == torch.uint8 for pixels in batch.pixels)
    for pixels, images in zip(batch.pixels, batch.images, strict=True):
        expected = pixels.numpy().astype(np.float32) / np.float32(127.5) - np.float32(1)
        assert images.dtype == torch.float32 and np.array_equal(images.numpy(), expected)
        assert pixels.is_contiguous(memory_format=torch.channels_last) and images.is_contiguous()


def test_training_tokenises_each_caption_once(examples):
    asked = []

    def count(captions):
        asked.extend(captions)
        return tokenize(captions)

    dataset = TextImageDataset(examples[:1], SIZES, count, seed=5)
    items = [dataset[epoch, 0] for epoch in range(30)]
    assert sorted(asked) == sorted(examples[0].captions)
    assert all(torch.equal(item.tokens, tokenize(list(item.captions))) for item in items)
    assert items[0].tokens.dtype == torch.int64
