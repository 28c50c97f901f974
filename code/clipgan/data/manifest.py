"""The reader of a manifest: the user's own data, one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from clipgan.data.captions import LONGEST_CAPTION, MOST_CAPTIONS, prepare_captions
from clipgan.data.example import (
    Example,
    OnFault,
    collect,
    require_box,
    require_class,
    require_name,
    require_two_classes,
)
from clipgan.errors import UserError
from clipgan.files.gate import (
    MEGABYTE,
    decode,
    parse_json,
    printable,
    reading,
    refuse_other_files,
    require_file,
    short,
)

_EXPECTED = 'a JSON object a line, such as {"image": "a.jpg", "captions": ["…"]}'
_KEYS = ("image", "captions", "class", "box")
_LARGEST, _LONGEST_LINE = 1 << 30, MEGABYTE
_NO_CLASS = -1


def read_manifest(root: Path, split: str, raw: bool, limit: int, on_fault: OnFault | None) -> list[Example]:
    """``<split>.jsonl``; arguments as :func:`clipgan.data.examples.read_examples`.

    Each line has ``image`` and ``captions``, and may have ``class`` and ``box``. Each image without a class gets a
    class of its own, with a number above all given ones.
    """
    path = root / f"{split}.jsonl"
    lines = 0

    def entries() -> Iterator[tuple[str, Callable[[], Example]]]:
        nonlocal lines
        for number, line in _lines(path):
            if line.strip():
                lines += 1
                where = f"{path}:{number}"
                yield where, lambda line=line, where=where: make(line, where)

    def make(line: str, where: str) -> Example:
        try:
            entry = parse_json(line)
        except RecursionError:
            raise UserError(f"{where}: is nested too deeply; expected {_EXPECTED}") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}; expected {_EXPECTED}") from None
        return _example(entry, root, where, raw, limit)

    examples = collect(entries(), split, on_fault)
    if not lines:
        raise UserError(f"{path}: holds no example; expected {_EXPECTED}")
    next_class = 1 + max((example.class_id for example in examples), default=_NO_CLASS)
    for index, old in enumerate(examples):
        if old.class_id == _NO_CLASS:
            examples[index] = Example(old.image, old.key, old.captions, next_class, old.box)
            next_class += 1
    classes = (example.class_id for example in examples)
    require_two_classes(classes, str(path), 'leave "class" out, so that each image is a class of its own')
    return examples


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file by their numbers from 1, without holding the file; decoded as by the gate."""
    with reading(path, _EXPECTED):
        require_file(path, _LARGEST)
        with open(path, "rb") as file:
            beginning = file.read(64)
        refuse_other_files(path, beginning)
    wide = beginning.startswith((b"\xff\xfe", b"\xfe\xff"))
    how = {"encoding": "utf-16", "errors": "replace"} if wide else {"mode": "rb"}
    number = 0
    with open(path, **how) as file:
        for piece in _pieces(path, file):
            text = printable(piece) if isinstance(piece, str) else decode(piece)
            for line in text.removesuffix("\n").split("\n"):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise UserError(f"{path}:{number}: the line is too long; expected {_EXPECTED}")
                yield number, line


def _pieces(path: Path, file: Any) -> Iterator[Any]:
    number = 0
    while True:
        with reading(path, _EXPECTED):
            piece = file.readline(_LONGEST_LINE + 1)
        if not piece:
            return
        number += 1
        if len(piece) > _LONGEST_LINE:
            raise UserError(f"{path}:{number}: the line has more than {_LONGEST_LINE:,} bytes; expected {_EXPECTED}")
        yield piece


def _example(entry: Any, root: Path, where: str, raw: bool, limit: int) -> Example:
    """The example of one manifest line; its class is ``_NO_CLASS`` if the line gives none."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object such as {_EXPECTED.partition('such as ')[2]}, not {short(entry)}")
    unknown = sorted(set(entry).difference(_KEYS))
    if unknown:
        raise UserError(f"{where}: unknown key {short(unknown[0])}; expected {', '.join(_KEYS)}")
    image, captions = entry.get("image"), entry.get("captions")
    if not isinstance(image, str) or not image:
        raise UserError(f'{where}: "image" must be a file name relative to {root}, not {short(image)}')
    image = require_name(image, where)
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f'{where}: "captions" must be a list of strings, not {short(captions)}')
    if len(captions) > MOST_CAPTIONS or any(len(caption) > LONGEST_CAPTION for caption in captions):
        raise UserError(
            f'{where}: "captions" must be at most {MOST_CAPTIONS:,} strings of at most {LONGEST_CAPTION:,} characters'
        )
    texts = prepare_captions([printable(caption) for caption in captions], raw=raw, limit=limit)
    if not texts:
        raise UserError(f"{where}: {image} has no caption, or none is left after cleaning")
    class_id = require_class(entry["class"], f'{where}: "class"') if "class" in entry else _NO_CLASS
    box = entry.get("box")
    if box is not None:
        box = require_box(box, f'{where}: "box" must be [x, y, width, height]')
    return Example(root / image, str(PurePosixPath(image).with_suffix("")), texts, class_id, box)
