"""COCO's captions as cocodataset.org offers them, ``captions_*.json`` of 2014 and 2017, and its folders of images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from clipgan.data.example import require_name
from clipgan.data.sources.pictures import (
    NO_CAPTION,
    NO_WORD,
    NOT_THERE,
    Given,
    LeftOut,
    Picture,
    PictureFinder,
    Source,
    usable_captions,
)
from clipgan.errors import UserError, counted
from clipgan.files.gate import MEGABYTE, read_json, reading
from clipgan.files.shapes import Misfit, Shape, list_of, record, text, whole

_EXPECTED = "COCO's captions: images with id and file_name, annotations with image_id and caption"
_LARGEST = 512 * MEGABYTE  # captions_train2014.json has 67
_ID = whole(0, 2**63 - 1)
_NAME = re.compile(r"captions_(?:train|val)\w*\.json")


def _image_name(value: Any, name: str) -> None:
    try:
        require_name(value, name)
    except UserError as error:
        raise Misfit(str(error)) from None


def files_in(folder: Path) -> tuple[Path, ...]:
    """COCO's caption files in a folder or in its ``annotations``, training first; empty if there are none.

    Raises:
        UserError: there are several for one split.
    """
    for place in (folder / "annotations", folder):
        names = sorted(name for name in (os.listdir(place) if place.is_dir() else ()) if _NAME.fullmatch(name))
        if names:
            for split in ("train", "val"):
                of_split = [name for name in names if name.startswith(f"captions_{split}")]
                if len(of_split) > 1:
                    raise UserError(f"{place}: holds {' and '.join(of_split[:2])}: name the one or two files to take")
            return tuple(place / name for name in names)
    return ()


def read(given: Given) -> Source:
    """The pictures of one caption file, or of two, of which one is to train on and one to test.

    Of two files, that with ``val`` or ``test`` in its name is to test; if no name tells, the second is. Images are
    looked for in ``given.images`` (else in the folder of the files, or in the one above if that is ``annotations``)
    and in the folders directly in it, that of the file's own year and split first.

    Raises:
        UserError: a file is not of COCO's form, an image is listed twice, or none of the images is there.
    """
    first = given.paths[0]
    root = given.images or (first.parent.parent if first.parent.name == "annotations" else first.parent)
    left_out, pictures, seen = LeftOut(), [], set()
    for path, split in zip(given.paths, _splits(given.paths), strict=True):
        of_file = path.stem.removeprefix("captions_")
        find = PictureFinder(root, first=of_file)
        listed = read_captions(path)
        there = 0
        for name in sorted(listed):
            found = find(name)
            there += found is not None
            captions = usable_captions(listed[name], given.raw)
            if found is None:
                left_out.add(NOT_THERE, name)
            elif not listed[name]:
                left_out.add(NO_CAPTION, name)
            elif not captions:
                left_out.add(NO_WORD, name)
            elif found in seen:
                raise UserError(f"{path}: the other file lists {name}, too; expected two files without common images")
            else:
                seen.add(found)
                pictures.append(Picture(found, captions, split=split))
        if not listed:
            raise UserError(f"{path}: lists no image; expected {_EXPECTED}")
        if not there:
            raise UserError(
                f"{root}: holds nothing of {path.name}, which lists {counted(len(listed), 'image')}, such as "
                f"{min(listed)} (here, or in {of_file}/); name their folder by --images"
            )
    names = " and ".join(path.name for path in given.paths)
    pictures.sort(key=lambda picture: picture.name)
    split_by = "the two files" if len(given.paths) > 1 else ""
    return Source(f"COCO's {names}", root, root, pictures, left_out, split_by, configs="coco")


def _splits(paths: tuple[Path, ...]) -> tuple[str | None, ...]:
    if len(paths) == 1:
        return (None,)
    first_is_test, second_is_test = (bool(re.search("val|test", path.stem)) for path in paths)
    return ("test", "train") if first_is_test and not second_is_test else ("train", "test")


def read_captions(
    path: Path, image_name: Shape = _image_name, longest: int = 10**6, expected: str = _EXPECTED
) -> dict[str, list[str]]:
    """Captions by the names of all images of a file; annotations of images that it does not list are left out.

    Args:
        path: one of COCO's caption files.
        image_name: what an image's name must be.
        longest: characters of a caption.
        expected: what the file should be, for the message.

    Raises:
        UserError: the file is missing or not of COCO's caption format, or two images have one id or one name.
    """
    image = record({"id": _ID, "file_name": image_name}, others=True)
    annotation = record({"image_id": _ID, "caption": text(longest)}, others=True)
    parts = {"images": list_of(image, at_most=10**7), "annotations": list_of(annotation, at_most=10**8)}
    with reading(path, expected):
        content = read_json(path, _LARGEST)
        record(parts, others=True)(content, "the file")
        names: dict[int, str] = {}
        captions: dict[str, list[str]] = {}
        for image in content["images"]:
            number, name = image["id"], require_name(image["file_name"], str(path))
            if number in names or name in captions:
                what = f"the id {number}" if number in names else f"the name {name}"
                raise Misfit(f"two images have {what}")
            names[number], captions[name] = name, []
    for annotation in content["annotations"]:
        if annotation["image_id"] in names:
            captions[names[annotation["image_id"]]].append(annotation["caption"])
    return captions
