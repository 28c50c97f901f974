import json
import pickle
import shutil

import numpy as np
import pytest

from clipgan.data.examples import read_examples, read_own_captions
from clipgan.errors import UserError

NAMES = {"train": ["001.Auk/Auk_1", "001.Auk/Auk_2"], "test": ["002.Owl/Owl_1"]}
CLASSES = {"train": [1, 3], "test": [2]}


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def birds(tmp_path):
    """Metadata in the birds layout. There are no images, because the readers must not open them."""
    root = tmp_path / "birds"
    for split, names in NAMES.items():
        dump(root / split / "filenames.pickle", names)
        dump(root / split / "class_info.pickle", [np.int64(number) for number in CLASSES[split]])
        for name in names:
            write(root / "text" / f"{name}.txt", f"{name[4:7]} one.\n{name[4:7]} two.\n{name[4:7]} three.\n")
    # The numbers are in another order than the pickles.
    write(root / "CUB_200_2011/images.txt", "7 002.Owl/Owl_1.jpg\n9 001.Auk/Auk_2.jpg\n11 001.Auk/Auk_1.jpg\n")
    write(root / "CUB_200_2011/bounding_boxes.txt", "11 1.0 2.0 3.0 4.0\n7 5.0 6.0 7.0 8.0\n9 9.0 8.0 7.0 6.0\n")
    return root


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    dump(root / "train/filenames.pickle", ["COCO_train2014_000000000009", "COCO_train2014_000000000025"])
    dump(root / "test/filenames.pickle", ["COCO_val2014_000000000042"])
    for name in ("COCO_train2014_000000000009", "COCO_train2014_000000000025", "COCO_val2014_000000000042"):
        write(root / "text" / f"{name}.txt", "A dog.\nA cat.\n")
    return root


def read(root, split="train", name="birds", count=2, **options):
    return read_examples(root, split, name, captions_per_image=count, **options)


@pytest.mark.parametrize("name", ["birds", "bird", "my_own"])
def test_birds_come_with_image_key_captions_class_and_box(birds, name):
    first, second = read(birds, name=name)
    assert first.image == birds / "CUB_200_2011/images/001.Auk/Auk_1.jpg"
    assert first.key == "001.Auk/Auk_1"
    assert first.captions == ("auk one", "auk two")
    assert first.class_id == 1 and type(first.class_id) is int
    assert first.box == (1.0, 2.0, 3.0, 4.0)
    assert second.box == (9.0, 8.0, 7.0, 6.0)
    (owl,) = read(birds, "test", name)
    assert (owl.key, owl.class_id, owl.captions) == ("002.Owl/Owl_1", 2, ("owl one", "owl two"))


def test_an_image_with_few_captions_keeps_them_and_others_keep_theirs(birds):
    write(birds / "text/001.Auk/Auk_1.txt", "only one\n")
    first, second = read(birds, count=3)
    assert first.captions == ("only one",)
    assert second.captions == ("auk one", "auk two", "auk three")


def test_raw_captions_are_as_written(birds):
    assert read(birds, raw_captions=True)[0].captions == ("Auk one.", "Auk two.")


@pytest.mark.parametrize("text", [None, "", "?!\n"])
def test_a_caption_file_that_is_missing_or_holds_nothing_is_named(birds, text):
    path = birds / "text/001.Auk/Auk_2.txt"
    path.unlink()
    if text is not None:
        write(path, text)
    with pytest.raises(UserError, match=r"001\.Auk/Auk_2\.txt"):
        read(birds)


@pytest.mark.parametrize(
    "missing, named",
    [
        ("train/filenames.pickle", "train/filenames.pickle"),
        ("train/class_info.pickle", "class_info.pickle"),
        ("CUB_200_2011/images.txt", "images.txt"),
        ("CUB_200_2011/bounding_boxes.txt", "bounding_boxes.txt"),
        ("text", "captions"),
    ],
)
def test_a_missing_file_of_the_birds_layout_is_named(birds, missing, named):
    path = birds / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=named):
        read(birds)


