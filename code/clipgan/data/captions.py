"""Caption cleaning and reading."""

from __future__ import annotations

from pathlib import Path

from nltk.tokenize import RegexpTokenizer

from clipgan.data.safe_pickle import load_pickle
from clipgan.errors import UserError

_WORDS = RegexpTokenizer(r"\w+")
_PICKLE_SPLITS = {"train": 0, "test": 1}
_PADDING = "<end>"  # word 0 of AttnGAN's vocabulary


def clean_caption(text: str) -> str:
    """Clean a caption as AttnGAN does: lower-case ASCII words only. U+FFFD (a decoding error) separates words."""
    words = _WORDS.tokenize(text.replace("\ufffd", " ").lower())
    words = [word.encode("ascii", "ignore").decode("ascii") for word in words]
    return " ".join(word for word in words if word)


def prepare_captions(lines: list[str], *, raw: bool, limit: int | None = None) -> tuple[str, ...]:
    """Clean captions, or only strip their outer spaces (``raw``); returns the first ``limit`` that are not empty."""
    captions: list[str] = []
    for line in lines:
        if limit is not None and len(captions) == limit:
            break
        caption = line.strip() if raw else clean_caption(line)
        if caption:
            captions.append(caption)
    return tuple(captions)


def read_caption_file(path: str | Path) -> list[str]:
    """The captions of a UTF-8 text file, one per line, as written; bytes that are not UTF-8 become U+FFFD.

    Raises:
        UserError: the file is missing or holds no caption.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}; expected a text file with a caption a line") from None
    # Not splitlines(): that would cut a caption at a form feed or a Unicode line separator within it.
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{path}: has no caption; expected one a line")
    return lines


def read_caption_pickle(path: str | Path, split: str, images: int, captions_per_image: int) -> list[list[str]]:
    """The captions of a split from AttnGAN's ``captions.pickle``.

    The file is ``[train, test, index to word, word to index]``, a caption is a list of word indices, and each image
    has ``captions_per_image`` consecutive ones.

    Returns:
        ``images`` lists of ``captions_per_image`` captions, in the order of ``filenames.pickle``.

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
    try:
        texts = [" ".join(word for index in caption if (word := words[index]) != _PADDING) for caption in captions]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: a {split} caption has the word {error}, which the vocabulary lacks") from None
    return [texts[i : i + captions_per_image] for i in range(0, len(texts), captions_per_image)]


def _reason(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror or error})"
