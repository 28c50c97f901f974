"""Caption cleaning and reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nltk.tokenize import RegexpTokenizer

from clipgan.data.safe_pickle import load_pickle
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, read_text, reading, short

LONGEST_CAPTION = 20_000  # characters
MOST_CAPTIONS = 1000  # of an image
_LARGEST_TEXT = 16 * MEGABYTE
_WORDS = RegexpTokenizer(r"\w+")
_PICKLE_SPLITS = {"train": 0, "test": 1}
_PADDING = "<end>"  # word 0 of AttnGAN's vocabulary
_LONGEST_WORD = 200


def clean_caption(text: str) -> str:
    """Clean a caption as AttnGAN does: lower-case ASCII words only. U+FFFD (a decoding error) separates words."""
    words = _WORDS.tokenize(text.replace("\ufffd", " ").lower())
    words = [word.encode("ascii", "ignore").decode("ascii") for word in words]
    return " ".join(word for word in words if word)


def prepare_caption(line: str, raw: bool) -> str:
    """Clean a caption, or only strip its outer spaces (``raw``); nothing may be left of it."""
    return line.strip() if raw else clean_caption(line)


def prepare_captions(lines: list[str], *, raw: bool, limit: int | None = None) -> tuple[str, ...]:
    """:func:`prepare_caption` of each; returns the first ``limit`` that are not empty."""
    captions: list[str] = []
    for line in lines:
        if limit is not None and len(captions) == limit:
            break
        caption = prepare_caption(line, raw)
        if caption:
            captions.append(caption)
    return tuple(captions)


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines of a text file of captions that are not blank, as written, each with its number from 1.

    The text is UTF-8 or, by its byte order mark, UTF-16; lines that are neither are read as Windows-1252 or Latin-1.
    CR-LF and CR end a line too; form feeds and Unicode's separators do not.

    Raises:
        UserError: the file is missing, too large or no file, holds no caption, or one of more than ``LONGEST_CAPTION``.
    """
    with reading(path, "a text file with a caption a line"):
        text = read_text(path, _LARGEST_TEXT)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: has no caption; expected one a line")
    if len(text) > LONGEST_CAPTION:
        for number, line in lines:
            if len(line) > LONGEST_CAPTION:
                raise UserError(f"{path}:{number}: {len(line):,} characters; a caption has at most {LONGEST_CAPTION:,}")
    return lines


def read_caption_file(path: str | Path) -> list[str]:
    """The captions of :func:`numbered_lines`; raises as it."""
    return [line for _, line in numbered_lines(path)]


def read_caption_pickle(path: str | Path, split: str, images: int, captions_per_image: int) -> list[list[str]]:
    """The captions of all images by :func:`open_caption_pickle`; raises as it and as its result."""
    captions_of = open_caption_pickle(path, split, images, captions_per_image)
    return [captions_of(image) for image in range(images)]


def open_caption_pickle(
    path: str | Path, split: str, images: int, captions_per_image: int
) -> Callable[[int], list[str]]:
    """The captions of a split from AttnGAN's ``captions.pickle``.

    The file is ``[train, test, index to word, word to index]``, a caption is a list of word indices, and each image
    has ``captions_per_image`` consecutive ones.

    Returns:
        A function that gives the captions of an image by its place in ``filenames.pickle``, and raises ``UserError``
        for those that are of another form or have a word that the vocabulary lacks.

    Raises:
        UserError: the file is missing, is not of this form, or holds another number of captions.
    """
    content = load_pickle(path)
    if not isinstance(content, list | tuple) or len(content) != 4 or not isinstance(content[2], dict):
        raise UserError(f"{path}: expected [train captions, test captions, index to word, word to index]")
    captions, words = content[_PICKLE_SPLITS[split]], content[2]
    if not isinstance(captions, list | tuple):
        raise UserError(f"{path}: expected a list of {split} captions, not {type(captions).__name__}")
    if len(captions) != images * captions_per_image:
        raise UserError(
            f"{path}: has {len(captions)} {split} captions, but {images} images with "
            f"TEXT.CAPTIONS_PER_IMAGE = {captions_per_image} have {images * captions_per_image}"
        )
    for index, word in words.items():
        if not isinstance(word, str) or len(word) > _LONGEST_WORD:
            raise UserError(
                f"{path}: the word {short(index)} is {short(word)}; expected a text of at most {_LONGEST_WORD} letters"
            )
    # A pickle can name one caption many times, so that few bytes stand for many words.
    left = 8 * Path(path).stat().st_size + MEGABYTE

    def captions_of(image: int) -> list[str]:
        nonlocal left
        texts = []
        for caption in captions[image * captions_per_image : (image + 1) * captions_per_image]:
            texts.append(_text_of(caption, words, f"{path}: a {split} caption"))
            left -= len(caption) + len(texts[-1])
            if left < 0:
                raise UserError(f"{path}: its captions are much longer than the file; expected each written once")
        return texts

    return captions_of


def _text_of(caption: Any, words: dict[Any, str], what: str) -> str:
    if isinstance(caption, np.ndarray) and caption.ndim == 1:
        caption = caption.tolist()
    # A word has at least one letter, and a space before the next.
    if not isinstance(caption, list | tuple) or len(caption) > LONGEST_CAPTION // 2:
        raise UserError(
            f"{what} is {short(caption)}; expected a list of words' numbers, at most {LONGEST_CAPTION // 2:,}"
        )
    if not set(map(type, caption)) <= {int}:
        odd = next(index for index in caption if type(index) is not int)
        raise UserError(f"{what} has the word {short(odd)}; expected whole numbers")
    try:
        text = " ".join([word for index in caption if (word := words[index]) != _PADDING])
    except KeyError as error:
        raise UserError(f"{what} has the word {short(error.args[0])}, which the vocabulary lacks") from None
    if len(text) > LONGEST_CAPTION:
        raise UserError(f"{what} has {len(text):,} characters; expected at most {LONGEST_CAPTION:,}")
    return text
