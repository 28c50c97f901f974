"""Spoilt files of every kind: each is read, or refused by a ``UserError`` of one line, quickly and in little memory.

A short run is part of the suite. ``make fuzz`` tries thousands of inputs for each reader (CLIPGAN_FUZZ=2000).
"""

import os
import resource
import time
import warnings

import pytest
from fuzz.mutations import spoilt_bytes, spoilt_tree
from fuzz.readers import readers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clipgan.errors import UserError

TRIED = int(os.environ.get("CLIPGAN_FUZZ", "10"))  # for each reader and way of spoiling
SECONDS, MEGABYTES = 5, 1024
NAMES = (
    "generator", "discriminator", "foreign torch file", "training state", "model JSON", "encoder", "CLIP weights",
    "filenames.pickle", "class_info.pickle", "images.txt", "bounding_boxes.txt", "captions", "captions.pickle",
    "manifest", "own captions", "list of own captions", "image", "image cache", "YAML", "--set", "statistics",
    "metrics.jsonl", "run.json", "evaluated generator", "attributes.json", "COCO captions",
    "safetensors", "model file", "training of a generator", "r_precision.json", "fid.json", "inception_score.json",
    "scores", "Inception weights", "features",
)  # fmt: skip
OPTIONS = settings(
    max_examples=TRIED, deadline=None, database=None, derandomize=TRIED <= 20,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink] if TRIED > 20 else [Phase.generate],
)  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return readers(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_is_tried(known):
    assert set(known) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(known, name, tmp_path):
    for kind, content in known[name].files.items():
        if (name, kind) in UNREADABLE:
            continue
        path = tmp_path / f"file{known[name].suffix}"
        path.write_bytes(content)
        known[name].read(path)


# Good files that lack something on purpose, so that each input stays small.
UNREADABLE = {("generator", "published"), ("discriminator", "published"), ("CLIP weights", "a"),
              ("CLIP weights", "nested"), ("image", "float")}  # fmt: skip


def read(reader, content: bytes, folder) -> None:
    path = folder / f"spoilt{reader.suffix}"
    path.write_bytes(content)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
    except UserError as error:
        message = str(error)
        assert len(message) <= 493 and message.isprintable() and message
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_bytes(known, name, tmp_path):
    reader = known[name]

    @OPTIONS
    @given(st.sampled_from(sorted(reader.files)).flatmap(lambda kind: spoilt_bytes(reader.files[kind])))
    def tried(content):
        read(reader, content, tmp_path)

    tried()


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_values(known, name, tmp_path):
    reader = known[name]
    if reader.tree is None:
        pytest.skip("a file without nested values")

    @OPTIONS
    @given(spoilt_tree(reader))
    def tried(tree):
        try:
            content = reader.dump(tree)
        except Exception:  # no file can hold this
            return
        read(reader, content, tmp_path)

    tried()
