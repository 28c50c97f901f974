"""CUB-200-2011 as its authors pack it, with captions in text files: AttnGAN's ``text`` or Reed's ``text_c10``."""

from __future__ import annotations

import os
from pathlib import Path

from clipgan.data.example import Box
from clipgan.data.layouts import read_boxes
from clipgan.data.sources.pictures import (
    NOT_THERE,
    Given,
    LeftOut,
    Picture,
    PictureFinder,
    Source,
    Unusable,
    subfolders,
)
from clipgan.data.sources.published import Published
from clipgan.errors import UserError

_NO_BOX = "pictures whose box is none"
_MISSING = (
    "CUB-200-2011 comes without captions, and neither text/<class>/<name>.txt (AttnGAN) nor "
    "text_c10/<class>/<name>.txt (Reed) is there"
)


def is_here(folder: Path) -> bool:
    """Whether CUB-200-2011 is the folder or directly in it."""
    return _find(folder) is not None


def _find(folder: Path) -> Path | None:
    for place in subfolders(folder):
        if (place / "images").is_dir() and all((place / f).is_file() for f in ("images.txt", "bounding_boxes.txt")):
            return place
    return None


def read(given: Given) -> Source:
    """The pictures that ``images.txt`` lists, with class, box and captions.

    Captions are looked for in ``given.captions``, or else in ``text_c10`` or ``text`` in or beside the folder. The
    published class-disjoint split is taken where its lists are there (:class:`OfficialSplit`).

    Raises:
        UserError: it is not CUB-200-2011, a table of it cannot be read, or there are no captions.
    """
    (path,) = given.paths
    cub = _find(path)
    if cub is None:
        raise UserError(f"{path}: expected CUB-200-2011: images/<class>/<name>.jpg, images.txt and bounding_boxes.txt")
    beside = Published.beside(given, cub, _MISSING)
    root = cub / "images"
    find = PictureFinder(root)

    def make(name: str, box: Box | UserError) -> Picture:
        of_class, plain = os.path.split(name)
        found = find(name)
        if found is None:
            raise Unusable(NOT_THERE, name)
        _, captions = beside.texts.class_and_captions(plain, of_class or None, given.raw)
        if isinstance(box, UserError):
            raise Unusable(_NO_BOX, str(box))
        split = beside.official.split(of_class, plain) if beside.official else None
        return Picture(found, captions, of_class or None, box, split)

    pictures, left_out = [], LeftOut()
    for name, box in sorted(read_boxes(cub, strict=False).items(), key=lambda item: item[0]):
        try:
            pictures.append(make(name, box))
        except Unusable as why:
            left_out.add(*why.args)
    what = f"CUB-200-2011, captions from {beside.texts.folder.name}/"
    return Source(what, path, root, pictures, left_out, beside.official.said if beside.official else "")
