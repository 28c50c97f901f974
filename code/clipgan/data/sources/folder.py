"""A folder of pictures with a ``.txt`` beside each, a caption a line; sub-folders are classes, or splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from clipgan.data.captions import read_caption_file
from clipgan.data.sources.pictures import (
    NO_CAPTION,
    NO_WORD,
    UNREADABLE,
    Given,
    LeftOut,
    Picture,
    Source,
    is_picture,
    is_text,
    split_of,
    usable_captions,
    walk,
    without_val,
)
from clipgan.errors import UserError

ALONE = "caption files without a picture"


def is_here(folder: Path, captions: Path | None) -> bool:
    """Whether a picture of the folder has a text of its name beside it, or in ``captions``."""
    files = walk(folder)
    texts = _texts(files if captions is None else walk(captions))
    return any(is_picture(name) and _stem(name) in texts for name in files)


def read(given: Given) -> Source:
    """The pictures of the folder ``given.paths[0]``, those with captions that can be used.

    The captions of ``a/b.jpg`` are those of ``a/b.txt``, in the same folder or under ``given.captions``. Where the
    folders at the top are called train and test (or val), they are the splits, and what is below them the classes.

    Raises:
        UserError: the folder cannot be read.
    """
    (root,) = given.paths
    files = walk(root)
    beside = given.captions is None
    listed = files if beside else walk(given.captions)
    texts = _texts(listed)
    of_texts = root if beside else given.captions
    names = [name for name in files if is_picture(name)]
    is_split = _are_splits(names)
    labels = {name: _label(name, is_split) for name in names}
    has_classes = len(set(labels.values()) - {None}) > 1

    pictures, left_out, used = [], LeftOut(), set()
    for name in names:
        text = texts.get(_stem(name))
        if text is None:
            left_out.add(NO_CAPTION, name)
            continue
        used.add(text)
        try:
            lines = read_caption_file(of_texts / text)
        except UserError as error:
            left_out.add(UNREADABLE, str(error).replace(f"{of_texts}{os.sep}", ""))
            continue
        captions = usable_captions(lines, given.raw)
        if not captions:
            left_out.add(NO_WORD, name)
            continue
        split = split_of(PurePosixPath(name).parts[0]) if is_split else None
        pictures.append(Picture(name, captions, labels[name] if has_classes else None, split=split))
    for text in sorted(text for text in listed if is_text(text) and text not in used):
        left_out.add(ALONE, text)
    pictures, how = without_val(pictures)
    where = "with a .txt beside each" if beside else f"with texts in {given.captions}"
    split_by = f"the folders' names{how}" if is_split else ""
    return Source(f"a folder of pictures {where}", root, root, pictures, left_out, split_by)


def _texts(files: Iterable[str]) -> dict[str, str]:
    """Caption files by their paths without the ending, which may be written ``.TXT``; ``.txt`` goes first."""
    texts: dict[str, str] = {}
    for name in sorted(filter(is_text, files), key=lambda name: (not name.endswith(".txt"), name)):
        texts.setdefault(_stem(name), name)
    return texts


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _are_splits(names: list[str]) -> bool:
    """Whether the folders at the top are those of splits: nothing else, and one of them to train on."""
    tops = {name.split("/")[0] if "/" in name else None for name in names}
    found = {split_of(top) if top else None for top in tops}
    return "train" in found and len(found) > 1 and None not in found


def _label(name: str, is_split: bool) -> str | None:
    folders = PurePosixPath(name).parts[is_split:-1]
    return "/".join(folders) or None
