"""A table (CSV, TSV) with a row for each caption: columns of image names and captions, perhaps classes and splits."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipgan.data.example import require_name
from clipgan.data.sources.pictures import (
    NO_WORD,
    NOT_THERE,
    Given,
    LeftOut,
    Picture,
    PictureFinder,
    Source,
    split_of,
    usable_captions,
    without_val,
)
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, read_text, reading, short

ENDINGS = (".csv", ".tsv", ".txt")
# The usual names of each column, the first that is there is taken.
COLUMNS = {
    "image": ("image", "image_name", "image_path", "filename", "file_name", "file", "filepath", "path", "img"),
    "caption": ("caption", "captions", "text", "description", "comment", "sentence", "title"),
    "class": ("class", "label", "category", "class_name", "class_id"),
    "split": ("split", "set", "partition"),
}
_EXPECTED = "a table (CSV or TSV) with a column of image names and one of captions"
_LARGEST = 512 * MEGABYTE
_DELIMITERS = ",\t;|"
_WITHOUT_QUOTES = "\t|"  # where they separate, quotes are often no more than characters
_TOO_SHORT = "rows without an image, a caption or all columns"
_TOO_LONG = "rows with more cells than the header (a caption that holds the separator must be quoted)"
_BAD_NAME = "rows with a name that is none of a file within the folder"
_CONTRADICTION = "pictures to which rows give two classes or splits"
_TWO_NAMES = "pictures that rows call by two names"


@dataclass(frozen=True)
class _Header:
    """How a table is laid out."""

    delimiter: str
    width: int  # columns up to the last that has a name
    places: dict[str, int]  # of the columns that are used


@dataclass
class _Rows:
    """What the rows of one picture say."""

    captions: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)


def fault(path: Path, named: Mapping[str, str]) -> str | None:
    """Why a file is no table of captions, by its columns; None if it is one. ``named`` are those that the user names.

    The file goes by its plain name in it.
    """
    try:
        _header(path, named)
    except UserError as error:
        return str(error).replace(f"{path}: ", f"{path.name}: ")
    return None


def read(given: Given) -> Source:
    """The pictures of the table ``given.paths[0]`` that are there, with all captions that rows give them.

    Names are relative to ``given.images``, or else to the table's folder; or absolute and within it.

    Raises:
        UserError: it is no table, lacks a column, or has a split of another name than train, val and test.
    """
    (path,) = given.paths
    root = given.images or path.parent
    by_image, left_out = _rows_by_image(path, given.columns)
    find = PictureFinder(root)
    pictures: dict[str, Picture] = {}
    for name in sorted(by_image):
        rows = by_image[name]
        try:
            found = find(require_name(_within(root, name.replace("\\", "/")), ""))
        except UserError:
            left_out.add(_BAD_NAME, name)
            continue
        captions = usable_captions(rows.captions, given.raw)
        if found is None:
            left_out.add(NOT_THERE, name)
        elif not captions:
            left_out.add(NO_WORD, name)
        elif len(rows.labels) > 1 or len(rows.splits) > 1:
            left_out.add(_CONTRADICTION, name)
        elif found in pictures:
            left_out.add(_TWO_NAMES, name)
        else:
            label, split = (next(iter(said), None) for said in (rows.labels, rows.splits))
            pictures[found] = Picture(found, captions, label, split=split)
    sorted_pictures, how = without_val(pictures[name] for name in sorted(pictures))
    has_splits = any(picture.split for picture in sorted_pictures)
    if has_splits and not all(picture.split for picture in sorted_pictures):
        bare = next(picture.name for picture in sorted_pictures if picture.split is None)
        raise UserError(f"{path}: the row of {bare} says no split; expected train, val or test, or no such column")
    split_by = f"a column of {path.name}{how}" if has_splits else ""
    return Source(f"a table of captions ({path.name})", root, root, sorted_pictures, left_out, split_by)


def _rows_by_image(path: Path, named: Mapping[str, str]) -> tuple[dict[str, _Rows], LeftOut]:
    text, header = _header(path, named)
    by_image: dict[str, _Rows] = {}
    left_out = LeftOut()
    longest = max(header.places.values())
    for number, row in _rows(path, text, header.delimiter):
        row = _as_wide_as(header, row)
        if len(row) > header.width:
            left_out.add(_TOO_LONG, f"{path.name}:{number}")
            continue
        cells = {column: row[place].strip() for column, place in header.places.items()} if len(row) > longest else {}
        if not cells.get("image") or not cells.get("caption"):
            left_out.add(_TOO_SHORT, f"{path.name}:{number}")
            continue
        rows = by_image.setdefault(cells["image"], _Rows())
        rows.captions.append(cells["caption"])
        if cells.get("class"):
            rows.labels.add(cells["class"])
        if cells.get("split"):
            split = split_of(cells["split"])
            if split is None:
                raise UserError(
                    f"{path}:{number}: the split {short(cells['split'])} is unknown; expected train, val or test, or "
                    "another column by --split-column"
                )
            rows.splits.add(split)
    return by_image, left_out


def _as_wide_as(header: _Header, row: list[str]) -> list[str]:
    """A row without blank cells to the right of the header's.

    Other cells there are parts of a caption with separators in it that nobody quoted. They are joined to the caption
    where it is the last column; elsewhere, what belongs to it cannot be told, and the row stays too long.
    """
    row = [*row]
    while len(row) > header.width and not row[-1].strip():
        row.pop()
    last = header.width - 1
    if len(row) > header.width and header.places["caption"] == last:
        row[last:] = [header.delimiter.join(row[last:])]
    return row


def _within(root: Path, name: str) -> str:
    """An absolute path within the folder as one relative to it; any other name as it is."""
    if os.path.isabs(name):
        for real in (os.path.abspath, os.path.realpath):
            with contextlib.suppress(ValueError, OSError):
                place = Path(real(os.path.dirname(name)), os.path.basename(name))
                return place.relative_to(real(root)).as_posix()
    return name


def _header(path: Path, named: Mapping[str, str]) -> tuple[str, _Header]:
    """The text from its header on, and how it is laid out."""
    with reading(path, _EXPECTED):
        text = read_text(path, _LARGEST)
        delimiters = _DELIMITERS
        said = re.match(r"sep=(.)\n", text)  # Excel's own line
        if said:
            delimiters, text = said[1], "\n" + text[said.end() :]
        header = text.lstrip("\n").partition("\n")[0]
        found = {sign: next(csv.reader([header], delimiter=sign), []) for sign in delimiters}
        faults = {}
        for sign, cells in found.items():
            try:
                places = _places(cells, named)
            except UserError as error:
                faults[sign] = error
            else:
                width = max(place for place, cell in enumerate(cells, 1) if cell.strip())
                return text, _Header(sign, width, places)
        raise faults[max(found, key=lambda sign: len(found[sign]))]


def _places(cells: Sequence[str], named: Mapping[str, str]) -> dict[str, int]:
    columns = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells]
    places = {}
    for column, usual in COLUMNS.items():
        wanted = [re.sub(r"[\s-]+", "_", named[column].strip().lower())] if column in named else usual
        name = next((name for name in wanted if name in columns), None)
        if name is None and (column in named or column in ("image", "caption")):
            what = f"called {short(named[column])}" if column in named else f"of the {column}s"
            raise UserError(f"no column {what} among {short(', '.join(columns))}; name it by --{column}-column")
        if name is not None:
            if columns.count(name) > 1:
                raise UserError(f"two columns are called {short(name)}; expected one")
            places[column] = columns.index(name)
    return places


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header that are not blank, each with the number of its last line in the text."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        if delimiter not in _WITHOUT_QUOTES:
            raise UserError(
                f"{path}:{reader.line_num}: {error}; a quote within a quoted cell must be doubled, and all be closed"
            ) from None
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE)
        with reading(path, _EXPECTED):
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    yield from rows[1:]
