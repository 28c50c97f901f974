"""From what a user has to ``train.jsonl`` and ``test.jsonl``: find its kind, read, divide, write, tell."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from clipgan.data.example import LARGEST_CLASS, require_name
from clipgan.data.sources import report
from clipgan.data.sources.kinds import CAPTIONS, COLUMN_FLAGS, IMAGES, NO_CLASSES, find_kind
from clipgan.data.sources.output import COPIES, Output, unpacked_for_now
from clipgan.data.sources.pictures import Given, Picture, Source
from clipgan.data.sources.splitting import Parts, divide
from clipgan.data.sources.unpacking import is_archive
from clipgan.errors import UserError, counted

_BAD_NAME = "pictures whose name no data set takes"
_SAME_NAME = "pictures whose name differs from another's by its ending only"


@dataclass(frozen=True)
class Request:
    """What the user asks for; the flags of ``tools/make_manifest.py``."""

    sources: tuple[Path, ...]
    kind: str | None = None  # a key of KINDS; None finds it
    images: Path | None = None
    captions: Path | None = None
    out: Path | None = None  # None: the folder of the pictures
    copy: bool = False
    overwrite: bool = False
    raw: bool = False
    classes: bool = True
    split_by: str | None = None  # of splitting.WAYS; None: as the source says, else by class if there are enough
    test_share: float | None = None  # None: splitting.TEST_SHARE
    seed: int | None = None  # None: splitting.SEED
    columns: Mapping[str, str] = field(default_factory=dict)  # of a table, by what is in them

    def flags_of_kinds(self) -> list[str]:
        """The flags that are given and that only some kinds of sources take."""
        given = {IMAGES: self.images is not None, CAPTIONS: self.captions is not None, NO_CLASSES: not self.classes}
        return [*(flag for flag, is_given in given.items() if is_given), *(COLUMN_FLAGS[c] for c in self.columns)]


def make_manifest(request: Request) -> list[str]:
    """Write ``train.jsonl`` and ``test.jsonl``; where this raises, nothing is left behind.

    Returns:
        Lines that say what was found, left out and written, and the commands that go on from there.

    Raises:
        UserError: there is nothing to read or nothing that can be used, the pictures lie outside the manifest's folder,
            or something is there already; or a flag would have no effect.
    """
    if request.copy and request.out is None:
        raise UserError("--copy: has no effect without --out, which names the folder to copy the pictures into")
    if request.out is not None:
        Output.require_new(request.out, request.overwrite)
    with Output() as output, contextlib.ExitStack() as until_done:
        given, notes = _prepare(request, output, until_done)
        kind, paths = find_kind(given, request.kind)
        kind.require_flags(request.flags_of_kinds())
        source = kind.read(replace(given, paths=paths))
        out = request.out or _unless_read_only(source.home)
        Output.require_new(out, request.overwrite)
        prefix = _place_within(source.root, out)
        is_copied = prefix is None and request.copy
        if prefix is None and not request.copy:
            raise UserError(
                f"{out}: a manifest names pictures in its own folder, but these lie in {source.root}: add --copy, "
                "which copies them there, or leave --out away"
            )
        prefix = COPIES if is_copied else prefix
        _leave_out_unfit_names(source, prefix)
        if not request.classes:
            source.pictures = [replace(picture, label=None) for picture in source.pictures]

        parts = divide(source, request.split_by, request.test_share, request.seed)
        output.make(out)
        if is_copied:
            output.copy(source.root, sorted(picture.name for picture in source.pictures), out)
        parts, without_classes = _with_two_classes(parts)
        output.write(out, {"train": _entries(parts, parts.train, prefix), "test": _entries(parts, parts.test, prefix)})
    named = ", ".join(map(str, request.sources))
    return [
        f"{named}: {source.what}",
        *notes,
        *report.found(source, parts),
        *without_classes,
        *report.next_steps(out, parts, request.raw, source.configs),
    ]


def _prepare(request: Request, output: Output, until_done: contextlib.ExitStack) -> tuple[Given, list[str]]:
    """What the reader is given: archives of pictures are unpacked for good, one of captions until all is done."""
    paths, near, notes = [], [], []
    for path in request.sources:
        if is_archive(path):
            if request.out is None:
                raise UserError(f"{path}: is an archive; name the folder to unpack it into by --out")
            near.append(path.absolute().parent)
            path, links = output.unpacked(path, request.out)
            if links:
                notes.append(f"left out: {counted(links, 'link')} of {path.name}; links are never unpacked")
        paths.append(path)
    captions = request.captions
    if captions is not None and is_archive(captions):
        captions = until_done.enter_context(unpacked_for_now(captions))
    for flag, folder in (("--captions", captions), ("--images", request.images)):
        if folder is not None and not folder.is_dir():
            also = " or an archive" if flag == "--captions" else ""
            raise UserError(f"{flag} {folder}: expected a folder{also}")
    return Given(tuple(paths), tuple(near), request.images, captions, request.columns, request.raw), notes


def _unless_read_only(home: Path) -> Path:
    """The folder, unless it is marked as one that nobody writes to, which does not stop an administrator.

    Raises:
        UserError: it is.
    """
    if not home.stat().st_mode & 0o222:
        raise UserError(f"{home}: is a read-only folder; name another one by --out, and add --copy")
    return home


def _place_within(root: Path, out: Path) -> str | None:
    """The path of the pictures' folder within the manifest's, with "/"; None if it lies elsewhere."""
    for real in (os.path.abspath, os.path.realpath):
        with contextlib.suppress(ValueError):
            return Path(real(root)).relative_to(real(out)).as_posix()
    return None


def _leave_out_unfit_names(source: Source, prefix: str) -> None:
    """Keep the pictures whose names the reader of manifests takes; raises ``UserError`` if none is left."""
    kept, keys = [], set()
    for picture in sorted(source.pictures, key=lambda picture: picture.name):
        try:
            name = require_name(f"{prefix}/{picture.name}", "")
        except UserError:
            source.left_out.add(_BAD_NAME, picture.name)
            continue
        key = PurePosixPath(name).with_suffix("")
        if key in keys:
            source.left_out.add(_SAME_NAME, picture.name)
            continue
        keys.add(key)
        kept.append(picture)
    source.pictures = kept
    if not kept:
        reasons = "; ".join(source.left_out.lines()) or "there is none"
        raise UserError(f"{source.root}: {source.what}, but no picture can be used: {reasons}")


def _with_two_classes(parts: Parts) -> tuple[Parts, list[str]]:
    """Take the classes off a split whose pictures are all of one: nothing could be mismatched there."""
    said = []
    splits = {"train": parts.train, "test": parts.test}
    for split, pictures in splits.items():
        labels = {picture.label for picture in pictures}
        if len(pictures) > 1 and len(labels) == 1 and None not in labels:
            splits[split] = [replace(picture, label=None) for picture in pictures]
            said.append(f"{split}: all pictures are of one class, so none is written: each is a class of its own there")
    return Parts(splits["train"], splits["test"], parts.how), said


def _entries(parts: Parts, pictures: Iterable[Picture], prefix: str) -> Iterator[dict[str, Any]]:
    """The lines of a split's manifest."""
    numbers = class_numbers(picture.label for picture in (*parts.train, *parts.test))
    for picture in pictures:
        entry: dict[str, Any] = {
            "image": require_name(f"{prefix}/{picture.name}", ""),
            "captions": list(picture.captions),
        }
        if picture.label is not None:
            entry["class"] = numbers[picture.label]
        if picture.box is not None:
            entry["box"] = list(picture.box)
        yield entry


def class_numbers(labels: Iterable[str | None]) -> dict[str, int]:
    """A number for each class: the one that its name begins with (``003.Sooty_Albatross``) if all do, and differ.

    Otherwise the numbers go from 0 in the order of the names.
    """
    names = sorted({label for label in labels if label is not None})
    own = [re.match(r"\d{1,10}(?!\d)", name) for name in names]
    numbers = [int(match[0]) for match in own if match and int(match[0]) <= LARGEST_CLASS]
    if len(set(numbers)) == len(names):
        return dict(zip(names, numbers, strict=True))
    return {name: number for number, name in enumerate(names)}
