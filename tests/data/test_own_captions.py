"""The user's own sentences: numbered as written, and none left out without a word."""

import os

import pytest

from clipgan.data.examples import read_own_captions
from clipgan.errors import UserError


@pytest.fixture
def own(tmp_path):
    def read(content, listing="mine\n", **options):
        told = []
        (tmp_path / "example_filenames.txt").write_bytes(listing if isinstance(listing, bytes) else listing.encode())
        (tmp_path / "mine.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_own_captions(tmp_path, tell=told.append, **options), told

    return read


def test_a_caption_of_which_nothing_is_left_is_told_and_keeps_its_number(own):
    captions, told = own("A red bird.\n\n一只红色的鸟\n🐦\nA blue bird.\n")
    assert captions == [("mine", ["a red bird", "", "", "a blue bird"])]
    assert len(told) == 2
    assert "mine.txt:3: " in told[0] and "一只红色的鸟" in told[0] and "TEXT.RAW_CAPTIONS=True" in told[0]
    assert "mine.txt:4: " in told[1]


def test_raw_captions_keep_them_all(own):
    assert own("A red bird.\n一只红色的鸟\n🐦\n", raw_captions=True) == (
        [("mine", ["A red bird.", "一只红色的鸟", "🐦"])], []
    )  # fmt: skip


def test_a_caption_without_words_for_the_tokenizer_is_told_too(own):
    captions, told = own("a bird\n\x01\n", raw_captions=True, has_words=lambda caption: caption.isprintable())
    assert captions == [("mine", ["a bird", ""])]
    assert len(told) == 1 and "mine.txt:2: " in told[0] and told[0].isprintable()


def test_without_any_caption_left_the_file_is_refused_with_advice(own):
    with pytest.raises(UserError, match=r"mine\.txt: no caption can be drawn.*TEXT\.RAW_CAPTIONS=True"):
        own("一只红色的鸟\n")
    with pytest.raises(UserError, match=r"mine\.txt: has no caption"):
        own("\n")


@pytest.mark.parametrize("listing", [b"\xef\xbb\xbfmine\r\n", "mine\n".encode("utf-16"), "mine.txt\n", "\nmine\nmine"])
def test_the_list_is_read_whatever_wrote_it(own, listing):
    assert own(b"\xef\xbb\xbfA red bird\r\nein gr\xfcner\r\n", listing, raw_captions=True)[0] == [
        ("mine", ["A red bird", "ein grüner"])
    ]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..\\x", "x" * 300, "a\x1bb", "nowhere"])
def test_a_name_that_is_no_file_within_the_folder_is_refused(own, name):
    with pytest.raises(UserError, match=r"example_filenames\.txt: |nowhere\.txt: no such file"):
        own("a bird\n", name)


def test_a_pipe_is_not_waited_for(own, tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt: is a pipe"):
        own("a bird\n", "pipe\n")
