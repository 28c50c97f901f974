import importlib.util
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
def prepare_coco():
    spec = importlib.util.spec_from_file_location("prepare_coco", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
