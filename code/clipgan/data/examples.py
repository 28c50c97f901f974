"""The examples of a data set, whatever its layout, and captions of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from clipgan.data.captions import numbered_lines, prepare_caption
from clipgan.data.example import Example, OnFault, require_name
from clipgan.data.layouts import README, read_birds, read_coco
from clipgan.data.manifest import read_manifest
from clipgan.errors import UserError, one_line
from clipgan.files.gate import MEGABYTE, read_text, reading, short

__all__ = ["Example", "read_examples", "read_own_captions"]


def read_examples(
    data_dir: str | Path,
    split: str,
    dataset_name: str,
    *,
    raw_captions: bool = False,
    captions_per_image: int,
    on_fault: OnFault | None = None,
) -> list[Example]:
    """Read a split of a data set.

    A folder with ``<split>.jsonl`` is read as a manifest, whatever ``dataset_name`` is. Otherwise ``birds`` (or
    ``bird``) and ``coco`` name the layout. Under any other name, a folder with ``CUB_200_2011`` is read as birds, and
    one without is refused. Image files are not opened here: a missing one is reported when it is loaded.

    Args:
        data_dir: the data set's folder.
        split: ``train`` or ``test``.
        dataset_name: the config's ``DATASET_NAME``.
        raw_captions: keep captions as written.
        captions_per_image: an image with more captions keeps the first ones, one with fewer keeps those it has.
        on_fault: is told what is wrong with a single image (its name, captions, class or box), which is then left
            out; None raises it. Faults of the whole data set are raised.

    Returns:
        The examples; with ``on_fault`` there may be none.

    Raises:
        UserError: something is missing, broken or contradicts itself, or neither the folder nor ``dataset_name`` tells
            the layout; the message names the file or the folder.
    """
    root = Path(data_dir)
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: expected 'train' or 'test'")
    if not os.path.isdir(root):
        raise UserError(f"{root}: no such data folder (DATA_DIR, or --data_dir); {README}")
    read = _reader(root, split, dataset_name)
    return read(root, split, raw_captions, captions_per_image, on_fault)


def _reader(root: Path, split: str, dataset_name: str) -> Callable[..., list[Example]]:
    """The reader of the folder's layout; raises ``UserError`` where neither the folder nor the name tells it."""
    if os.path.lexists(root / f"{split}.jsonl"):
        return read_manifest
    if dataset_name in ("bird", "birds"):
        return read_birds
    if dataset_name == "coco":
        return read_coco
    if (root / "CUB_200_2011").is_dir():
        return read_birds
    raise UserError(
        f"{root}: DATASET_NAME = {short(dataset_name)} names no layout, and the folder shows none; expected "
        f"{split}.jsonl (own data: tools/make_manifest.py writes it), or CUB_200_2011/, text/ and "
        f"{split}/filenames.pickle (birds), or DATASET_NAME = coco with images/ or train2014/ and val2014/, text/ and "
        f"{split}/filenames.pickle"
    )


def read_own_captions(
    data_dir: str | Path,
    *,
    raw_captions: bool = False,
    has_words: Callable[[str], bool] = bool,
    tell: Callable[[str], object] = print,
) -> list[tuple[str, list[str]]]:
    """The user's own captions: the text files that ``<data_dir>/example_filenames.txt`` lists, in its order.

    Each line names a text file (a caption a line) relative to ``data_dir``, without ``.txt``.

    Args:
        data_dir: the data set's folder.
        raw_captions: keep captions as written.
        has_words: whether the encoder's tokenizer finds a word in a caption.
        tell: gets a line about each caption of which nothing is left.

    Returns:
        Pairs of the name and its captions. A caption's place is that of its line among those that are not blank; where
        nothing is left of one, an empty text stands there.

    Raises:
        UserError: the list or a text file is missing or empty, nothing is left of any caption of a file, or a name
            leads out of the folder.
    """
    root = Path(data_dir)
    listing = root / "example_filenames.txt"
    expected = f"the names of text files with captions of your own, one a line, relative to {root} and without .txt"
    with reading(listing, expected):
        lines = read_text(listing, MEGABYTE).split("\n")
    names = list(dict.fromkeys(line.strip().removesuffix(".txt") for line in lines if line.strip()))
    if not names:
        raise UserError(f"{listing}: is empty; expected a text file's name a line, such as text/my_captions")
    result = []
    for name in names:
        require_name(name, str(listing))
        path = root / f"{name}.txt"
        captions = []
        for number, line in numbered_lines(path):
            caption = prepare_caption(line, raw_captions)
            if not caption or not has_words(caption):
                caption = ""
                tell(one_line(f"{path}:{number}: {short(line.strip())} is not drawn, because {_why(raw_captions)}"))
            captions.append(caption)
        if not any(captions):
            raise UserError(f"{path}: no caption can be drawn, because {_why(raw_captions)}")
        result.append((name, captions))
    return result


def _why(raw: bool) -> str:
    if raw:
        return "CLIP's tokenizer finds no word in it"
    return "no word is left after cleaning, which keeps letters a-z and digits only; TEXT.RAW_CAPTIONS=True keeps all"