def test_a_missing_data_folder_says_where_to_read_about_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*DATA_DIR.*README"):
        read(tmp_path / "nowhere")


def test_an_image_without_a_box_is_named(birds):
    write(birds / "CUB_200_2011/images.txt", "7 002.Owl/Owl_1.jpg\n11 001.Auk/Auk_1.jpg\n")
    write(birds / "CUB_200_2011/bounding_boxes.txt", "11 1 2 3 4\n7 5 6 7 8\n")
    with pytest.raises(UserError, match=r"images\.txt.*001\.Auk/Auk_2"):
        read(birds)


def test_a_broken_table_is_named_with_its_line(birds):
    write(birds / "CUB_200_2011/bounding_boxes.txt", "11 1 2 3 4\n7 5 6 7\n")
    with pytest.raises(UserError, match=r"bounding_boxes\.txt:2"):
        read(birds)


@pytest.mark.parametrize("classes", [[1], [1, 2, 3], {"a": 1}])
def test_class_numbers_must_match_the_names(birds, classes):
    dump(birds / "train/class_info.pickle", classes)
    with pytest.raises(UserError, match=r"class_info\.pickle: expected a list of 2"):
        read(birds)


@pytest.mark.parametrize("names", [["../../outside", "b"], ["/etc/passwd", "b"], [1, 2], [], "ab"])
def test_names_that_are_no_paths_within_the_folder_are_refused(birds, names):
    dump(birds / "train/filenames.pickle", names)
    with pytest.raises(UserError, match=r"filenames\.pickle"):
        read(birds)


def test_the_same_name_twice_is_refused(birds):
    dump(birds / "train/filenames.pickle", ["001.Auk/Auk_1", "001.Auk/Auk_1"])
    with pytest.raises(UserError, match=r"two images.*Auk_1"):
        read(birds)


def test_coco_images_are_found_in_the_folder_that_their_name_contains(coco):
    first, second = read(coco, name="coco")
    assert first.image == coco / "train2014/COCO_train2014_000000000009.jpg"
    assert (first.class_id, second.class_id) == (0, 1)
    assert first.box is None
    assert first.captions == ("a dog", "a cat")
    (test,) = read(coco, "test", "coco")
    assert test.image == coco / "val2014/COCO_val2014_000000000042.jpg"


@pytest.mark.parametrize("name", ["my_own", "COCO", "Birds", "x" * 100])
def test_a_name_that_names_no_layout_is_refused_unless_the_folder_shows_one(coco, birds, tmp_path, name):
    for folder in (coco, tmp_path):
        with pytest.raises(UserError) as caught:
            read(folder, "test", name)
        said = str(caught.value)
        assert said.startswith(f"{folder}: DATASET_NAME = '{name[:20]}") and len(said) < 480
        needed = ("test.jsonl", "make_manifest.py", "CUB_200_2011/", "text/", "filenames.pickle", "DATASET_NAME = coco")
        assert all(part in said for part in needed)
    assert len(read(birds, name=name)) == 2
    write(coco / "train.jsonl", json.dumps({"image": "a.jpg", "captions": ["a bird"]}))
    assert [example.key for example in read(coco, name=name)] == ["a"]
    with pytest.raises(UserError, match=r"expected test\.jsonl \(own data"):
        read(coco, "test", name)


def test_coco_images_may_all_lie_in_one_folder(coco):
    (coco / "images").mkdir()
    assert read(coco, "test", "coco")[0].image == coco / "images/COCO_val2014_000000000042.jpg"


def test_the_caption_pickle_is_read_if_there_is_no_text_folder(coco):
    shutil.rmtree(coco / "text")
    words = dict(enumerate(["<end>", "a", "dog", "cat"]))
    dump(coco / "captions.pickle", [[[1, 2], [1, 3], [2], [3]], [[3], [2]], words, {}])
    assert [example.captions for example in read(coco, name="coco")] == [("a dog", "a cat"), ("dog", "cat")]
    assert read(coco, "test", "coco")[0].captions == ("cat", "dog")


