"""The readers of the three data layouts; each gives a list of :class:`Example`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clipgan.data.captions import prepare_captions, read_caption_file, read_caption_pickle
from clipgan.data.safe_pickle import load_pickle
from clipgan.errors import UserError

_README = 'see "Data" in README.md for where to get it'
_COCO_FOLDERS = {"COCO_train2014_": "train2014", "COCO_val2014_": "val2014"}


@dataclass(frozen=True)
class Example:
    """An image and what is known about it."""

    image: Path
    key: str  # the image's own name within its data set, without extension; may contain "/"
    captions: tuple[str, ...]  # at least one
    class_id: int
    box: tuple[float, float, float, float] | None  # x, y, width, height in pixels


def read_examples(
    data_dir: str | Path, split: str, dataset_name: str, *, raw_captions: bool = False, captions_per_image: int
) -> list[Example]:
    """Read a split of a data set.

    A folder with ``<split>.jsonl`` is read as a manifest, whatever ``dataset_name`` is. Otherwise ``birds`` (or
    ``bird``) and ``coco`` name the layout. Under any other name, a folder with ``CUB_200_2011`` is read as birds and
    one without as COCO. Image files are not checked here: a missing one is reported when it is loaded.

    Args:
        data_dir: the data set's folder.
        split: ``train`` or ``test``.
        dataset_name: the config's ``DATASET_NAME``.
        raw_captions: keep captions as written.
        captions_per_image: an image with more captions keeps the first ones, one with fewer keeps those it has.

    Raises:
        UserError: something is missing, broken or contradicts itself; the message names the file.
    """
    root = Path(data_dir)
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: expected 'train' or 'test'")
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder (DATA_DIR, or --data_dir); {_README}")
    if (root / f"{split}.jsonl").is_file():
        read: Callable[..., list[Example]] = _read_manifest
    elif dataset_name in ("bird", "birds"):
        read = _read_birds
    elif dataset_name == "coco":
        read = _read_coco
    else:
        read = _read_birds if (root / "CUB_200_2011").is_dir() else _read_coco
    examples = read(root, split, raw_captions, captions_per_image)
    _require_unique_keys(examples, root, split)
    return examples


def read_own_captions(data_dir: str | Path, *, raw_captions: bool = False) -> list[tuple[str, list[str]]]:
    """The user's own captions: the text files that ``<data_dir>/example_filenames.txt`` lists, in its order.

    Each line names a text file (a caption a line) relative to ``data_dir``, without ``.txt``.

    Returns:
        Pairs of the name and its captions.

    Raises:
        UserError: the list or a text file is missing or empty, or a name leads out of the folder.
    """
    root = Path(data_dir)
    listing = root / "example_filenames.txt"
    if not listing.is_file():
        raise UserError(
            f"{listing}: no such file; expected the names of text files with captions of your own, one a line, "
            f"relative to {root} and without .txt"
        )
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{listing}: is empty; expected a text file's name a line, such as text/my_captions")
    result = []
    for name in names:
        _require_inside(name, str(listing))
        path = root / f"{name}.txt"
        captions = prepare_captions(read_caption_file(path), raw=raw_captions)
        if not captions:
            raise UserError(f"{path}: no caption is left after cleaning, which keeps letters a-z and digits only")
        result.append((name, list(captions)))
    return result


def _read_birds(root: Path, split: str, raw: bool, limit: int) -> list[Example]:
    """CUB-200-2011 as AttnGAN packs it."""
    names = _read_names(root, split, "birds")
    cub = root / "CUB_200_2011"
    boxes = _read_boxes(cub)
    path = root / split / "class_info.pickle"
    class_ids = load_pickle(path)
    if (
        not isinstance(class_ids, list)
        or len(class_ids) != len(names)
        or not all(isinstance(class_id, int | np.integer) for class_id in class_ids)
    ):
        raise UserError(f"{path}: expected a list of {len(names)} class numbers, one for each name in filenames.pickle")
    captions = _read_captions(root, split, names, raw, limit)
    examples = []
    for name, class_id, texts in zip(names, class_ids, captions, strict=True):
        if name not in boxes:
            raise UserError(f"{cub / 'images.txt'}: lists no {name}.jpg, which {split}/filenames.pickle names")
        examples.append(Example(cub / "images" / f"{name}.jpg", name, texts, int(class_id), boxes[name]))
    return examples


def _read_coco(root: Path, split: str, raw: bool, limit: int) -> list[Example]:
    """COCO 2014 as AttnGAN packs it: no boxes, and every image is a class of its own."""
    names = _read_names(root, split, "COCO")
    captions = _read_captions(root, split, names, raw, limit)
    together = root / "images"
    examples = []
    for index, (name, texts) in enumerate(zip(names, captions, strict=True)):
        prefix = next((prefix for prefix in _COCO_FOLDERS if name.startswith(prefix)), None)
        folder = root / _COCO_FOLDERS[prefix] if prefix and not together.is_dir() else together
        examples.append(Example(folder / f"{name}.jpg", name, texts, index, None))
    return examples


def _read_manifest(root: Path, split: str, raw: bool, limit: int) -> list[Example]:
    """The user's own data: one JSON object per line with image and captions, and optionally class and box."""
    path = root / f"{split}.jsonl"
    examples: list[Example] = []
    without_class: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
        example = _manifest_example(entry, root, where, raw, limit)
        if "class" not in entry:
            without_class.append(len(examples))
        examples.append(example)
    if not examples:
        raise UserError(f"{path}: holds no example; expected a JSON object a line")
    # Each image without a class gets a class of its own, with a number above all given ones.
    next_class = 1 + max(example.class_id for example in examples)
    for class_id, index in enumerate(without_class, start=next_class):
        old = examples[index]
        examples[index] = Example(old.image, old.key, old.captions, class_id, old.box)
    return examples


