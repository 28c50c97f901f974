"""Zip archives, which PyTorch's and NumPy's files are, opened only if they hold what they claim."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from clipgan.files.gate import require_file


@contextlib.contextmanager
def open_archive(path: str | Path, *, stored: bool, at_most: int | None = None) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose declared sizes can be believed.

    Args:
        path: the file.
        stored: members that are compressed are left out of account (:func:`read_member` refuses them), and the
            others together cannot be larger than the file.
        at_most: bytes of all members together, where they may be compressed.

    Raises:
        ValueError: members are encrypted, doubled, or larger than they may be.
        zipfile.BadZipFile, OSError: it is no archive, or is broken.
    """
    bound = require_file(path) if stored else at_most
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise ValueError("is encrypted")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("holds two members of one name")
        sizes = [m.file_size for m in members if not stored or m.compress_type == zipfile.ZIP_STORED]
        if bound is not None and sum(sizes) > bound:
            raise ValueError(f"claims to hold more than the {bound:,} bytes that it can")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, *, stored: bool = True) -> bytearray:
    """The bytes of a member, compared with its checksum.

    Args:
        archive: of :func:`open_archive`.
        name: of the member.
        stored: whether only a member that is not compressed is taken. Else the caller has checked its declared size.

    Raises:
        KeyError: there is none of this name.
        ValueError, zipfile.BadZipFile, zlib.error: it is compressed in another way, cut off or damaged.
    """
    member = archive.getinfo(name)
    if stored and member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, as torch.save never does it")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take memory as they are told
        raise ValueError(f"{name} is compressed by an unusual method")
    size = member.file_size
    content = bytearray(size)
    view, place = memoryview(content), 0
    with archive.open(name) as file:
        while place < size:
            count = file.readinto(view[place:])
            if not count:
                raise ValueError(f"{name} is cut off")
            place += count
        file.read(1)  # the end, where the checksum is compared
    return content
