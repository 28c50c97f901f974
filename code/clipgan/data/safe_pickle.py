"""Reads the metadata pickles of the data sets without running what is in them.

A pickle is a program: loading a stranger's file can do anything. The lists of names, class numbers and word indices
that the data sets come with need lists, numbers, strings and NumPy scalars or arrays, so all else is refused.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any, ClassVar

from clipgan.data.numpy_pickles import NUMPY, Unbuilt
from clipgan.errors import UserError, one_line
from clipgan.files.gate import MEGABYTE, read_bytes, reading
from clipgan.files.pickles import PLAIN, PlainUnpickler, Refused

_EXPECTED = "a plain pickle of lists, numbers and strings"
_LARGEST = 512 * MEGABYTE
_LARGEST_OF_MANY_KINDS = 32 * MEGABYTE  # of pickles that the interpreter's own unpickler must not read
_MOST_CONTAINERS = 4 << 20  # COCO's captions.pickle has 620 000
_CHANGED_LINE_ENDS = (
    "its line ends were changed to CR-LF, as git on Windows or a transfer in text mode does: fetch it again as a "
    "binary file (git: `*.pickle binary` in .gitattributes)"
)


def load_pickle(path: str | Path) -> Any:
    """Load a pickle of any protocol that holds plain containers, strings, numbers and NumPy arrays.

    Byte strings of Python 2 become ``str`` by Latin-1, as NumPy's old pickles need. NumPy scalars become Python's. In a
    pickle without bytes that are no text (protocol 0), line ends that became CR-LF are put right.

    Raises:
        UserError: the file is missing, is no pickle, asks for anything that is not allowed (the message names it), or
            would need much more memory than its size.
    """
    with reading(path, _EXPECTED):
        content = read_bytes(path, _LARGEST)
        changed = b"\n" in content and content.count(b"\n") == content.count(b"\r\n")
        repaired = content.replace(b"\r\n", b"\n") if changed and not content.startswith(b"\x80") else content
        try:
            return _load(repaired)
        except Exception as error:  # broken bytes make an unpickler raise nearly anything
            reason = one_line(str(error), 200)
            if (changed and repaired is content) or "\r" in str(error):
                raise UserError(f"{path}: not a readable pickle ({reason[:80]}): {_CHANGED_LINE_ENDS}") from None
            if isinstance(error, Refused):
                raise ValueError(f"refused, because it asks for {reason}") from None
            raise ValueError(f"not a readable pickle ({type(error).__name__}: {reason})") from None


def _load(content: bytes) -> Any:
    containers = sum(content.count(operation) for operation in _CONTAINERS)
    if containers > _MOST_CONTAINERS:
        raise ValueError(f"it may hold {containers:,} lists and dictionaries; at most {_MOST_CONTAINERS:,} are read")
    if _is_simple(content):
        return _SimpleUnpickler(io.BytesIO(content), encoding="latin1").load()
    if len(content) > _LARGEST_OF_MANY_KINDS:
        raise ValueError("of its size, only pickles of plain lists, dictionaries, numbers and strings are read")
    return _Unpickler(content).load()


class _Memo(dict):
    """What a pickle remembers by numbers. An array that is not built yet learns its numbers."""

    def __setitem__(self, place: int, value: Any) -> None:
        if type(value) is Unbuilt:
            value.places.append(place)
        super().__setitem__(place, value)


class _Unpickler(PlainUnpickler):
    """With NumPy's values, which come in two steps: an empty array, then its content."""

    dispatch: ClassVar[dict] = dict(PlainUnpickler.dispatch)

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), {**PLAIN, **NUMPY})
        self.memo = _Memo()
        self.budget = 4 * len(content) + MEGABYTE

    def load_build(self) -> None:
        if type(self.stack[-2]) is not Unbuilt:
            return super().load_build()
        state, unbuilt = self.stack.pop(), self.stack.pop()
        array = unbuilt.build(state)
        self.stack.append(array)
        for place in unbuilt.places:
            if self.memo.get(place) is unbuilt:
                self.memo[place] = array

    def load_bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(size, _LARGEST))))  # of bytes that are there; the original allocates first

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray


class _SimpleUnpickler(pickle.Unpickler):
    """The interpreter's own, many times faster, for pickles that :func:`_is_simple`."""

    def find_class(self, module: str, name: str) -> Any:
        raise Refused(f"{module}.{name}")


_CONTAINERS = (pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.LIST, pickle.DICT, pickle.EMPTY_SET, pickle.TUPLE1,
               pickle.TUPLE2, pickle.TUPLE3)  # fmt: skip
# Operations on lists, dictionaries, None, truth values, numbers of at most 34 bits, floats, and texts that end with
# their line; marks, frames, and memory at numbers below 2^22. They build nothing larger than the file can pay for.
_SIMPLE = re.compile(
    rb"(?:[\]}N(easuld\x88\x89\x94]|K.|M..|J....|G.{8}|\x8a\x01.|\x8a\x02..|\x8a\x03...|\x8a\x04....|\x95.{8}"
    rb"|q.|h.|r..[\x00-\x3f]\x00|j..[\x00-\x3f]\x00|[pg][0-9]{1,6}\n|[IL]-?[0-9]{1,10}L?\n|[VS][^\n]*\n){1,1000}",
    re.DOTALL,
)
_SIZED_TEXTS = {pickle.BINUNICODE[0]: "<I", pickle.SHORT_BINUNICODE[0]: "<B", pickle.SHORT_BINSTRING[0]: "<B"}
_TUPLES = pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.EMPTY_TUPLE
_MOST_TUPLES = 500  # nested deeper, they overflow the stack when they are hashed as keys


def _is_simple(content: bytes) -> bool:
    """Whether a pickle holds nothing but what cannot harm the interpreter's own unpickler, up to its end."""
    place = 2 if content.startswith(b"\x80") else 0
    tuples = 0
    while place < len(content):
        operations = _SIMPLE.match(content, place)
        if operations:
            place = operations.end()
            continue
        operation = content[place]
        if operation in _SIZED_TEXTS:
            form = _SIZED_TEXTS[operation]
            begin = place + 1 + struct.calcsize(form)
            if begin > len(content):
                return False
            place = begin + struct.unpack_from(form, content, place + 1)[0]
        elif operation in _TUPLES and tuples < _MOST_TUPLES:
            tuples += 1
            place += 1
        else:
            return operation == pickle.STOP[0]
    return False