def manifest(root, *lines):
    write(root / "train.jsonl", "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return root


def test_a_manifest_gives_its_lines_as_examples_whatever_the_data_set_is_called(tmp_path):
    full = {"image": "a/b.c.jpg", "captions": ["One.", "Two.", "Three."], "class": 1, "box": [1, 2, 3, 4]}
    manifest(tmp_path, full, "", {"image": "d.png", "captions": ["Four."]}, {"image": "e.png", "captions": ["Five."]})
    for name in ("birds", "coco", "mine"):
        first, second, third = read(tmp_path, name=name)
        assert (first.image, first.key) == (tmp_path / "a/b.c.jpg", "a/b.c")
        assert (first.captions, first.class_id, first.box) == (("one", "two"), 1, (1.0, 2.0, 3.0, 4.0))
        assert (second.captions, second.box) == (("four",), None)
        assert len({first.class_id, second.class_id, third.class_id}) == 3  # without a class, each has its own


@pytest.mark.parametrize(
    "line, complaint",
    [
        ('{"image": "a.jpg"', "JSON"),
        ("[1]", "object"),
        ({"captions": ["a"]}, '"image"'),
        ({"image": "a.jpg"}, '"captions"'),
        ({"image": "a.jpg", "captions": "a bird"}, '"captions"'),
        ({"image": "a.jpg", "captions": []}, "no caption"),
        ({"image": "a.jpg", "captions": ["..."]}, "no caption"),
        ({"image": "a.jpg", "captions": ["a"], "class": "owl"}, '"class"'),
        ({"image": "a.jpg", "captions": ["a"], "class": -1}, '"class"'),
        ({"image": "a.jpg", "captions": ["a"], "class": True}, '"class"'),
        ({"image": "a.jpg", "captions": ["a"], "box": [1, 2, 3]}, '"box"'),
        ({"image": "a.jpg", "captions": ["a"], "box": [1, 2, 3, 0]}, '"box"'),
        ({"image": "a.jpg", "captions": ["a"], "box": "1 2 3 4"}, '"box"'),
        ({"image": "a.jpg", "captions": ["a"], "label": 3}, "'label'"),
        ({"image": "../a.jpg", "captions": ["a"]}, "within"),
        ({"image": "/a.jpg", "captions": ["a"]}, "within"),
        ({"image": ".", "captions": ["a"]}, "within"),
    ],
)
def test_a_wrong_line_of_a_manifest_is_named_by_file_and_number(tmp_path, line, complaint):
    manifest(tmp_path, {"image": "ok.jpg", "captions": ["fine"]}, line)
    with pytest.raises(UserError, match=rf"train\.jsonl:2: .*{complaint}"):
        read(tmp_path)


def test_an_empty_manifest_is_refused(tmp_path):
    with pytest.raises(UserError, match="no example"):
        read(manifest(tmp_path, ""))


def test_example_captions_come_by_name_in_the_order_of_the_list(tmp_path):
    write(tmp_path / "example_filenames.txt", "text/mine\n\nother\n")
    write(tmp_path / "text/mine.txt", "A Red bird.\nA blue bird.\n")
    write(tmp_path / "other.txt", "A dog.")
    assert read_own_captions(tmp_path) == [("text/mine", ["a red bird", "a blue bird"]), ("other", ["a dog"])]
    assert read_own_captions(tmp_path, raw_captions=True)[1] == ("other", ["A dog."])


@pytest.mark.parametrize(
    "listing, complaint",
    [(None, r"example_filenames\.txt: no such"), ("\n", "empty"), ("text/none", r"text/none\.txt"), ("../x", "within")],
)
def test_a_fault_in_the_example_captions_is_named(tmp_path, listing, complaint):
    if listing is not None:
        write(tmp_path / "example_filenames.txt", listing)
    with pytest.raises(UserError, match=complaint):
        read_own_captions(tmp_path)
