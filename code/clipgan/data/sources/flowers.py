"""Oxford's 102 flowers: ``image_00001.jpg`` and so on, ``imagelabels.mat``, and captions in Reed's ``text_c10``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clipgan.data.sources.matlab import read_numbers
from clipgan.data.sources.pictures import (
    Given,
    LeftOut,
    Picture,
    Source,
    Unusable,
    is_text,
    subfolders,
)
from clipgan.data.sources.published import Published
from clipgan.errors import UserError
from clipgan.files.gate import reading

LABELS = "imagelabels.mat"
_IMAGE = re.compile(r"image_(\d{5})\.jpg")
_CLASS = re.compile(r"class_(\d{5})")
_MOST_CLASSES = 99_999
_NO_CLASS = f"pictures that {LABELS} does not number"
_CONTRADICTION = f"pictures whose class differs between {LABELS} and their captions' folder"
_MISSING = "the flowers come without captions, and no text_c10/class_00001/image_06734.txt (Reed) is there"


def is_here(folder: Path) -> bool:
    """Whether the flowers' pictures are in the folder or in one directly in it, without a text beside each."""
    return _find(folder) is not None


def _find(folder: Path) -> Path | None:
    for place in subfolders(folder):
        with reading(place, "a folder of pictures"):
            files = os.listdir(place)
        images = [name for name in files if _IMAGE.fullmatch(name)]
        texts = {os.path.splitext(name)[0] for name in files if is_text(name)}
        if images and not any(os.path.splitext(name)[0] in texts for name in images):
            return place
    return None


def read(given: Given) -> Source:
    """The pictures with class and captions.

    Captions are looked for in ``given.captions``, or else in ``text_c10`` in or beside the folder. A class is that of
    ``imagelabels.mat`` where that is there, else that of the captions' folder. The published class-disjoint split is
    taken where its lists are there (:class:`OfficialSplit`).

    Raises:
        UserError: there are no such pictures or no captions, or ``imagelabels.mat`` cannot be read.
    """
    (path,) = given.paths
    root = _find(path)
    if root is None:
        raise UserError(f"{path}: expected Oxford's 102 flowers: jpg/image_00001.jpg and so on, from 102flowers.tgz")
    beside = Published.beside(given, root, _MISSING)
    file = next((place / LABELS for place in beside.folders if (place / LABELS).is_file()), None)
    labels = read_numbers(file, "labels", _MOST_CLASSES) if file else None
    with reading(root, "a folder of pictures"):
        names = sorted(name for name in os.listdir(root) if _IMAGE.fullmatch(name))

    def make(name: str) -> Picture:
        plain = name.removesuffix(".jpg")
        folder, captions = beside.texts.class_and_captions(plain, None, given.raw)
        label = _label(name, folder, labels)
        split = beside.official.split("" if label is None else f"class_{label:05d}", plain) if beside.official else None
        return Picture(name, captions, None if label is None else str(label), split=split)

    pictures, left_out = [], LeftOut()
    for name in names:
        try:
            pictures.append(make(name))
        except Unusable as why:
            left_out.add(*why.args)
    of_classes = LABELS if file else "the captions' folders"
    what = f"Oxford's 102 flowers, captions from {beside.texts.folder.name}/, classes from {of_classes}"
    return Source(what, path, root, pictures, left_out, beside.official.said if beside.official else "")


def _label(name: str, folder: str, labels: list[int] | None) -> int | None:
    """The class of a picture by the list of all pictures' classes, or by its captions' folder where there is none.

    Raises:
        Unusable: the list does not have the picture, or the two differ.
    """
    of_folder = _CLASS.fullmatch(folder)
    label = int(of_folder[1]) if of_folder else None
    if labels is None:
        return label
    number = int(_IMAGE.fullmatch(name)[1])
    if not 1 <= number <= len(labels):
        raise Unusable(_NO_CLASS, name)
    if label not in (None, labels[number - 1]):
        raise Unusable(_CONTRADICTION, name)
    return labels[number - 1]
