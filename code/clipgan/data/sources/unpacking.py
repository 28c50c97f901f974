"""Unpacks archives of pictures (.tar, .tar.gz, .tgz, .zip) that may come from strangers.

An archive is looked through as a whole before anything is written: its names, sizes and kinds of members. Only files
that can matter here are written, and only below the folder that is named.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from clipgan.data.example import require_name
from clipgan.data.sources.pictures import ENDINGS
from clipgan.errors import UserError
from clipgan.files.archives import open_archive
from clipgan.files.gate import MEGABYTE, reading, refuse_other_files, require_file

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
TEXTS = frozenset({".txt", ".csv", ".tsv", ".json", ".pickle", ".mat"})
_EXPECTED = f"an archive of pictures or texts ({', '.join(ARCHIVES)})"
_MOST_MEMBERS = 1_000_000
_MOST_TIMES = 200  # that an archive may expand; photographs hardly do, texts about ten times
_BLOCK = 1 << 16  # bytes that are read at once; no header is longer
_BAD_MEMBER = "holds a member that cannot be unpacked"
_ELSEWHERE = "make room, or choose another folder by --out"


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: str  # "file", "folder", "link" or "other"
    target: str = ""  # of a link, relative to the archive's top
    copy: Callable[[IO[bytes]], None] | None = None  # of a file: writes its content


def is_archive(path: Path) -> bool:
    """Whether a path ends as the archives that are read."""
    return path.name.lower().endswith(ARCHIVES)


def archive_stem(path: Path) -> str:
    """The name of an archive without its ending."""
    ending = max((e for e in ARCHIVES if path.name.lower().endswith(e)), key=len, default="")
    return path.name[: len(path.name) - len(ending)] or "unpacked"


def unpack(path: Path, folder: Path, also: Collection[str] = ()) -> int:
    """Write the pictures and texts of an archive into a folder.

    Args:
        path: an archive.
        folder: empty. Where this raises, part of the archive may be in it.
        also: endings of files to write besides pictures and ``TEXTS``.

    Returns:
        How many links are left out. No link is ever made.

    Raises:
        UserError: it is no archive, is cut off or damaged, holds names or links that lead out, devices, more than the
            disk has room for or than its own size explains; or the disk takes no more.
    """
    wanted = ENDINGS | TEXTS | frozenset(also)
    files = total = links = 0
    with reading(path, _EXPECTED), _members(path) as members:
        for count, member in enumerate(members):
            if count >= _MOST_MEMBERS:
                raise ValueError(f"holds more than {_MOST_MEMBERS:,} files")
            if _check(member, wanted):
                files, total = files + 1, total + member.size
            links += member.kind == "link"
        if not files:
            raise ValueError("holds no picture and no text")
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(
            f"{path}: holds {total / MEGABYTE:,.0f} MB, but there is room for {free / MEGABYTE:,.0f} MB in {folder}; "
            f"{_ELSEWHERE}"
        )
    bar = tqdm(total=files, desc=path.name, unit="file", leave=False)
    with bar, reading(path, _EXPECTED), _members(path) as members:
        for member in members:
            if _check(member, wanted):
                _write(member, folder)
                bar.update()
    return links


def _check(member: _Member, wanted: Collection[str]) -> bool:
    """Whether to write a member; raises ``ValueError`` or ``UserError`` for what no archive of pictures holds."""
    name = member.name
    while name.startswith("./"):
        name = name[2:]
    if name in ("", "."):
        return False
    name = require_name(name.rstrip("/"), _BAD_MEMBER)
    if member.kind == "other":
        raise ValueError(f"holds {name}, which is neither a file nor a folder")
    if member.kind == "link":
        target = posixpath.normpath(member.target)
        if target.startswith(("/", "..")):
            raise ValueError(f"holds the link {name}, which leads out of it")
        return False
    parts = name.split("/")
    hidden = parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)
    return member.kind == "file" and not hidden and os.path.splitext(name)[1].lower() in wanted


def _write(member: _Member, folder: Path) -> None:
    target = folder / require_name(member.name, _BAD_MEMBER)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            member.copy(file)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"holds two members called {member.name}, to this file system") from None
    except OSError as error:
        if error.filename is None and error.errno is None:  # of the archive
            raise
        raise UserError(f"{target}: cannot be written ({error.strerror or error}); {_ELSEWHERE}") from None


@contextmanager
def _members(path: Path) -> Iterator[Iterator[_Member]]:
    """The members of an archive, one after the other; each is to be copied before the next is asked for."""
    size = require_file(path)
    most = _MOST_TIMES * size + 64 * MEGABYTE
    with open(path, "rb") as file:
        start = file.read(64)
        refuse_other_files(path, start)
        file.seek(0)
        if start.startswith(b"PK"):
            with open_archive(path, stored=False, at_most=most) as archive:
                yield (_of_zip(archive, info) for info in archive.infolist())
        elif start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as content:
                yield _of_tar(_Forward(content, most))
        else:
            yield _of_tar(_Forward(file, most))


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    name = info.filename.replace("\\", "/")
    if stat.S_ISLNK(mode):
        if info.file_size > 4096:
            raise ValueError(f"holds a link {name} of {info.file_size:,} bytes")
        target = archive.read(info).decode("utf-8", "replace")
        return _Member(name, 0, "link", posixpath.join(posixpath.dirname(name), target))
    if info.is_dir():
        return _Member(name, 0, "folder")
    kind = "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "other"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take memory as they are told
        raise ValueError(f"holds {name}, compressed by an unusual method")

    def copy(to: IO[bytes]) -> None:
        with archive.open(info) as content:  # compares the checksum with the last block
            _copy(content, info.file_size, to)

    return _Member(name, info.file_size, kind, copy=copy)


def _of_tar(stream: _Forward) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # the archive would keep all of them
            name, target = info.name, info.linkname
            if info.issparse():
                raise ValueError(f"holds {name} with gaps (a sparse file)")
            kind = "file" if info.isreg() else "folder" if info.isdir() else "link" if info.issym() else "other"
            if info.issym():
                target = posixpath.join(posixpath.dirname(name), target)
            if info.islnk():
                kind = "link"
            yield _Member(name, info.size, kind, target, lambda to, size=info.size: _copy(stream, size, to))
        stream.finish()


def _copy(content: Any, size: int, to: IO[bytes]) -> None:
    while size:
        block = content.read(min(size, _BLOCK))
        if not block:
            raise ValueError("is cut off")
        to.write(block)
        size -= len(block)


class _Forward:
    """A stream as ``tarfile`` wants it, which is read once from its beginning to its end.

    By itself ``tarfile`` reads headers of any length that a file claims, goes back where one tells it to, and takes a
    damaged header for the end.
    """

    def __init__(self, stream: IO[bytes], most: int):
        self._stream, self._most = stream, most
        self._place = 0
        self._last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _BLOCK:
            raise ValueError(f"has a header that claims {size:,} bytes")
        self._last = self._stream.read(size)
        self._place += len(self._last)
        if self._place > self._most:
            raise ValueError(f"expands to more than {self._most:,} bytes, far more than its size explains")
        return self._last

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> None:
        if place < self._place:
            raise ValueError("has a header that leads back")
        while self._place < place and self.read(min(place - self._place, _BLOCK)):
            pass

    def finish(self) -> None:
        """Read what is left, so that the checksum is compared; ``ValueError`` unless a block of zeros came last."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise ValueError("is cut off or damaged")
        while self.read(_BLOCK):
            pass
