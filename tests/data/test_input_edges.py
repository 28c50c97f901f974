"""Numbers and bytes that a data set may hold by mistake, and COCO's images in a single folder."""

import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import pytest

from clipgan.data.examples import read_examples, read_own_captions
from clipgan.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_coco.py"


@pytest.fixture
def birds(toy_birds, tmp_path):
    return shutil.copytree(toy_birds, tmp_path / "birds", ignore=shutil.ignore_patterns("*.jpg"))


def read(root, name="birds"):
    return read_examples(root, "test", name, captions_per_image=2)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_box_in_a_manifest_that_is_not_finite_is_refused_by_line(tmp_path, number):
    line = f'{{"image": "a.jpg", "captions": ["a"], "box": [{number}, 2, 3, 4]}}'
    (tmp_path / "test.jsonl").write_text(line)
    with pytest.raises(UserError, match=r'test\.jsonl:1: "box" must be'):
        read(tmp_path)


@pytest.mark.parametrize("sides", ["nan 1 2 3", "1 inf 2 3", "1 two 2 3"])
def test_a_box_in_the_birds_table_that_is_no_number_is_refused_by_image(birds, sides):
    (birds / "CUB_200_2011/bounding_boxes.txt").write_text(f"1 {sides}\n")
    with pytest.raises(UserError, match=r"bounding_boxes\.txt: image 1: expected x, y, width, height"):
        read(birds)


@pytest.mark.parametrize("class_id", ["7", None, 1.5])
def test_a_class_that_is_no_whole_number_is_refused(birds, class_id):
    (birds / "test/class_info.pickle").write_bytes(pickle.dumps([class_id] * 12))
    with pytest.raises(UserError, match=r"class_info\.pickle: expected a list of 12 class numbers"):
        read(birds)


def test_tables_and_lists_that_are_not_utf_8_give_no_traceback(birds):
    (birds / "CUB_200_2011/images.txt").write_bytes(b"1 001.A/caf\xe9.jpg\n")
    (birds / "CUB_200_2011/bounding_boxes.txt").write_text("1 1 2 3 4\n")
    with pytest.raises(UserError, match=r"images\.txt: lists no"):
        read(birds)
    (birds / "example_filenames.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"caf.*no such file"):
        read_own_captions(birds)


def test_coco_may_be_prepared_with_all_its_images_in_one_folder(tmp_path):
    spec = importlib.util.spec_from_file_location("prepare_coco_of_one_folder", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    for number, split in enumerate(("train", "val")):
        name = f"COCO_{split}2014_{number:012d}"
        captions = {"images": [{"id": number, "file_name": f"{name}.jpg"}]}
        captions["annotations"] = [{"image_id": number, "caption": caption} for caption in ("A dog.", " \n")]
        (tmp_path / f"annotations/captions_{split}2014.json").write_text(json.dumps(captions))
        (tmp_path / f"images/{name}.jpg").touch()
    tool.main(["--data_dir", str(tmp_path)])
    (example,) = read(tmp_path, "coco")
    assert example.image.is_file() and example.captions == ("a dog",)
    assert (tmp_path / "text/COCO_val2014_000000000001.txt").read_text() == "A dog.\n"
