"""What every reader of a source is given and gives back, and how it finds pictures and takes captions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from clipgan.data.captions import LONGEST_CAPTION, MOST_CAPTIONS, clean_caption
from clipgan.data.example import Box
from clipgan.data.image_file import FORMATS
from clipgan.errors import one_line
from clipgan.files.gate import printable, reading

ENDINGS = frozenset(ending for ending, form in Image.EXTENSION.items() if form in FORMATS)
NO_CAPTION = "pictures without a caption"
NO_WORD = "pictures of whose captions no word is left (cleaning keeps letters a-z and digits; --raw keeps all)"
UNREADABLE = "pictures whose captions cannot be read"
NOT_THERE = "pictures that are named but not there"
_SHOWN, _SHOWN_LENGTH = 3, 120
_DEEPEST = 30  # folders within folders


@dataclass(frozen=True)
class Picture:
    """A picture and what its source says of it."""

    name: str  # its path within the source's folder of pictures, with "/"
    captions: tuple[str, ...]  # at least one
    label: str | None = None  # its class; None where the source has none
    box: Box | None = None
    split: str | None = None  # "train" or "test"; None where the source does not split


class Unusable(Exception):
    """A picture that cannot be used: the reason, such as :data:`NO_CAPTION`, and its name or an error's text."""


class LeftOut:
    """What cannot be used: a number for each reason, and its first names."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Count ``name`` among those of a reason, such as :data:`NO_CAPTION`."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < _SHOWN:
            first.append(one_line(name, _SHOWN_LENGTH))

    def lines(self) -> list[str]:
        """A line for each reason, with the number and the first names."""
        result = []
        for reason, count in self._counts.items():
            more = ", …" if count > _SHOWN else ""
            result.append(f"{reason}: {count:,} ({', '.join(self._first[reason])}{more})")
        return result


@dataclass
class Source:
    """What a reader found."""

    what: str  # in words
    home: Path  # the folder that the manifest belongs into, if the user names none
    root: Path  # the folder that the pictures' names are relative to
    pictures: list[Picture]
    left_out: LeftOut
    split_by: str = ""  # what says which picture belongs to which split; empty where nothing does
    configs: str = "bird"  # or "coco": whose configs suit it best


@dataclass(frozen=True)
class Given:
    """What a reader is given."""

    paths: tuple[Path, ...]  # folders or files; archives are unpacked already
    near: tuple[Path, ...] = ()  # other folders in which files that belong to them may lie
    images: Path | None = None
    captions: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # image, caption, class, split → name of the column
    raw: bool = False


def usable_captions(lines: Iterable[str], raw: bool) -> tuple[str, ...]:
    """The captions that training can use, each on one line, as written otherwise.

    Args:
        lines: captions of one picture.
        raw: take those of which cleaning would leave no word, too.
    """
    captions = []
    for line in lines:
        caption = " ".join(printable(line).split())
        if caption and len(caption) <= LONGEST_CAPTION and (raw or clean_caption(caption)):
            captions.append(caption)
            if len(captions) == MOST_CAPTIONS:
                break
    return tuple(captions)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as those of images that are read."""
    return os.path.splitext(name)[1].lower() in ENDINGS


def is_text(name: str) -> bool:
    """Whether a file's name ends as those of caption files."""
    return os.path.splitext(name)[1].lower() == ".txt"


def split_of(word: str) -> str | None:
    """``train``, ``val`` or ``test`` of the usual names of splits; None for any other word."""
    return _SPLITS.get(word.strip().lower())


_SPLITS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def without_val(pictures: Iterable[Picture]) -> tuple[list[Picture], str]:
    """Give the pictures of a split ``val`` to ``test`` if that has none, else to ``train``.

    Returns:
        The pictures, and in words what was done; an empty text if there are none of ``val``.
    """
    pictures = list(pictures)
    splits = {picture.split for picture in pictures}
    if "val" not in splits:
        return pictures, ""
    to = "train" if "test" in splits else "test"
    moved = [
        Picture(old.name, old.captions, old.label, old.box, to if old.split == "val" else old.split) for old in pictures
    ]
    return moved, f", val counted as {to}"


def walk(folder: Path) -> list[str]:
    """The files under a folder, as paths relative to it with "/", sorted; hidden files and folders are left out.

    Links are followed, each folder once.

    Raises:
        UserError: a folder cannot be read.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def enter(path: str, prefix: str, depth: int) -> None:
        with reading(path or ".", "a folder of files"):
            status = os.stat(path)
            place = (status.st_dev, status.st_ino)
            if place in seen or depth > _DEEPEST:
                return
            seen.add(place)
            with os.scandir(path) as entries:
                listed = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries)
        for name, is_folder, is_file in listed:
            if name.startswith("."):
                continue
            if is_folder:
                enter(os.path.join(path, name), f"{prefix}{name}/", depth + 1)
            elif is_file:
                found.append(prefix + name)

    enter(str(folder), "", 0)
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """The folder itself and the folders directly in it, sorted, without hidden ones; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
    return [folder, *(folder / name for name in names)]


class PictureFinder:
    """Finds pictures by the names that a list gives them. Each folder is listed once."""

    def __init__(self, root: Path, first: str = ""):
        """``first`` is the sub-folder of ``root`` that is looked into before the others."""
        self._root = root
        inner = [path.name for path in subfolders(root)[1:]]
        self._folders = ["", *sorted(inner, key=lambda name: (name != first, name))]
        self._listed: dict[str, tuple[frozenset[str], dict[str, str]]] = {}

    def __call__(self, name: str) -> str | None:
        """The path within the root, with "/", of the picture of a plain name or path; None if there is none.

        A plain name is looked for in the root, then in the folders directly in it. A name without the ending of a
        picture, or with another one than the file has, is found too; one that leads out of the root is not.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return None
        plain = str(path.parent) == "."
        for folder in self._folders if plain else [""]:
            place = str(PurePosixPath(folder) / path.parent)
            names, by_stem = self._list(place)
            stem = os.path.splitext(path.name)[0] if is_picture(path.name) else path.name
            found = path.name if path.name in names else by_stem.get(stem)
            if found:
                return str(PurePosixPath(place) / found)
        return None

    def _list(self, place: str) -> tuple[frozenset[str], dict[str, str]]:
        if place not in self._listed:
            try:
                with os.scandir(self._root / place) as entries:
                    names = sorted(e.name for e in entries if is_picture(e.name) and e.is_file())
            except OSError:
                names = []
            by_stem = {os.path.splitext(name)[0]: name for name in reversed(names)}
            self._listed[place] = frozenset(names), by_stem
        return self._listed[place]
