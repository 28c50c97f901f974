"""COCO's caption files of both years, with the images where people keep them."""

import json

import pytest

from clipgan.data.sources import coco
from clipgan.data.sources.pictures import Given
from clipgan.errors import UserError


@pytest.fixture
def make(tmp_path, draw):
    """Writes a caption file of numbered images, and the images themselves into a folder."""

    def make(path: str, ids: tuple[int, ...], prefix: str = "", images: str | None = None, captions: int = 2):
        listed = [{"id": number, "file_name": f"{prefix}{number:012d}.jpg", "height": 6} for number in ids]
        said = [
            {"image_id": number, "id": 10 * number + i, "caption": f"Caption {i} of\nimage {number}. "}
            for number in ids
            for i in range(captions)
        ]
        said.append({"image_id": 999, "id": 1, "caption": "Of an image that is not listed."})
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps({"info": {}, "images": listed, "annotations": said}))
        for image in listed if images is not None else ():
            draw(tmp_path / images / image["file_name"])
        return tmp_path / path

    return make


def read(*paths, **options):
    return coco.read(Given(paths, **options))


@pytest.mark.parametrize("year, prefix", [(2014, "COCO_{}2014_"), (2017, "")])
def test_two_files_are_train_and_test_whatever_their_order(tmp_path, make, year, prefix):
    val = make(f"annotations/captions_val{year}.json", (7,), prefix.format("val"), f"val{year}")
    train = make(f"annotations/captions_train{year}.json", (30, 10), prefix.format("train"), f"train{year}")
    for paths in ((train, val), (val, train)):
        source = read(*paths)
        assert [(p.name, p.split) for p in source.pictures] == [
            (f"train{year}/{prefix.format('train')}000000000010.jpg", "train"),
            (f"train{year}/{prefix.format('train')}000000000030.jpg", "train"),
            (f"val{year}/{prefix.format('val')}000000000007.jpg", "test"),
        ]  # fmt: skip
        assert source.pictures[0].captions == ("Caption 0 of image 10.", "Caption 1 of image 10.")
        assert source.root == tmp_path and source.split_by == "the two files" and source.left_out.lines() == []
    assert coco.files_in(tmp_path) == coco.files_in(tmp_path / "annotations") == (train, val)


def test_one_file_has_no_split(tmp_path, make):
    source = read(make("captions_val2017.json", (1, 2), "", "pics"), images=tmp_path / "pics")
    assert [(p.name, p.split) for p in source.pictures] == [("000000000001.jpg", None), ("000000000002.jpg", None)]
    assert source.split_by == ""


def test_an_image_of_one_name_is_taken_from_the_folder_of_the_files_own_split(make, draw, tmp_path):
    train = make("captions_train2017.json", (5,), "", "train2017")
    val = make("captions_val2017.json", (6,), "", "val2017")
    draw(tmp_path / "train2017/000000000006.jpg")
    draw(tmp_path / "a/000000000005.jpg")
    names = [picture.name for picture in read(train, val).pictures]
    assert names == ["train2017/000000000005.jpg", "val2017/000000000006.jpg"]


def test_images_that_are_not_there_or_have_no_caption_are_counted(make, tmp_path):
    path = make("captions_val2014.json", (1, 2, 3, 4), "", "val2014")
    content = json.loads(path.read_text())
    content["annotations"] = [said for said in content["annotations"] if said["image_id"] != 2]
    content["annotations"] += [{"image_id": 4, "caption": "a \ud800 dog\0"}]
    path.write_text(json.dumps(content))
    (tmp_path / "val2014/000000000003.jpg").unlink()
    source = read(path)
    assert [picture.name[-5:] for picture in source.pictures] == ["1.jpg", "4.jpg"]
    assert source.pictures[1].captions[-1] == "a \ufffd dog\ufffd"
    assert source.left_out.lines() == [
        "pictures without a caption: 1 (000000000002.jpg)",
        "pictures that are named but not there: 1 (000000000003.jpg)",
    ]


def test_images_that_are_all_missing_are_one_line(make, tmp_path):
    path = make("captions_val2014.json", (1, 2), "COCO_val2014_")
    with pytest.raises(UserError, match=r"which lists 2 images, such as COCO_val2014_000000000001\.jpg .*--images"):
        read(path)
    path = make("captions_val2014.json", (7,))
    with pytest.raises(UserError, match=r"which lists 1 image, such as 000000000007\.jpg \(here"):
        read(path)


def test_a_file_without_images_is_named_as_empty(make):
    with pytest.raises(UserError, match=r"captions_val2014\.json: lists no image; expected COCO's captions"):
        read(make("captions_val2014.json", ()))


def test_several_years_in_one_folder_are_named(make, tmp_path):
    make("annotations/captions_train2014.json", (1,))
    make("annotations/captions_train2017.json", (2,))
    with pytest.raises(UserError, match=r"captions_train2014\.json and captions_train2017\.json: name the"):
        coco.files_in(tmp_path)
    assert coco.files_in(tmp_path / "nowhere") == ()


def test_an_image_in_both_files_is_refused(make):
    train = make("captions_train2014.json", (1, 2), "", "images")
    val = make("captions_val2014.json", (2,), "", "images")
    with pytest.raises(UserError, match=r"captions_val2014\.json: the other file lists 000000000002\.jpg, too"):
        read(train, val)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda c: c.pop("annotations"), "lacks annotations"),
        (lambda c: c["images"][0].update(id="1"), r"images\[0\]\.id must be a whole number"),
        (lambda c: c["images"][0].update(file_name="../1.jpg"), r"images\[0\]\.file_name.*within"),
        (lambda c: c["images"][0].update(file_name="/1.jpg"), r"images\[0\]\.file_name.*within"),
        (lambda c: c["images"][0].update(file_name=5), r"images\[0\]\.file_name.*name of a file"),
        (lambda c: c["images"][1].update(id=1), "two images have the id 1"),
        (lambda c: c["images"][1].update(file_name="000000000001.jpg"), "two images have the name 000000000001.jpg"),
        (lambda c: c["annotations"][0].update(caption=None), r"annotations\[0\]\.caption must be a text"),
        (lambda c: c["annotations"][0].pop("caption"), r"annotations\[0\] lacks caption"),
        (lambda c: c.update(images={}), "images must be a list"),
    ],
)
def test_what_is_not_cocos_form_is_refused_by_place(make, change, complaint):
    path = make("captions_val2014.json", (1, 2), "", "images")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"captions_val2014\.json: .*{complaint}"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 10**6, b"<html>"])
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "captions_val2014.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"captions_val2014\.json: "):
        read(path)
