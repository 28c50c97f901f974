"""Manifests are written all or none, and what fails leaves the folder as it was."""

import json
import os
import zipfile

import pytest

from clipgan.data.sources import output as module
from clipgan.data.sources.output import Output, unpacked_for_now
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE

SPLITS = {"train": [{"image": "a.jpg", "captions": ["größer"]}], "test": [{"image": "b.jpg", "captions": ["b"]}]}


def listed(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def archive(path, names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, name)
    return path


def test_both_manifests_are_written(tmp_path):
    with Output() as output:
        output.make(tmp_path / "a/b")
        output.write(tmp_path / "a/b", SPLITS)
    assert listed(tmp_path) == ["a", "a/b", "a/b/test.jsonl", "a/b/train.jsonl"]
    assert (tmp_path / "a/b/train.jsonl").read_bytes() == '{"image": "a.jpg", "captions": ["größer"]}\n'.encode()


def test_a_failure_takes_back_all_that_was_made_and_nothing_else(tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(KeyboardInterrupt), Output() as output:
        output.make(tmp_path / "kept/new/deep")
        output.unpacked(archive(tmp_path / "x.zip", ["a.jpg", "b/c.jpg"]), tmp_path / "kept/new")
        output.copy(tmp_path / "kept/new/x", ["b/c.jpg"], tmp_path / "kept/new/deep")
        assert listed(tmp_path / "kept/new") == [
            "deep", "deep/images", "deep/images/b", "deep/images/b/c.jpg", "x", "x/a.jpg", "x/b", "x/b/c.jpg"
        ]  # fmt: skip
        raise KeyboardInterrupt
    assert listed(tmp_path) == ["kept", "x.zip"]


def test_a_write_that_fails_leaves_the_old_manifests(tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").write_text("old")
    broken = {"train": SPLITS["train"], "test": (1 / 0 for _ in range(1))}
    with pytest.raises(ZeroDivisionError), Output() as output:
        output.write(tmp_path, broken)
    assert listed(tmp_path) == ["train.jsonl"] and (tmp_path / "train.jsonl").read_text() == "old"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*--out"), Output() as output:
        output.write(tmp_path, SPLITS)
    assert listed(tmp_path) == ["train.jsonl"]


def test_manifests_that_are_there_are_only_replaced_on_demand(tmp_path):
    Output.require_new(tmp_path, overwrite=False)
    (tmp_path / "test.jsonl").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"test\.jsonl: is there already; --overwrite replaces it"):
        Output.require_new(tmp_path, overwrite=False)
    Output.require_new(tmp_path, overwrite=True)
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(UserError, match=r"train\.jsonl: is there already"):
        Output.require_new(tmp_path, overwrite=True)


@pytest.mark.parametrize("names, place", [(["a/b.jpg", "a/c.txt"], "a"), (["a/b.jpg", "c.jpg"], "x"), (["b.jpg"], "x")])
def test_an_archive_becomes_one_folder_that_is_not_there_yet(tmp_path, names, place):
    path = archive(tmp_path / "x.zip", names)
    with Output() as output:
        assert output.unpacked(path, tmp_path / "to") == (tmp_path / "to" / place, 0)
    assert len([name for name in listed(tmp_path / "to") if "." in name]) == len(names)
    assert (tmp_path / "to" / place).stat().st_mode & 0o777 == 0o777 & ~_umask()
    before = listed(tmp_path)
    with (
        pytest.raises(UserError, match=rf"to/{place}: is there already; give it instead of x\.zip"),
        Output() as output,
    ):
        output.unpacked(path, tmp_path / "to")
    assert listed(tmp_path) == before


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_copies_are_files_of_their_own(tmp_path, draw):
    draw(tmp_path / "from/ä/b.jpg")
    (tmp_path / "from/link.jpg").symlink_to("ä/b.jpg")
    with Output() as output:
        output.copy(tmp_path / "from", ["ä/b.jpg", "link.jpg"], tmp_path / "to")
    for name in ("ä/b.jpg", "link.jpg"):
        copy = tmp_path / "to/images" / name
        assert copy.read_bytes() == (tmp_path / "from/ä/b.jpg").read_bytes()
        assert copy.stat().st_nlink == 1 and not copy.is_symlink()
    with pytest.raises(UserError, match=r"to/images: is there already"), Output() as output:
        output.copy(tmp_path / "from", ["ä/b.jpg"], tmp_path / "to")
    assert listed(tmp_path / "to") == ["images", "images/link.jpg", "images/ä", "images/ä/b.jpg"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file/in"):
        with pytest.raises(UserError, match="file"), Output() as output:
            output.make(place)


def test_captions_too_many_for_a_line_are_left_out(tmp_path):
    captions = [f"{i:03d} " + '"' * 5000 for i in range(1000)]
    with Output() as output:
        output.write(tmp_path, {"train": [{"image": "a.jpg", "captions": captions}]})
    line = (tmp_path / "train.jsonl").read_bytes()
    kept = json.loads(line)["captions"]
    assert len(line) <= MEGABYTE and kept == captions[: len(kept)] and len(kept) >= 50


def test_texts_are_unpacked_for_now_and_an_archive_within_their_archive_too(tmp_path):
    inner = archive(tmp_path / "text.zip", ["001.Auk/a.txt"])
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as file:
        file.write(inner, "birds/text.zip")
        file.writestr("birds/train/filenames.pickle", b"x")
    with unpacked_for_now(tmp_path / "birds.zip") as folder:
        assert (folder / "text/001.Auk/a.txt").read_text() == "001.Auk/a.txt"
        assert (folder / "birds/train/filenames.pickle").is_file()
    assert not folder.exists()
    with unpacked_for_now(archive(tmp_path / "reed.zip", ["cub/text_c10/001.Auk/a.txt", "cub/other.zip"])) as folder:
        assert listed(folder)[-1] == "cub/text_c10/001.Auk/a.txt"
