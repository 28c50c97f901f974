import errno
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from clipgan.data.examples import read_examples
from clipgan.data.images import load_image
from clipgan.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_coco.py"
IDS = {"train": (30, 10), "val": (20,)}


@pytest.fixture(scope="module")
def prepare_coco(script):
    return script("tools/prepare_coco.py")


@pytest.fixture
def coco(tmp_path):
    """What cocodataset.org offers: two caption files and two folders of images."""
    for split, ids in IDS.items():
        images, annotations = [], []
        for number in ids:
            name = f"COCO_{split}2014_{number:012d}.jpg"
            images.append({"license": 3, "file_name": name, "height": 6, "width": 8, "id": number})
            for i in range(5):
                caption = f"Caption {i} of\nimage {number}. "
                annotations.append({"image_id": number, "id": 100 * number + i, "caption": caption})
            (tmp_path / f"{split}2014").mkdir(exist_ok=True)
            Image.new("RGB", (8, 6)).save(tmp_path / f"{split}2014" / name)
        annotations.append({"image_id": 999, "id": 1, "caption": "Of an image that is not listed."})
        content = {"info": {}, "images": images, "licenses": [], "annotations": annotations[::-1]}
        path = tmp_path / "annotations" / f"captions_{split}2014.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path


def test_the_official_files_become_a_data_set_that_the_reader_reads(prepare_coco, coco):
    prepare_coco.main(["--data_dir", str(coco)])
    train = read_examples(coco, "train", "coco", captions_per_image=5)
    assert [example.key for example in train] == ["COCO_train2014_000000000010", "COCO_train2014_000000000030"]
    assert sorted(train[0].captions) == [f"caption {i} of image 10" for i in range(5)]
    (test,) = read_examples(coco, "test", "coco", captions_per_image=5)
    assert len(test.captions) == 5
    assert load_image(test.image).size == (8, 6)
    names = pickle.loads((coco / "test/filenames.pickle").read_bytes())
    assert names == ["COCO_val2014_000000000020"]


def test_preparing_twice_changes_no_file(prepare_coco, coco):
    prepare_coco.main(["--data_dir", str(coco)])
    before = {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()}
    prepare_coco.main(["--data_dir", str(coco)])
    assert {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()} == before


def test_the_annotations_may_lie_elsewhere_and_the_images_come_later(prepare_coco, coco, tmp_path):
    root = tmp_path / "elsewhere"
    root.mkdir()
    prepare_coco.main(["--data_dir", str(root), "--annotations", str(coco / "annotations"), "--skip_image_check"])
    assert len(read_examples(root, "train", "coco", captions_per_image=5)) == 2


def test_missing_images_are_counted_before_anything_is_written(prepare_coco, coco):
    (coco / "train2014/COCO_train2014_000000000030.jpg").unlink()
    with pytest.raises(UserError, match=r"train2014: lacks 1 of 2 images, COCO_train2014_000000000030\.jpg"):
        prepare_coco.main(["--data_dir", str(coco)])
    assert not (coco / "text").exists()


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"images": [{"id": 1}], "annotations": []}'])
def test_a_missing_or_invalid_caption_file_is_named(prepare_coco, coco, content):
    path = coco / "annotations/captions_val2014.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"captions_val2014\.json"):
        prepare_coco.main(["--data_dir", str(coco)])
    assert not (coco / "text").exists()


