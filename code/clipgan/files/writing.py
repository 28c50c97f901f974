"""How small files are written, and how a disk that takes no more becomes one line that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE

_FULL = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "this user's share of the disk is used up",
    errno.EFBIG: "the file would become larger than the system lets it be (ulimit -f)",
}
_REFUSED = {
    errno.EROFS: "the file system can only be read",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
}
_BROKEN = {
    errno.EIO: "the disk or its network drive failed",
    getattr(errno, "ESTALE", errno.EIO): "the network drive has lost it",
}
STILL_THERE = "what was saved before is still there, and training goes on with --resume"


def explain_write(number: int | None, path: str | Path | None = None) -> str | None:
    """The line for a write that the disk refused.

    Args:
        number: the ``errno`` of the failure.
        path: of the file, where it is known.

    Returns:
        None for an error that has nothing to do with the disk.
    """
    file = f"{path}: " if path else "a file "
    if number in _FULL:
        remedy = f"make room or choose another place; {STILL_THERE}"
        return f"{file}cannot be written: {_FULL[number]}{_free(path)}: {remedy}"
    if number in _REFUSED:
        return f"{file}cannot be written: {_REFUSED[number]}: choose another place, such as by OUTPUT_DIR"
    if number in _BROKEN:
        return f"{file}cannot be read or written: {_BROKEN[number]}: look after it; {STILL_THERE}"
    return None


def write_failure(error: OSError, path: str | Path) -> UserError:
    """The error of a file that could not be written, whatever the reason."""
    return UserError(explain_write(error.errno, path) or f"{path}: cannot be written ({error.strerror or error})")


@contextlib.contextmanager
def writing(folder: Path, remedy: str = "") -> Iterator[None]:
    """What goes wrong on the disk in the block becomes a ``UserError`` that names the file, or else the folder.

    Args:
        folder: that the block writes into.
        remedy: what the user can do about it, in words; empty says nothing.
    """
    try:
        yield
    except OSError as error:
        then = f"; {remedy}" if remedy else ""
        raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror or error}){then}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, so that it is either the old one or the whole new one; its folder is made.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_failure(error, path) from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write beside ``path``, which it replaces when the block ends without an error. The folder is made.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:40]}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _free(path: str | Path | None) -> str:
    """How much room is left where a file should go; empty where that is not known."""
    if not path:
        return ""
    folder = Path(path).absolute().parent
    with contextlib.suppress(OSError):
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return f" ({shutil.disk_usage(folder).free / MEGABYTE:,.0f} MB are free)"
    return ""
