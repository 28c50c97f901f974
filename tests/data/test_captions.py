"""Cleaning captions, and reading them from text files and from captions.pickle."""

import pickle

import pytest

from clipgan.data.captions import clean_caption, prepare_captions, read_caption_file, read_caption_pickle
from clipgan.errors import UserError

WORDS = {0: "<end>", 1: "a", 2: "red", 3: "bird", 4: "sings"}


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("A Small bird, with RED wings.", "a small bird with red wings"),
        ("it's black-and-white (mostly)", "it s black and white mostly"),
        ("  spaces\tand   tabs ", "spaces and tabs"),
        ("a café crème bird", "a caf crme bird"),
        ("鳥 bird 2", "bird 2"),
        ("wing\ufffd\ufffdbar", "wing bar"),
        ("...", ""),
    ],
)
def test_cleaning_keeps_lower_case_ascii_words(written, cleaned):
    assert clean_caption(written) == cleaned


def test_captions_are_cut_to_the_limit_after_empty_ones_are_left_out():
    assert prepare_captions(["A b.", "!!", "C", "d"], raw=False, limit=2) == ("a b", "c")
    assert prepare_captions(["A b.", "!!"], raw=False, limit=10) == ("a b",)
    assert prepare_captions(["a", "b"], raw=False) == ("a", "b")


def test_raw_captions_stay_as_written():
    assert prepare_captions([" A café, red. ", "  "], raw=True, limit=5) == ("A café, red.",)


def test_a_caption_file_holds_one_caption_per_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one bird\n\n  \ntwo\x0cbirds\r\nthree \xff birds\n")
    assert [line.rstrip("\r") for line in read_caption_file(path)] == ["one bird", "two\x0cbirds", "three ÿ birds"]


def test_an_empty_or_missing_caption_file_is_named(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"empty\.txt: has no caption; expected one a line"):
        read_caption_file(tmp_path / "empty.txt")
    with pytest.raises(UserError, match=r"nowhere\.txt: no such file"):
        read_caption_file(tmp_path / "nowhere.txt")


def write(path, train, test, words=WORDS):
    path.write_bytes(pickle.dumps([train, test, words, {word: index for index, word in words.items()}], protocol=2))
    return path


def test_the_caption_pickle_gives_each_image_its_own_captions(tmp_path):
    path = write(tmp_path / "captions.pickle", [[1, 2, 3, 0, 0]], [[2, 3], [3, 4], [1, 3, 4, 0], [2]])
    assert read_caption_pickle(path, "test", 2, 2) == [["red bird", "bird sings"], ["a bird sings", "red"]]
    assert read_caption_pickle(path, "train", 1, 1) == [["a red bird"]]


def test_a_caption_pickle_of_another_number_of_captions_is_refused_with_both_numbers(tmp_path):
    path = write(tmp_path / "captions.pickle", [[1]] * 3, [])
    with pytest.raises(UserError, match=r"has 3 train captions, but 2 images with .*CAPTIONS_PER_IMAGE = 2 have 4"):
        read_caption_pickle(path, "train", 2, 2)


@pytest.mark.parametrize("content", [[1, 2, 3], {"train": []}, [[], [], [], []], [3, [], WORDS, {}]])
def test_a_caption_pickle_of_another_form_is_refused(tmp_path, content):
    path = tmp_path / "captions.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"captions\.pickle: expected"):
        read_caption_pickle(path, "train", 1, 1)


def test_a_word_that_the_vocabulary_lacks_is_named(tmp_path):
    with pytest.raises(UserError, match=r"captions\.pickle: .*the word 77"):
        read_caption_pickle(write(tmp_path / "captions.pickle", [[1, 77]], []), "train", 1, 1)
