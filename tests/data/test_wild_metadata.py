"""Names, classes, boxes, tables and captions of the birds and COCO layouts as they are found in the wild."""

import os
import pickle
import time

import numpy as np
import pytest

from clipgan.data.examples import read_examples
from clipgan.errors import UserError

NAMES = ["001.A/one", "002.B/two", "003.C/three"]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def dump(path, content):
    write(path, pickle.dumps(content, 2))


@pytest.fixture
def birds(tmp_path):
    dump(tmp_path / "train/filenames.pickle", NAMES)
    dump(tmp_path / "train/class_info.pickle", [1, 2, 3])
    for name in NAMES:
        write(tmp_path / f"text/{name}.txt", f"a {name[6:]} bird\n")
    write(tmp_path / "CUB_200_2011/images.txt", "".join(f"{i} {name}.jpg\n" for i, name in enumerate(NAMES, 1)))
    write(tmp_path / "CUB_200_2011/bounding_boxes.txt", "1 1 2 3 4\n2 1 2 3 4\n3 1 2 3 4\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    dump(tmp_path / "train/filenames.pickle", ["a", "b"])
    for name in "ab":
        write(tmp_path / f"text/{name}.txt", "a dog\n")
    return tmp_path


def read(root, name="birds", **options):
    return read_examples(root, "train", name, captions_per_image=2, **options)


def refused(root, match, name="birds", **options):
    with pytest.raises(UserError, match=match) as caught:
        read(root, name, **options)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 490


@pytest.mark.parametrize("names, classes", [(NAMES[:2], [1, 2, 3]), (NAMES, [1, 2]), (NAMES, []), (NAMES, 3)])
def test_names_and_classes_of_unequal_number_are_refused(birds, names, classes):
    dump(birds / "train/filenames.pickle", names)
    dump(birds / "train/class_info.pickle", classes)
    refused(birds, rf"class_info\.pickle: expected a list of {len(names)} class numbers")


@pytest.mark.parametrize("value", [True, np.bool_(True), 2**70, 2**31 + 1, -1, np.int64(-1), "1", 1.0, None, [1]])
def test_a_class_that_is_no_number_of_a_class_is_refused_by_image(birds, value):
    dump(birds / "train/class_info.pickle", [1, value, 3])
    refused(birds, r"class_info\.pickle: .*002\.B/two must be a whole number, 0 or more")


@pytest.mark.parametrize("classes", [np.array([5, 0, 2**31]), (5, 0, 2**31), [np.uint8(5), np.int32(0), 2**31]])
def test_classes_of_numpy_and_in_tuples_are_read(birds, classes):
    dump(birds / "train/class_info.pickle", classes)
    assert [(e.class_id, type(e.class_id)) for e in read(birds)] == [(5, int), (0, int), (2**31, int)]


def test_one_class_for_all_images_is_refused_with_the_reason(birds):
    dump(birds / "train/class_info.pickle", [4, 4, 4])
    refused(birds, r"class_info\.pickle: all 3 images are of class 4.*R-precision need at least two classes")
    dump(birds / "train/class_info.pickle", [4])
    dump(birds / "train/filenames.pickle", NAMES[:1])
    assert len(read(birds)) == 1


@pytest.mark.parametrize(
    "sides", ["1 2 0 4", "1 2 3 0", "1 2 -3 4", "nan 2 3 4", "1 1e999 3 4", "1 2 3 1e7", "x 2 3 4"]
)
def test_a_box_that_is_empty_or_no_box_is_refused_by_image(birds, sides):
    write(birds / "CUB_200_2011/bounding_boxes.txt", f"1 1 2 3 4\n2 {sides}\n3 1 2 3 4\n")
    refused(birds, r"bounding_boxes\.txt: image 2: expected x, y, width, height")


def test_a_missing_box_is_refused_by_image(birds):
    write(birds / "CUB_200_2011/bounding_boxes.txt", "1 1 2 3 4\n3 1 2 3 4\n")
    refused(birds, r"002\.B/two")


@pytest.mark.parametrize("file", ["images.txt", "bounding_boxes.txt"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"), lambda text: text.decode().encode("utf-16"),
        lambda text: text.replace(b"\n", b"  \n\n"),
    ],
    ids=["BOM", "CR-LF", "CR", "UTF-16", "spaces"],
)  # fmt: skip
def test_tables_are_read_whatever_wrote_them(birds, file, change):
    path = birds / "CUB_200_2011" / file
    path.write_bytes(change(path.read_bytes()))
    assert [example.box for example in read(birds)] == [(1.0, 2.0, 3.0, 4.0)] * 3


@pytest.mark.parametrize(
    "file, line",
    [("images.txt", "1 004.D/four.jpg"), ("images.txt", "4 001.A/one.png"), ("bounding_boxes.txt", "1 9 9 9 9")],
)
def test_a_number_or_name_that_a_table_lists_twice_is_refused(birds, file, line):
    path = birds / "CUB_200_2011" / file
    path.write_text(path.read_text() + line + "\n")
    refused(birds, rf"{file}: .*(twice|two boxes)")


def test_latin_1_in_names_tables_and_captions_is_read(birds):
    name = "002.B/caf\xe9 noir"
    dump(birds / "train/filenames.pickle", [NAMES[0], name, NAMES[2]])
    table = birds / "CUB_200_2011/images.txt"
    table.write_bytes(table.read_text().replace("002.B/two", name).encode("latin-1"))
    write(birds / f"text/{name}.txt", b"ein gr\xfcner Vogel\n")
    example = read(birds, raw_captions=True)[1]
    assert (example.key, example.captions, example.box) == (name, ("ein grüner Vogel",), (1.0, 2.0, 3.0, 4.0))


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".webp", ".bmp", ".tiff"])
def test_an_image_of_another_ending_is_found(birds, ending):
    folder = birds / "CUB_200_2011/images"
    write(folder / f"{NAMES[0]}{ending}", "")
    write(folder / f"{NAMES[0]}.txt", "")
    write(folder / f"{NAMES[1]}.jpg", "")
    write(folder / f"{NAMES[1]}.png", "")
    table = birds / "CUB_200_2011/images.txt"
    table.write_text(table.read_text().replace(f"{NAMES[0]}.jpg", f"{NAMES[0]}{ending}"))
    first, second, third = read(birds)
    assert first.image == folder / f"{NAMES[0]}{ending}" and first.key == NAMES[0]
    assert second.image == folder / f"{NAMES[1]}.jpg"
    assert third.image == folder / f"{NAMES[2]}.jpg"  # the folder is missing: said when the image is loaded


