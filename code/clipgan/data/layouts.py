"""The readers of the data sets as AttnGAN packs them: birds (CUB-200-2011) and COCO 2014."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipgan.data.captions import open_caption_pickle, prepare_captions, read_caption_file
from clipgan.data.example import (
    Box,
    Example,
    OnFault,
    collect,
    require_box,
    require_class,
    require_name,
    require_two_classes,
)
from clipgan.data.safe_pickle import load_pickle
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, read_text, reading, short

README = 'see "Data" in README.md for where to get it'
_COCO_FOLDERS = {"COCO_train2014_": "train2014", "COCO_val2014_": "val2014"}
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jfif", ".jpe", ".pgm")
_ENDING = re.compile(rf"(?:{'|'.join(map(re.escape, _ENDINGS))})$", re.IGNORECASE)
_LARGEST_TABLE = 64 * MEGABYTE


def read_birds(root: Path, split: str, raw: bool, limit: int, on_fault: OnFault | None) -> list[Example]:
    """CUB-200-2011 as AttnGAN packs it; arguments as :func:`clipgan.data.examples.read_examples`."""
    listing, names = _read_names(root, split, "birds")
    cub, find = root / "CUB_200_2011", _Finder()
    boxes = read_boxes(cub, strict=on_fault is None)
    path = root / split / "class_info.pickle"
    class_ids = _as_list(load_pickle(path))
    expected = f"{path}: expected a list of {len(names)} class numbers, one for each name in filenames.pickle"
    if not isinstance(class_ids, list) or len(class_ids) != len(names):
        found = f"one of {len(class_ids)}" if isinstance(class_ids, list) else short(class_ids)
        raise UserError(f"{expected}, not {found}")
    captions_of = _caption_source(root, split, len(names), raw, limit)

    def make(place: int) -> Example:
        name = require_name(names[place], listing)
        class_id = require_class(class_ids[place], f"{expected}; that of {name}")
        captions = captions_of(place, name)
        if name not in boxes:
            raise UserError(f"{cub / 'images.txt'}: lists no {name}.jpg, which {listing} names")
        box = boxes[name]
        if isinstance(box, UserError):
            raise box
        return Example(find(cub / "images", name), name, captions, class_id, box)

    examples = collect(((f"{root}", lambda p=p: make(p)) for p in range(len(names))), split, on_fault)
    sound = (class_id for class_id in class_ids if type(class_id) is int)
    require_two_classes(sound, str(path), "where classes are unknown, give each image a number of its own")
    return examples


def read_coco(root: Path, split: str, raw: bool, limit: int, on_fault: OnFault | None) -> list[Example]:
    """COCO 2014 as AttnGAN packs it: no boxes, and every image is a class of its own."""
    listing, names = _read_names(root, split, "COCO")
    captions_of = _caption_source(root, split, len(names), raw, limit)
    together, find = root / "images", _Finder()
    is_together = together.is_dir()

    def make(place: int) -> Example:
        name = require_name(names[place], listing)
        prefix = next((prefix for prefix in _COCO_FOLDERS if name.startswith(prefix)), None)
        folder = root / _COCO_FOLDERS[prefix] if prefix and not is_together else together
        return Example(find(folder, name), name, captions_of(place, name), place, None)

    return collect(((f"{root}", lambda p=p: make(p)) for p in range(len(names))), split, on_fault)


def _as_list(value: Any) -> Any:
    """A tuple or a row of NumPy's as a list; other values as they are."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


