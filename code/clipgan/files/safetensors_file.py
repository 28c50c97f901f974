"""Reads ``.safetensors`` files: eight bytes of length, a header in JSON, then the tensors' bytes one after another.

The format cannot run anything; what is left to check is that the header describes the file that it stands in. The
library of the same name is not used: it maps what it is told, and its errors are not ours.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from clipgan.files import shapes
from clipgan.files.gate import parse_json, reading, refuse_other_files, require_file, short

EXPECTED = "a safetensors file"
_LARGEST_HEADER = 4 << 20  # bytes; that of a CLIP with 1 000 tensors has a fortieth of it
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_DESCRIPTION = shapes.mapping_of(shapes.text(_LARGEST_HEADER), at_most=1000)
_ENTRY = shapes.record(
    {
        "dtype": shapes.one_of(*_DTYPES),
        "shape": shapes.list_of(shapes.whole(0, 1 << 48), at_most=8),
        "data_offsets": shapes.list_of(shapes.whole(0, 1 << 60), 2, 2),
    }
)


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as this format does, whatever its name.

    Raises:
        UserError: it cannot be read.
    """
    with reading(path, EXPECTED):
        size = require_file(path)
        with open(path, "rb") as file:
            beginning = file.read(9)
    return len(beginning) == 9 and beginning.endswith(b"{") and struct.unpack("<Q", beginning[:8])[0] <= size - 8


def read_safetensors(path: str | Path, *, expected: str = EXPECTED) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU, each in memory of its own.

    Raises:
        UserError: no such file; cut off; or its header does not describe it: types, sizes, and places that leave no
            gap and do not overlap.
    """
    return read_described(path, expected=expected)[0]


def read_described(path: str | Path, *, expected: str = EXPECTED) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file as :func:`read_safetensors` gives them, and the texts that the file says of itself.

    Raises:
        UserError: as :func:`read_safetensors`; or what it says of itself is no dictionary of texts.
    """
    with reading(path, expected):
        size = require_file(path)
        with open(path, "rb") as file:
            beginning = file.read(64)
            refuse_other_files(path, beginning)
            if len(beginning) < 8:
                raise ValueError("is too short for a safetensors file")
            (length,) = struct.unpack("<Q", beginning[:8])
            if length > size - 8:
                raise ValueError("is cut off, or is no safetensors file: its header is longer than the file")
            if length > _LARGEST_HEADER:
                raise ValueError(f"has a header of {length:,} bytes, more than any that describes weights")
            file.seek(8)
            content = parse_json(file.read(length).decode("utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"its header must be a dictionary, not {short(content)}")
            description = content.pop("__metadata__", {})
            _DESCRIPTION(description, "its __metadata__")
            entries = _entries(content, size - 8 - length)
            return {name: _read_tensor(file, entry) for name, entry in entries}, description


def _entries(content: dict[str, Any], size: int) -> list[tuple[str, dict[str, Any]]]:
    """Names and descriptions in the order of their bytes, of which there are ``size``."""
    shapes.mapping_of(_ENTRY)(content, "its header")
    entries = sorted(content.items(), key=lambda item: item[1]["data_offsets"])
    place = 0
    for name, entry in entries:
        begin, end = entry["data_offsets"]
        claimed = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
        if begin != place or end - begin != claimed:
            raise ValueError(
                f"{short(name)[1:-1]} of {entry['dtype']} {short(entry['shape'])} is said to lie from byte {begin} to "
                f"{end}, not from {place} to {place + claimed}"
            )
        place = end
    if place != size:
        raise ValueError(f"is cut off or damaged: its tensors have {place:,} bytes, the file has {size:,} for them")
    return entries


def _read_tensor(file: BinaryIO, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype = _DTYPES[entry["dtype"]]
    if begin == end:
        return torch.zeros(entry["shape"], dtype=dtype)
    content = bytearray(end - begin)
    if file.readinto(content) != len(content):
        raise ValueError("is cut off")
    if dtype == torch.bool:  # any byte but 0 is true
        return torch.frombuffer(content, dtype=torch.uint8).ne(0).view(entry["shape"])
    return torch.frombuffer(content, dtype=dtype).view(entry["shape"])
