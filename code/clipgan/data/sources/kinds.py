"""The kinds of sources: which one a user's files are, and what reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from clipgan.data.sources import coco, cub, flowers, folder, table
from clipgan.data.sources.pictures import Given, Source
from clipgan.errors import UserError

IMAGES, CAPTIONS, NO_CLASSES = "--images", "--captions", "--no-classes"
COLUMN_FLAGS = {column: f"--{column}-column" for column in table.COLUMNS}


@dataclass(frozen=True)
class Kind:
    """A form in which pictures with captions are found."""

    what: str
    find: Callable[[Given], tuple[Path, ...]]  # the paths to read; empty if the source is of another kind
    read: Callable[[Given], Source]
    takes: frozenset[str]  # the flags that have an effect on it, of those that only some kinds take
    lacking: Callable[[Given], str] | None = None  # of files: says what a folder lacks in which ``find`` finds none

    def require_flags(self, flags: Iterable[str]) -> None:
        """Raise ``UserError`` for a flag that would do nothing; ``flags`` are the given ones that some kinds take."""
        for flag in flags:
            if flag not in self.takes:
                raise UserError(
                    f"{flag}: has no effect on {self.what}; leave it out, or say by --kind what else SOURCE is"
                )


def find_kind(given: Given, forced: str | None) -> tuple[Kind, tuple[Path, ...]]:
    """The kind of a source and the paths that its reader is to be given.

    Args:
        given: what the user named, archives unpacked.
        forced: a key of ``KINDS``; None takes the first whose files are there.

    Raises:
        UserError: a path does not exist, or the source is of no kind or of another number of files than the kind has.
    """
    for path in given.paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; expected {_ALL}")
    named = ", ".join(map(str, given.paths))
    most = 2 if forced in (None, "coco") else 1
    if len(given.paths) > most or (len(given.paths) == 2 and not all(path.is_file() for path in given.paths)):
        raise UserError(f"{named}: expected one source, or two of COCO's caption files")
    if forced is not None:
        kind = KINDS[forced]
        paths = kind.find(given)
        if not paths and kind.lacking and _only_folder(given):
            raise UserError(f"{named}: {kind.lacking(given)}")
        return kind, paths or given.paths
    for kind in KINDS.values():
        paths = kind.find(given)
        if paths:
            return kind, paths
    if any(path.name.endswith(".jsonl") or (path / "train.jsonl").exists() for path in given.paths):
        raise UserError(f"{named}: is a manifest already; train on it with --data_dir")
    if given.columns and _only_folder(given):
        raise UserError(f"{named}: {_no_table(given)}")
    raise UserError(f"{named}: is no source that is known; expected {_ALL}; --captions says where texts lie elsewhere")


def _only_folder(given: Given) -> Path | None:
    return given.paths[0] if len(given.paths) == 1 and given.paths[0].is_dir() else None


def _if_here(is_here: Callable[[Path], bool]) -> Callable[[Given], tuple[Path, ...]]:
    def find(given: Given) -> tuple[Path, ...]:
        place = _only_folder(given)
        return (place,) if place is not None and is_here(place) else ()

    return find


def _find_coco(given: Given) -> tuple[Path, ...]:
    place = _only_folder(given)
    if place is not None:
        return coco.files_in(place)
    return given.paths if all(path.suffix.lower() == ".json" for path in given.paths) else ()


def _no_coco(_: Given) -> str:
    return "holds no captions_train*.json or captions_val*.json, here or in annotations/; expected these, or name them"


def _find_table(given: Given) -> tuple[Path, ...]:
    place = _only_folder(given)
    if place is None:
        is_table = len(given.paths) == 1 and given.paths[0].name.lower().endswith(table.ENDINGS)
        return given.paths if is_table else ()
    tables = [path for path in _named_as_tables(place) if table.fault(path, given.columns) is None]
    if len(tables) > 1:
        raise UserError(f"{place}: holds the tables {tables[0].name} and {tables[1].name}: name the one to take")
    return tuple(tables)


def _named_as_tables(place: Path) -> list[Path]:
    return [place / name for name in sorted(os.listdir(place)) if name.lower().endswith(table.ENDINGS)]


def _no_table(given: Given) -> str:
    tables = [path for path in _named_as_tables(given.paths[0]) if path.suffix.lower() != ".txt"]
    why = f": {table.fault(tables[0], given.columns)}" if tables else "; expected one (.csv, .tsv), or its name"
    return f"holds no table with a column of image names and one of captions{why}"


def _find_folder(given: Given) -> tuple[Path, ...]:
    return _if_here(lambda place: folder.is_here(place, given.captions))(given)


# In the order in which they are looked for: what has most marks of its own comes first.
KINDS = {
    "cub": Kind("CUB-200-2011", _if_here(cub.is_here), cub.read, frozenset({CAPTIONS, NO_CLASSES})),
    "coco": Kind("COCO's captions_*.json", _find_coco, coco.read, frozenset({IMAGES}), _no_coco),
    "folder": Kind(
        "a folder of pictures with a .txt beside each", _find_folder, folder.read, frozenset({CAPTIONS, NO_CLASSES})
    ),
    "table": Kind(
        "a CSV or TSV with columns of images and captions",
        _find_table,
        table.read,
        frozenset({IMAGES, NO_CLASSES, *COLUMN_FLAGS.values()}),
        _no_table,
    ),
    "flowers": Kind("Oxford's 102 flowers", _if_here(flowers.is_here), flowers.read, frozenset({CAPTIONS, NO_CLASSES})),
}
_ALL = ", ".join(kind.what for kind in KINDS.values())
