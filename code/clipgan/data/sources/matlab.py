"""Reads a list of whole numbers from a MATLAB file, which may come from a stranger.

SciPy's reader allocates what a file claims and follows its nesting, so it is only given what was looked through
before: uncompressed matrices of plain numbers whose parts fit into the file.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from clipgan.files.gate import MEGABYTE, read_bytes, reading
from clipgan.files.shapes import list_of, whole

_LARGEST, _LARGEST_INFLATED = MEGABYTE, 16 * MEGABYTE
_HEADER = 128  # bytes of text, version and byte order
_FLAGS, _MATRIX, _COMPRESSED = 6, 14, 15  # types of elements: whole numbers of 32 bits, in which flags are, and others
_NUMBERS = range(6, 16)  # classes of matrices: double, single, whole numbers of 8 to 64 bits


def read_numbers(path: Path, name: str, high: int) -> list[int]:
    """The row or column of whole numbers from 0 to ``high`` that a MATLAB file (version 5 to 7) calls ``name``.

    Raises:
        UserError: the file is missing, is not of this form, or has no such numbers.
    """
    with reading(path, f"a MATLAB file (version 5 to 7) with a row of whole numbers called {name}"):
        content = _plain_numbers(read_bytes(path, _LARGEST))
        found = scipy.io.loadmat(io.BytesIO(content), variable_names=[name]).get(name)
        is_row = isinstance(found, np.ndarray) and found.ndim == 2 and min(found.shape) == 1
        if not is_row or found.dtype.kind not in "iuf":
            raise ValueError(f"has no row of numbers called {name}")
        if not (np.isfinite(found).all() and (found == np.trunc(found)).all()):
            raise ValueError(f"has numbers in {name} that are not whole")
        numbers = [int(number) for number in found.ravel()]
        list_of(whole(0, high))(numbers, name)
    return numbers


def _plain_numbers(content: bytes) -> bytes:
    """The file with its matrices of numbers only, uncompressed.

    Raises:
        ValueError: it is no MATLAB file of version 5 to 7, is cut off, or expands too much.
    """
    order = {b"IM": "little", b"MI": "big"}.get(content[126:128])
    if order is None or content[125 if order == "little" else 124] != 1:
        raise ValueError("is no MATLAB file of version 5 to 7 (save another one again with -v7)")
    kept = [content[:_HEADER]]
    size = 0
    for kind, data, whole_element in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            whole_element = _inflate(data, _LARGEST_INFLATED - size)
            elements = list(_elements(whole_element, order))
            if len(elements) != 1:
                raise ValueError("has a compressed part that is not one matrix")
            kind, data, _ = elements[0]
        size += len(whole_element)
        if kind == _MATRIX and _is_of_numbers(data, order):
            kept.append(whole_element)
    return b"".join(kept)


def _is_of_numbers(matrix: bytes, order: str) -> bool:
    """Whether a matrix is one of real numbers: four parts (flags, sizes, name, numbers), none of them nested."""
    parts = list(_elements(matrix, order))
    if len(parts) != 4 or parts[0][0] != _FLAGS or len(parts[0][1]) != 8:
        return False
    return int.from_bytes(parts[0][1][:4], order) & 0xFF in _NUMBERS


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes, bytes]]:
    """The elements that follow one another: type, data, and the whole element with its tag and filling."""
    place = 0
    while place < len(content):
        kind = int.from_bytes(content[place : place + 4], order)
        if kind >> 16:  # a small element: its size stands beside its type, and up to 4 bytes of data follow
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            fits = size <= 4
        else:
            size, begin = int.from_bytes(content[place + 4 : place + 8], order), place + 8
            step = 8 + size if kind == _COMPRESSED else 8 + (size + 7) // 8 * 8
            fits = True
        if not fits or begin + size > len(content):
            raise ValueError("is cut off, or claims more than it holds")
        yield kind, content[begin : begin + size], content[place : place + step]
        place += step


def _inflate(data: bytes, at_most: int) -> bytes:
    engine = zlib.decompressobj()
    content = engine.decompress(data, max(1, at_most))
    if not engine.eof:
        raise ValueError("has a compressed part that is cut off or expands too much")
    return content
