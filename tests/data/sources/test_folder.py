"""A folder of pictures with a .txt beside each: classes, splits, and what cannot be used."""

import os

import pytest

from clipgan.data.sources import folder
from clipgan.data.sources.pictures import Given, PictureFinder, Source, walk
from clipgan.errors import UserError


@pytest.fixture
def add(tmp_path, draw, write):
    """Adds a picture with captions to the folder; None leaves the text out."""

    def add(name: str, captions: str | None = "a bird\n") -> None:
        draw(tmp_path / name)
        if captions is not None:
            write((tmp_path / name).with_suffix(".txt"), captions)

    return add


def read(place, **options) -> Source:
    return folder.read(Given((place,), **options))


def test_each_line_of_the_text_beside_a_picture_is_a_caption(tmp_path, add):
    add("b.jpg", "A red bird.\n\n  a   small\tbird \n")
    add("a.PNG", "Größe: 3 Vögel")
    source = read(tmp_path)
    assert [(p.name, p.captions, p.label, p.box, p.split) for p in source.pictures] == [
        ("a.PNG", ("Größe: 3 Vögel",), None, None, None),
        ("b.jpg", ("A red bird.", "a small bird"), None, None, None),
    ]
    assert source.root == source.home == tmp_path and source.left_out.lines() == [] and source.split_by == ""


def test_sub_folders_are_classes_if_two_of_them_hold_pictures(tmp_path, add):
    add("cats/a.jpg")
    assert [p.label for p in read(tmp_path).pictures] == [None]
    add("dogs/small/a.jpg")
    add("c.jpg")
    (tmp_path / "empty").mkdir()
    assert [(p.name, p.label) for p in read(tmp_path).pictures] == [
        ("c.jpg", None), ("cats/a.jpg", "cats"), ("dogs/small/a.jpg", "dogs/small"),
    ]  # fmt: skip


@pytest.mark.parametrize("test", ["test", "Validation"])
def test_folders_called_as_splits_are_splits_and_hold_the_classes(tmp_path, add, test):
    for name in ("train/cats/a.jpg", "train/dogs/b.jpg", f"{test}/cats/c.jpg", f"{test}/d.jpg"):
        add(name)
    source = read(tmp_path)
    assert {p.name: (p.split, p.label) for p in source.pictures} == {
        "train/cats/a.jpg": ("train", "cats"), "train/dogs/b.jpg": ("train", "dogs"),
        f"{test}/cats/c.jpg": ("test", "cats"), f"{test}/d.jpg": ("test", None),
    }  # fmt: skip
    assert "the folders' names" in source.split_by


