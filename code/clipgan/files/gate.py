"""How files are opened and decoded, and how every failure of reading one becomes one line that names it.

A file may come from a stranger, from another program, or from a disk that lies. So nothing is believed that was not
checked: that the path is a regular file, that it is not larger than such files are, that its text is text, that its
values have the declared shape (``shapes.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import reprlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipgan.errors import UserError, one_line

MEGABYTE = 1 << 20
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_OTHER_FILES = (  # what a download is instead of the file, by its first bytes
    (b"<!doctype html", "is a web page, not the file itself: download it again"),
    (b"<html", "is a web page, not the file itself: download it again"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: fetch it by `git lfs pull`"),
    (b"../.git/annex/objects", "is a pointer of git-annex, not the file itself: fetch it by `git annex get`"),
)


@contextlib.contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Whatever goes wrong in the block becomes a ``UserError`` of one line: the path, the reason, what was expected.

    The block reads and checks the file and does nothing else, so that no bug elsewhere is taken for a broken file.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected {expected}") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; expected {expected}") from None
    except MemoryError:
        raise UserError(f"{path}: does not fit into this machine's memory; expected {expected}") from None
    except Exception as error:  # broken bytes make parsers raise nearly anything
        said = error.args[0] if isinstance(error, KeyError) and error.args else error  # its text is a `repr`
        reason = one_line(str(said), 200) or type(error).__name__
        raise UserError(f"{path}: {reason}; expected {expected}") from None


def require_file(path: str | Path, at_most: int | None = None) -> int:
    """The size in bytes of a regular file; a pipe or a device, which could block for ever, is refused.

    Raises:
        UserError: no regular file, or one larger than ``at_most`` bytes.
        OSError: there is none.
    """
    status = os.stat(os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise UserError(f"{path}: is {kind}, not a file")
    if at_most is not None and status.st_size > at_most:
        size = f"{status.st_size / MEGABYTE:,.0f} MB"
        raise UserError(f"{path}: has {size}; such a file has at most {at_most / MEGABYTE:,.0f} MB")
    return status.st_size


def read_bytes(path: str | Path, at_most: int) -> bytes:
    """A whole regular file of at most ``at_most`` bytes; raises as :func:`require_file`."""
    require_file(path, at_most)
    content = Path(path).read_bytes()
    refuse_other_files(path, content[:64])
    return content


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MEGABYTE):
            digest.update(block)
    return digest.hexdigest()


def refuse_other_files(path: str | Path, beginning: bytes) -> None:
    """Refuse what downloads often are instead of the file: a web page, a pointer to a file elsewhere.

    Raises:
        UserError: by its first bytes it is one of these.
    """
    for start, what in _OTHER_FILES:
        if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(start):
            raise UserError(f"{path}: {what}")


def decode(content: bytes) -> str:
    """Text of a file: UTF-8 or, with a byte order mark, UTF-16; lines that are neither are Windows-1252 or Latin-1.

    A byte order mark is dropped, and CR-LF and CR become LF. Lone surrogates and NUL become U+FFFD.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", errors="replace")
    else:
        content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = "\n".join(map(_decode_line, content.split(b"\n")))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return printable(text)


def _decode_line(line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return line.decode(encoding)
    return line.decode("latin-1")


def printable(text: str) -> str:
    """``text`` with U+FFFD in the place of what no file name, terminal or tokenizer takes: NUL and lone surrogates."""
    return _NO_TEXT.sub("\ufffd", text)


def read_text(path: str | Path, at_most: int) -> str:
    """A text file by :func:`decode`; raises as :func:`read_bytes`."""
    return decode(read_bytes(path, at_most))


def parse_json(text: str) -> Any:
    """JSON without doubled keys; raises ``ValueError`` or ``RecursionError``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise ValueError(f"the key {short(twice)} stands there twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None


def read_json(path: str | Path, at_most: int = 64 * MEGABYTE) -> Any:
    """A JSON file; raises as :func:`read_bytes` and :func:`parse_json`."""
    return parse_json(read_text(path, at_most))


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 2

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() < 200 else f"a number of {value.bit_length()} bits"


def short(value: Any) -> str:
    """``repr`` for an error message: bounded, whatever the value."""
    return one_line(_Short().repr(value), 120)
