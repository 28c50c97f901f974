"""The words of training: cut as the encoder's tokenizer cuts them, and no more than a model's file takes."""

from __future__ import annotations

import pytest

from clipgan.drawing import vocabulary
from clipgan.drawing.vocabulary import vocabulary_of
from clipgan.networks.clip_encoder import Tokenizer

TOKENIZE = Tokenizer(60)


@pytest.mark.parametrize(
    "caption",
    [
        "a small red bird with black wings", "blue_green 12 10k x2y", "It's a bird, isn't it?", "größer 漢字 naïve",
        "don't; (red-eyed) A4 -- _ &amp; 3.5", "ß 😀 red😀bird",
    ],
)  # fmt: skip
def test_every_word_that_the_tokenizer_finds_in_a_caption_is_in_its_vocabulary(caption):
    (tokens,) = TOKENIZE([caption])
    words = [word for word, _ in TOKENIZE.whole_words(tokens)]
    assert words == TOKENIZE.split(caption)
    assert vocabulary_of([caption], TOKENIZE) == tuple(sorted({w for w in words if any(map(str.isalnum, w))}))


def test_digits_stand_alone_and_marks_are_no_words():
    words = vocabulary_of(["blue_green 12", "10k, blue"], TOKENIZE)
    assert words == ("0", "1", "2", "blue", "green", "k")


def test_words_that_are_too_long_are_left_out():
    assert vocabulary_of([f"a {'x' * 200} {'y' * 201} bird", "z" * 20_000], TOKENIZE) == ("a", "bird", "x" * 200)


def test_of_too_many_words_the_most_frequent_stay(monkeypatch):
    captions = ["red bird", "red wing", "blue bird", "red zebra"]
    monkeypatch.setattr(vocabulary, "MOST_WORDS", 3)
    assert vocabulary_of(captions, TOKENIZE) == ("bird", "blue", "red")
    monkeypatch.setattr(vocabulary, "MOST_WORDS", 100)
    monkeypatch.setattr(vocabulary, "LARGEST_VOCABULARY", len("redbird") + 12)
    assert vocabulary_of(captions, TOKENIZE) == ("bird", "red")


def test_each_distinct_piece_is_cut_once(monkeypatch):
    cut = []
    monkeypatch.setattr(TOKENIZE, "split", lambda piece: cut.append(piece) or [piece])
    vocabulary_of(["a red bird", "a red wing"] * 1000, TOKENIZE)
    assert sorted(cut) == ["a", "bird", "red", "wing"]