def _manifest_example(entry: Any, root: Path, where: str, raw: bool, limit: int) -> Example:
    """The example of one manifest line; its class is −1 if the line gives none."""
    if not isinstance(entry, dict):
        raise UserError(f'{where}: expected an object such as {{"image": "a.jpg", "captions": ["…"]}}')
    unknown = sorted(set(entry) - {"image", "captions", "class", "box"})
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; expected image, captions, class, box")
    image, captions = entry.get("image"), entry.get("captions")
    if not isinstance(image, str) or not image:
        raise UserError(f'{where}: "image" must be a file name relative to {root}')
    _require_inside(image, where)
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f'{where}: "captions" must be a list of strings')
    texts = prepare_captions(captions, raw=raw, limit=limit)
    if not texts:
        raise UserError(f"{where}: {image} has no caption")
    class_id, box = entry.get("class", -1), entry.get("box")
    if not isinstance(class_id, int) or isinstance(class_id, bool) or ("class" in entry and class_id < 0):
        raise UserError(f'{where}: "class" must be a whole number, 0 or more')
    if box is not None:
        numbers = isinstance(box, list) and all(
            isinstance(side, int | float) and not isinstance(side, bool) for side in box
        )
        if not numbers or len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
            raise UserError(f'{where}: "box" must be [x, y, width, height] in pixels, width and height above 0')
        box = tuple(float(side) for side in box)
    return Example(root / image, str(PurePosixPath(image).with_suffix("")), texts, class_id, box)


def _read_names(root: Path, split: str, layout: str) -> list[str]:
    path = root / split / "filenames.pickle"
    if not path.is_file():
        raise UserError(
            f"{root}: expected a data set in the {layout} layout (no {split}/filenames.pickle) "
            f"or a manifest (no {split}.jsonl); {_README}"
        )
    names = load_pickle(path)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: expected a list of image names")
    for name in names:
        _require_inside(name, str(path))
    return names


def _read_captions(root: Path, split: str, names: list[str], raw: bool, limit: int) -> list[tuple[str, ...]]:
    folder, pickled = root / "text", root / "captions.pickle"
    if folder.is_dir():
        sources = [folder / f"{name}.txt" for name in names]
        texts: Any = map(read_caption_file, sources)
    elif pickled.is_file():
        sources = [pickled] * len(names)
        texts = read_caption_pickle(pickled, split, len(names), limit)
    else:
        raise UserError(f"{root}: has no captions; expected the folder text/ or the file captions.pickle; {_README}")
    result = []
    for name, source, lines in zip(names, sources, texts, strict=True):
        captions = prepare_captions(lines, raw=raw, limit=limit)
        if not captions:
            raise UserError(f"{source}: no caption of {name} is left after cleaning (letters a-z and digits)")
        result.append(captions)
    return result


def _read_boxes(cub: Path) -> dict[str, tuple[float, float, float, float]]:
    """Boxes by image name. images.txt and bounding_boxes.txt use the same image numbers."""
    names = {number: name for number, name in _read_table(cub / "images.txt", 2)}
    path = cub / "bounding_boxes.txt"
    boxes = {}
    for number, *sides in _read_table(path, 5):
        if number not in names:
            raise UserError(f"{path}: image {number} is not in images.txt")
        try:
            x, y, width, height = map(float, sides)
            if not all(map(math.isfinite, (x, y, width, height))):
                raise ValueError
        except ValueError:
            raise UserError(f"{path}: image {number}: expected x, y, width, height, not {' '.join(sides)!r}") from None
        boxes[names[number].removesuffix(".jpg")] = (x, y, width, height)
    return boxes


def _read_table(path: Path, columns: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs to CUB-200-2011; {_README}") from None
    rows = [line.split() for line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) != columns:
            raise UserError(f"{path}:{number}: expected {columns} columns, found {len(row)}")
    return rows


def _require_inside(name: str, where: str) -> None:
    """Refuse a name that leads out of its folder: it becomes a key, and the key becomes an output file's path."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise UserError(f"{where}: {name!r} must be a file's path within the data folder")


def _require_unique_keys(examples: list[Example], root: Path, split: str) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.key in seen:
            raise UserError(f"{root}: two images of the {split} split are called {example.key}; expected unique names")
        seen.add(example.key)