def test_each_folder_of_images_is_listed_once(coco, monkeypatch):
    names = [f"x{i}" for i in range(50)]
    dump(coco / "train/filenames.pickle", names)
    for name in names:
        write(coco / f"text/{name}.txt", "a dog\n")
        write(coco / f"images/{name}.PNG", "")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    assert {example.image.suffix for example in read(coco, "coco")} == {".PNG"}
    assert listed == [str(coco / "images")]


@pytest.mark.parametrize(
    "name",
    [
        "", "..", "../x", "a/../../x", "/x", "..\\x", "a\\..\\..\\x", "C:\\x", "\\\\server\\x", "\\x", "a\0b", "a\nb",
        "a\rb", "a\x1bb", "a\x85b", "a\u2028b", "\ud800", "a/" + "x" * 201, "é" * 101, "a/" * 600 + "x", "x" * 5000,
        b"x", 7, None, ["x"], ".",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("layout", ["birds", "coco"])
def test_a_name_that_is_none_is_refused_by_the_list(tmp_path, layout, name, request):
    root = request.getfixturevalue(layout)
    names = pickle.loads((root / "train/filenames.pickle").read_bytes())
    dump(root / "train/filenames.pickle", [name, *names[1:]])
    refused(root, r"filenames\.pickle: ", layout)


def test_names_at_the_limits_are_read(coco):
    names = ["é" * 100, "/".join(["x" * 199] * 5)]
    dump(coco / "train/filenames.pickle", names)
    (coco / "text/é").parent.mkdir(exist_ok=True)
    for name in names:
        write(coco / f"text/{name}.txt", "a dog\n")
    assert [example.key for example in read(coco, "coco")] == names


@pytest.mark.parametrize("second, fits", [("a", False), ("./a", False), ("a/", False), ("A", True), ("a ", True)])
def test_names_of_one_output_file_are_refused_and_others_are_not(coco, second, fits):
    dump(coco / "train/filenames.pickle", ["a", second])
    write(coco / f"text/{second.strip('/')}.txt", "a cat\n")
    write(coco / "text/a/.txt", "a cat\n")
    if fits:
        assert [example.key for example in read(coco, "coco")] == ["a", second]
    else:
        refused(coco, "two images of the train split are called a", "coco")


@pytest.mark.parametrize("content", [b"", b"\n \n", "🐦🐦\n😀".encode(), b"\xef\xbb\xbf"])
def test_captions_of_which_nothing_is_left_are_refused_by_file(birds, content):
    write(birds / f"text/{NAMES[1]}.txt", content)
    refused(birds, r"two\.txt: .*no caption|two\.txt: has no caption")


def test_captions_of_emoji_only_are_left_out_where_others_are(birds):
    path = birds / f"text/{NAMES[1]}.txt"
    write(path, "🐦\n\ufeffa bird\n" + "word " * 500)
    assert read(birds)[1].captions == ("a bird", " ".join(["word"] * 500))
    assert read(birds, raw_captions=True)[1].captions[0] == "🐦"


@pytest.mark.parametrize("kind", ["folder", "fifo", "huge", "page"])
def test_what_is_no_file_of_captions_is_refused_by_name(birds, kind):
    path = birds / f"text/{NAMES[1]}.txt"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(10**12)
    else:
        path.write_text("<!DOCTYPE html><p>404")
    began = time.process_time()
    refused(birds, r"two\.txt: (is|has)")
    assert time.process_time() - began < 5


def test_a_caption_of_more_than_20_000_characters_is_refused_by_line(birds):
    write(birds / f"text/{NAMES[1]}.txt", "a bird\n" + "a" * 20_001)
    refused(birds, r"two\.txt:2: 20,001 characters")


@pytest.mark.parametrize("caption", [[1, True], [1, 2.0], [1, "2"], [1, 2**70], [1, [1]], 5, None, [1] * 20_000])
def test_a_wrong_caption_of_the_pickle_is_refused(coco, caption):
    for name in "ab":
        (coco / f"text/{name}.txt").unlink()
    (coco / "text").rmdir()
    dump(coco / "captions.pickle", [[[1], [1], [1], caption], [], {1: "dog", 2: "cat"}, {}])
    refused(coco, r"captions\.pickle: a train caption (has|is)", "coco")
    faults = []
    assert [example.key for example in read(coco, "coco", on_fault=faults.append)] == ["a"]
    assert len(faults) == 1
    dump(coco / "captions.pickle", [[[1], (1, 2), np.array([2, 1]), []], [], {1: "dog", 2: "cat"}, {}])
    assert [example.captions for example in read(coco, "coco")] == [("dog", "dog cat"), ("cat dog",)]


@pytest.mark.parametrize("words", [{1: 5}, {1: "x" * 201}, {1: None}])
def test_a_wrong_vocabulary_is_refused(coco, words):
    for name in "ab":
        (coco / f"text/{name}.txt").unlink()
    (coco / "text").rmdir()
    dump(coco / "captions.pickle", [[[1]] * 4, [], words, {}])
    refused(coco, r"captions\.pickle: the word 1 is", "coco")


def spoil(birds, what):
    if what == "captions":
        (birds / f"text/{NAMES[1]}.txt").unlink()
    elif what == "name":
        dump(birds / "train/filenames.pickle", [NAMES[0], "../two", NAMES[2]])
    elif what == "twice":
        dump(birds / "train/filenames.pickle", [NAMES[0], NAMES[0], NAMES[2]])
    elif what == "class":
        dump(birds / "train/class_info.pickle", [1, True, 3])
    elif what == "box":
        write(birds / "CUB_200_2011/bounding_boxes.txt", "1 1 2 3 4\n2 1 2 0 4\n3 1 2 3 4\n")
    elif what == "no box":
        write(birds / "CUB_200_2011/bounding_boxes.txt", "1 1 2 3 4\n3 1 2 3 4\n")


@pytest.mark.parametrize("what", ["captions", "name", "twice", "class", "box", "no box"])
def test_a_fault_of_an_image_can_be_reported_and_the_image_left_out(birds, what):
    spoil(birds, what)
    with pytest.raises(UserError) as caught:
        read(birds)
    faults = []
    examples = read(birds, on_fault=faults.append)
    assert faults == [str(caught.value)]
    assert [example.key for example in examples] == [NAMES[0], NAMES[2]]
    assert [example.class_id for example in examples] == [1, 3]


def test_a_fault_of_the_whole_data_set_is_raised_all_the_same(birds):
    def fail(message):
        raise AssertionError(message)

    dump(birds / "train/class_info.pickle", [1, 2])
    refused(birds, "expected a list of 3", on_fault=fail)
    (birds / "train/filenames.pickle").unlink()
    refused(birds, r"filenames\.pickle", on_fault=fail)


def test_where_all_images_are_faulty_none_is_left(birds):
    for name in NAMES:
        (birds / f"text/{name}.txt").unlink()
    faults = []
    assert read(birds, on_fault=faults.append) == [] and len(faults) == 3
