"""One image of a data set, and the rules that its name, class and box must keep wherever they were read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from clipgan.errors import UserError
from clipgan.files.gate import short

LARGEST_CLASS = 2**31
_LONGEST_NAME, _LONGEST_PART = 1000, 200  # bytes; file systems take 255, and the names of outputs are longer
_FARTHEST = 1e6  # pixels
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

OnFault = Callable[[str], None]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """An image and what is known about it."""

    image: Path
    key: str  # the image's own name within its data set, without extension; may contain "/"
    captions: tuple[str, ...]  # at least one
    class_id: int
    box: Box | None  # x, y, width, height in pixels


def collect(
    entries: Iterable[tuple[str, Callable[[], Example]]], split: str, on_fault: OnFault | None
) -> list[Example]:
    """Make the example of each entry.

    Args:
        entries: where an entry was read, and a function that makes its example or raises ``UserError``.
        split: for messages.
        on_fault: is told the fault of an entry, which is left out; None raises it.

    Raises:
        UserError: an entry's fault; two examples have one key.
    """
    examples: list[Example] = []
    keys: set[str] = set()
    for where, make in entries:
        try:
            example = make()
            if example.key in keys:
                raise UserError(
                    f"{where}: two images of the {split} split are called {example.key}; expected unique names"
                )
        except UserError as error:
            if on_fault is None:
                raise
            on_fault(str(error))
        else:
            keys.add(example.key)
            examples.append(example)
    return examples


def require_name(name: Any, where: str) -> str:
    """The name of a file within a folder, written with ``/``; ``.`` and doubled slashes are left out.

    It becomes a key, and the key becomes an output file's path.

    Raises:
        UserError: it is no text, leads out of the folder (on Windows too), or is longer or of other characters than
            file systems take.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {short(name)} must be the name of a file")
    if len(name) > _LONGEST_NAME or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise UserError(f"{where}: the name {short(name)} must have at most {_LONGEST_NAME} bytes")
    if _UNFIT.search(name):
        raise UserError(f"{where}: the name {short(name)} holds characters that no file's name should have")
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).anchor or ".." in re.split(r"[/\\]", name) or not path.name:
        raise UserError(f"{where}: {short(name)} must be a file's path within the data folder")
    if any(len(part.encode()) > _LONGEST_PART for part in path.parts):
        raise UserError(f"{where}: the name {short(name)} must have at most {_LONGEST_PART} bytes between slashes")
    return str(path)


def require_class(value: Any, what: str) -> int:
    """A class number; raises ``UserError`` for all but whole numbers from 0 to ``LARGEST_CLASS``."""
    if type(value) is not int or not 0 <= value <= LARGEST_CLASS:
        raise UserError(f"{what} must be a whole number, 0 or more (up to {LARGEST_CLASS}), not {short(value)}")
    return value


def require_box(sides: Any, what: str) -> Box:
    """A box of x, y, width and height in pixels; raises ``UserError`` for what is none, or is empty."""
    numbers = isinstance(sides, list) and len(sides) == 4 and all(type(side) in (int, float) for side in sides)
    if not numbers or not all(-_FARTHEST <= side <= _FARTHEST for side in sides) or min(sides[2:]) <= 0:
        raise UserError(f"{what} in pixels, width and height above 0, not {short(sides)}")
    x, y, width, height = map(float, sides)
    return x, y, width, height


def require_two_classes(class_ids: Iterable[int], where: str, advice: str) -> None:
    """Refuse several images that are all of one class, where nothing can be mismatched.

    Raises:
        UserError: they are.
    """
    class_ids = list(class_ids)
    if len(class_ids) > 1 and len(set(class_ids)) == 1:
        raise UserError(
            f"{where}: all {len(class_ids)} images are of class {class_ids[0]}, but the matching losses and "
            f"R-precision need at least two classes; {advice}"
        )