def test_a_missing_folder_is_named(prepare_coco, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        prepare_coco.main(["--data_dir", str(tmp_path / "nowhere")])


def change(coco, edit):
    path = coco / "annotations/captions_val2014.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name",
    [
        "a\0.jpg", "..", "../a.jpg", "..\\a.jpg", "val2014/a.jpg", "a\\b.jpg", "/a.jpg", "x" * 300 + ".jpg", "a.png",
        "a", "", ".jpg", "a\n.jpg", "\ud800.jpg", "C:\\a.jpg", 7, None, ["a.jpg"], "x" * 5000,
    ],
    ids=ascii,
)  # fmt: skip
def test_an_image_that_has_no_plain_name_is_refused_by_file(prepare_coco, coco, name):
    change(coco, lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(UserError, match=r"captions_val2014\.json: .*images\[0\]\.file_name") as caught:
        prepare_coco.main(["--data_dir", str(coco), "--skip_image_check"])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 490
    assert not (coco / "text").exists()


@pytest.mark.parametrize(
    "image, complaint",
    [
        ({"id": 20, "file_name": "b.jpg"}, "two images have the id 20"),
        ({"id": 21, "file_name": "COCO_val2014_000000000020.jpg"}, "two images have the name COCO_val"),
    ],
)
def test_two_images_of_one_id_or_name_are_refused(prepare_coco, coco, image, complaint):
    change(coco, lambda content: content["images"].append(image))
    with pytest.raises(UserError, match=rf"captions_val2014\.json: {complaint}"):
        prepare_coco.main(["--data_dir", str(coco)])


def test_an_image_in_both_splits_is_refused(prepare_coco, coco):
    change(coco, lambda content: content["images"][0].update(file_name="COCO_train2014_000000000010.jpg"))
    with pytest.raises(UserError, match=r"1 images are in both.*COCO_train2014_000000000010"):
        prepare_coco.main(["--data_dir", str(coco), "--skip_image_check"])
    assert not (coco / "text").exists()


@pytest.mark.parametrize("value", ["20", 20.0, True, None, -1, 2**70])
@pytest.mark.parametrize("place", ["images", "annotations"])
def test_an_id_that_is_no_whole_number_is_refused(prepare_coco, coco, place, value):
    change(coco, lambda content: content[place][0].update({"images": {"id": value}}.get(place, {"image_id": value})))
    with pytest.raises(UserError, match=rf"captions_val2014\.json: .*{place}\[0\]\.(image_)?id must be a whole number"):
        prepare_coco.main(["--data_dir", str(coco)])


@pytest.mark.parametrize("value", [5, None, ["a dog"], "a" * 20_001])
def test_a_caption_that_is_no_text_is_refused(prepare_coco, coco, value):
    change(coco, lambda content: content["annotations"][0].update(caption=value))
    with pytest.raises(UserError, match=r"captions_val2014\.json: .*annotations\[0\]\.caption must be a text"):
        prepare_coco.main(["--data_dir", str(coco)])


def test_lone_surrogates_in_captions_become_replacement_characters(prepare_coco, coco):
    change(coco, lambda content: content["annotations"][-1].update(caption="a \ud800 dog\0"))
    prepare_coco.main(["--data_dir", str(coco)])
    assert "a \ufffd dog\ufffd" in (coco / "text/COCO_val2014_000000000020.txt").read_text().split("\n")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"[" * 10**6, b'{"images": [], "images": []}', b"<html>"])
def test_json_that_is_odd_is_read_or_refused(prepare_coco, coco, content):
    path = coco / "annotations/captions_val2014.json"
    if content.startswith(b"\xef"):
        path.write_bytes(content + path.read_bytes())
        assert len(prepare_coco.read_captions(path)) == 1
    else:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"captions_val2014\.json: "):
            prepare_coco.read_captions(path)


def test_a_failed_write_is_named_and_leaves_no_half_written_file(prepare_coco, coco, monkeypatch):
    prepare_coco.main(["--data_dir", str(coco)])
    before = {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()}
    change(coco, lambda content: content["annotations"][-1].update(caption="another"))
    before[coco / "annotations/captions_val2014.json"] = (coco / "annotations/captions_val2014.json").read_bytes()
    write_bytes = Path.write_bytes

    def fill(path, content):
        if b"another" in content:
            write_bytes(path, content[:3])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(UserError, match=r"COCO_val2014_000000000020\.txt: cannot be written .No space left"):
        prepare_coco.main(["--data_dir", str(coco)])
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()} == before


def test_a_file_in_the_place_of_a_folder_is_named(prepare_coco, coco):
    (coco / "text").write_text("")
    with pytest.raises(UserError, match=r"text: cannot be written"):
        prepare_coco.main(["--data_dir", str(coco)])