class _Finder:
    """Finds the image of a name, whatever the ending. Each folder is listed once."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[str]] = {}
        self._by_stem: dict[str, dict[str, list[str]]] = {}

    def __call__(self, folder: Path, name: str) -> Path:
        """``<folder>/<name>.jpg`` if it is there or nothing like it is; else the file with another ending of images."""
        path = folder / f"{name}.jpg"
        parent = os.path.dirname(path)
        files = self._files.get(parent)
        if files is None:
            files = self._files[parent] = self._list(parent)
        if path.name in files or not files:
            return path
        if parent not in self._by_stem:
            stems = self._by_stem[parent] = {}
            for file in sorted(files):
                if _ENDING.search(file):
                    stems.setdefault(_ENDING.sub("", file), []).append(file)
        others = self._by_stem[parent].get(path.name.removesuffix(".jpg"), [])
        if not others:
            return path
        return path.with_name(min(others, key=lambda file: _ENDINGS.index(_ENDING.search(file)[0].lower())))

    @staticmethod
    def _list(folder: str) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                return frozenset(entry.name for entry in entries)
        except OSError:  # the error comes when the image is loaded
            return frozenset()


def _read_names(root: Path, split: str, layout: str) -> tuple[str, list]:
    """The path of the list of names, and its entries, which are not checked yet."""
    path = root / split / "filenames.pickle"
    if not os.path.lexists(path):
        raise UserError(
            f"{root}: expected a data set in the {layout} layout (no {split}/filenames.pickle) "
            f"or a manifest (no {split}.jsonl); {README}"
        )
    names = _as_list(load_pickle(path))
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}: expected a list of image names, not {short(names)}")
    return str(path), names


def _caption_source(
    root: Path, split: str, images: int, raw: bool, limit: int
) -> Callable[[int, str], tuple[str, ...]]:
    """A function that gives the captions of an image by its place and name."""
    folder, pickled = root / "text", root / "captions.pickle"
    if folder.is_dir():

        def source(_place: int, name: str) -> tuple[Path, list[str]]:
            path = folder / f"{name}.txt"
            return path, read_caption_file(path)
    elif os.path.lexists(pickled):
        captions_of = open_caption_pickle(pickled, split, images, limit)

        def source(place: int, _name: str) -> tuple[Path, list[str]]:
            return pickled, captions_of(place)
    else:
        raise UserError(f"{root}: has no captions; expected the folder text/ or the file captions.pickle; {README}")

    def captions(place: int, name: str) -> tuple[str, ...]:
        path, lines = source(place, name)
        prepared = prepare_captions(lines, raw=raw, limit=limit)
        if not prepared:
            raise UserError(f"{path}: no caption of {name} is left after cleaning (letters a-z and digits)")
        return prepared

    return captions


def read_boxes(cub: Path, strict: bool) -> dict[str, Box | UserError]:
    """Boxes by image name. images.txt and bounding_boxes.txt use the same image numbers.

    Unless ``strict``, a box that is none stands there as the error that its image deserves.
    """
    listing, path = cub / "images.txt", cub / "bounding_boxes.txt"
    names: dict[str, str] = {}
    seen: set[str] = set()
    for number, name in _read_table(listing, 2):
        name = os.path.normpath(_ENDING.sub("", name))
        if number in names or name in seen:
            raise UserError(f"{listing}: lists {short(number if number in names else name)[1:-1]} twice")
        names[number] = name
        seen.add(name)
    boxes: dict[str, Box | UserError] = {}
    for number, *sides in _read_table(path, 5):
        if number not in names:
            raise UserError(f"{path}: image {short(number)[1:-1]} is not in images.txt")
        if names[number] in boxes:
            raise UserError(f"{path}: image {short(number)[1:-1]} has two boxes; expected one")
        try:
            try:
                numbers: Any = list(map(float, sides))
            except ValueError:
                numbers = " ".join(sides)
            boxes[names[number]] = require_box(numbers, f"{path}: image {number}: expected x, y, width, height")
        except UserError as error:
            if strict:
                raise
            boxes[names[number]] = error
    return boxes


def _read_table(path: Path, columns: int) -> list[list[str]]:
    """Rows of words; with two columns, the second is the rest of the line, a name that may hold spaces."""
    with reading(path, f"a table of CUB-200-2011; {README}"):
        text = read_text(path, _LARGEST_TABLE)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows = [line.split(None, columns - 1 if columns == 2 else -1) for _, line in lines]
    for (number, _), row in zip(lines, rows, strict=True):
        if len(row) != columns:
            raise UserError(f"{path}:{number}: expected {columns} columns, found {len(row)}")
    return [[word.strip() for word in row] for row in rows]