def test_val_is_trained_on_where_there_is_a_test_split(tmp_path, add):
    for name in ("train/a.jpg", "val/b.jpg", "test/c.jpg"):
        add(name)
    assert [(p.name, p.split) for p in read(tmp_path).pictures] == [
        ("test/c.jpg", "test"), ("train/a.jpg", "train"), ("val/b.jpg", "train"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names", [("train/a.jpg", "other/b.jpg"), ("train/a.jpg", "b.jpg"), ("test/a.jpg", "val/b.jpg")]
)
def test_other_folders_beside_train_make_all_of_them_classes(tmp_path, add, names):
    for name in names:
        add(name)
    assert [p.split for p in read(tmp_path).pictures] == [None, None]


def test_what_cannot_be_used_is_counted_by_reason_with_the_first_names(tmp_path, add, write):
    add("good.jpg")
    for number in range(5):
        add(f"bare{number}.jpg", None)
    add("blank.jpg", " \n\n")
    add("long.jpg", "a" * 20_001)
    add("emoji.jpg", "🐦\n!!\n")
    write(tmp_path / "alone.txt", "of no picture")
    (tmp_path / "notes.md").write_text("x")
    add(".hidden/h.jpg")
    source = read(tmp_path)
    assert [p.name for p in source.pictures] == ["good.jpg"]
    first, unreadable, words, alone = source.left_out.lines()
    assert first == "pictures without a caption: 5 (bare0.jpg, bare1.jpg, bare2.jpg, …)"
    assert unreadable.startswith("pictures whose captions cannot be read: 2 (blank.txt: has no caption")
    assert "long.txt:1: 20,001 characters" in unreadable
    assert words.startswith("pictures of whose captions no word is left") and words.endswith(": 1 (emoji.jpg)")
    assert alone == "caption files without a picture: 1 (alone.txt)"


def test_captions_without_english_words_are_taken_raw(tmp_path, add):
    add("a.jpg", "红鸟\n🐦\n")
    assert read(tmp_path).pictures == []
    assert read(tmp_path, raw=True).pictures[0].captions == ("红鸟", "🐦")


def test_the_texts_may_lie_in_a_folder_of_their_own(tmp_path, draw, write):
    draw(tmp_path / "pics/x/a.jpg")
    write(tmp_path / "texts/x/a.txt", "a bird")
    write(tmp_path / "texts/a.txt", "of another picture")
    assert not folder.is_here(tmp_path / "pics", None) and folder.is_here(tmp_path / "pics", tmp_path / "texts")
    source = read(tmp_path / "pics", captions=tmp_path / "texts")
    assert [(p.name, p.captions) for p in source.pictures] == [("x/a.jpg", ("a bird",))]


def test_texts_in_capitals_are_texts(tmp_path, draw, write):
    for name in ("a.jpg", "b.JPG"):
        draw(tmp_path / name)
    write(tmp_path / "a.TXT", "a bird")
    assert folder.is_here(tmp_path, None)
    write(tmp_path / "b.TXT", "of the other spelling")
    write(tmp_path / "b.txt", "a small bird")
    write(tmp_path / "c.Txt", "alone")
    source = read(tmp_path)
    assert [(p.name, p.captions) for p in source.pictures] == [("a.jpg", ("a bird",)), ("b.JPG", ("a small bird",))]
    assert source.left_out.lines() == ["caption files without a picture: 2 (b.TXT, c.Txt)"]


def test_links_are_followed_once_and_loops_end(tmp_path, add):
    add("pics/a.jpg")
    os.symlink(tmp_path / "pics", tmp_path / "pics" / "loop")
    os.symlink("nowhere", tmp_path / "pics" / "dangling.jpg")
    assert walk(tmp_path / "pics") == ["a.jpg", "a.txt"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone: no such file"):
        walk(tmp_path / "gone")


def test_no_name_leads_out_of_the_folder(tmp_path, draw):
    draw(tmp_path / "out.jpg")
    draw(tmp_path / "in/a.jpg")
    find = PictureFinder(tmp_path / "in")
    assert find("./a.jpg") == "a.jpg"
    assert all(find(name) is None for name in ("../out.jpg", "x/../../out.jpg", str(tmp_path / "out.jpg")))


def test_a_listed_picture_is_found_by_name_folder_and_ending(tmp_path, draw):
    for name in ("a.jpg", "train/b.PNG", "val/b.jpg", "val/deep/c.jpg", "val/d.x.jpg"):
        draw(tmp_path / name)
    (tmp_path / "e.jpg").mkdir()
    find = PictureFinder(tmp_path, first="val")
    asked = ["a.jpg", "a", "a.png", "b.jpg", "train/b.jpg", "c.jpg", "val/deep/c", "d.x", "d", "e.jpg", "f.jpg"]
    found = {name: find(name) for name in asked}
    assert found == {
        "a.jpg": "a.jpg", "a": "a.jpg", "a.png": "a.jpg", "b.jpg": "val/b.jpg", "train/b.jpg": "train/b.PNG",
        "c.jpg": None, "val/deep/c": "val/deep/c.jpg", "d.x": "val/d.x.jpg", "d": None, "e.jpg": None, "f.jpg": None,
    }  # fmt: skip
    assert PictureFinder(tmp_path)("b.jpg") == "train/b.PNG"
    draw(tmp_path / "a.gif")
    assert PictureFinder(tmp_path)("a") == PictureFinder(tmp_path)("a.png") == "a.gif"
