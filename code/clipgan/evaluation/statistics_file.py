"""The ``.npz`` files of FID statistics: ours, pytorch-fid's, and what claims to be one."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from clipgan.errors import UserError
from clipgan.evaluation.metrics.frechet import Statistics
from clipgan.files import shapes
from clipgan.files.archives import open_archive, read_member
from clipgan.files.gate import parse_json, reading, refuse_other_files, require_file, short
from clipgan.files.writing import replacing

_EXPECTED = "FID statistics as .npz, with mu [D] and sigma [D, D]"
_WIDEST = 4096  # features; Inception's widest layer has 2048
_LONGEST_HEADER = 2000  # bytes of a member's header; NumPy writes 128
_LONGEST_PROVENANCE = 100_000  # characters
_ROUNDING = 1e-4  # of the largest entry: how far files in single or half precision may be from symmetric
_ROWS = 512  # of sigma that are checked at once: bounds the memory

_PROVENANCE = shapes.record(
    {},
    {
        "weights": shapes.text(),
        "weights_source": shapes.text(5000),
        "weights_random": shapes.flag,
        "dims": shapes.whole(1, _WIDEST),
    },
    others=True,
)
_PLAIN = shapes.mapping_of(shapes.either(shapes.flag, shapes.nothing, shapes.number(), shapes.text(5000)), at_most=100)


def read_statistics(path: str | Path) -> tuple[Statistics, dict[str, Any]]:
    """Statistics in float64 and provenance (empty if unknown) of an ``.npz`` written here or by pytorch-fid.

    Only the members ``mu``, ``sigma``, ``count`` and ``provenance`` are looked at. Each one's header is compared with
    its size before it is read.

    Raises:
        UserError: no such file; not one of these; or its numbers are not finite, or are no mean and covariance.
    """
    if not Path(path).exists():
        raise UserError(f"no statistics file at {path}: expected {_EXPECTED}")
    with reading(path, _EXPECTED):
        require_file(path)
        with open(path, "rb") as file:
            refuse_other_files(path, file.read(64))
        with open_archive(path, stored=False) as archive:
            mean = _numbers(archive, "mu", ndim=1)
            if not 2 <= len(mean) <= _WIDEST:
                raise ValueError(f"mu has {len(mean)} numbers, not 2 to {_WIDEST}")
            covariance = _numbers(archive, "sigma", ndim=2, side=len(mean))
            count = _count(archive) if "count.npy" in archive.namelist() else None
            provenance = _provenance(archive) if "provenance.npy" in archive.namelist() else {}
        if not np.isfinite(mean).all():
            raise ValueError("mu holds numbers that are not finite")
        _require_covariance(covariance)
        return Statistics(mean, covariance, count), provenance


def write_statistics(path: str | Path, statistics: Statistics, provenance: dict[str, Any]) -> None:
    """Write the ``.npz`` whole or not at all; raises ``OSError`` if it cannot be written."""
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "provenance": np.array(json.dumps(provenance))}
    if statistics.count is not None:
        arrays["count"] = np.array(statistics.count)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether columns come first, type, and place of the data of a member whose size is as its header says."""
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it lacks {name}")
    with archive.open(f"{name}.npy") as file:
        beginning = io.BytesIO(file.read(_LONGEST_HEADER))
    version = npy.read_magic(beginning)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of another version of NumPy's format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, columns_first, dtype = read(beginning, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject or dtype.kind not in "fiuU" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise ValueError(f"{name} holds {short(str(dtype))[1:-1]}, not real numbers")
    size = archive.getinfo(f"{name}.npy").file_size
    claimed = beginning.tell() + math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or claimed != size:
        raise ValueError(f"{name} claims the shape {short(shape)}, that is {claimed} bytes, but has {size}")
    return shape, columns_first, dtype, beginning.tell()


def _numbers(archive: zipfile.ZipFile, name: str, ndim: int, side: int | None = None) -> np.ndarray:
    """An array of real numbers of the archive in float64; ``side`` is the length of each dimension, where it is known.

    No more memory is taken than the declared size, which is that of the shape.
    """
    shape, columns_first, dtype, start = _header(archive, name)
    if dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {dtype}, not real numbers")
    expected = f"{ndim} dimensions" if side is None else f"{[side] * ndim}"
    if len(shape) != ndim or any(n != side for n in shape if side is not None) or math.prod(shape) > _WIDEST**ndim:
        raise ValueError(f"{name} has the shape {short(list(shape))}, not {expected}")
    content = read_member(archive, f"{name}.npy", stored=False)
    values = np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if columns_first else "C")
    return np.require(values, np.float64, ["C", "ALIGNED"])


def _count(archive: zipfile.ZipFile) -> int:
    shape, *_ = _header(archive, "count")
    if math.prod(shape) != 1 or len(shape) > 1:
        raise ValueError(f"count has the shape {short(list(shape))}, not one number")
    value = float(_numbers(archive, "count", ndim=len(shape)).reshape(-1)[0])
    if not (1 <= value <= 1e12 and value.is_integer()):
        raise ValueError(f"count is {value:g}, not a whole number of images")
    return int(value)


def _provenance(archive: zipfile.ZipFile) -> dict[str, Any]:
    shape, _, dtype, start = _header(archive, "provenance")
    if shape != () or dtype.kind != "U" or dtype.itemsize > 4 * _LONGEST_PROVENANCE:
        raise ValueError(f"provenance is no text of at most {_LONGEST_PROVENANCE} characters")
    content = bytes(read_member(archive, "provenance.npy", stored=False)[start:])
    order = "be" if dtype.byteorder == ">" else "le"
    provenance = parse_json(content.decode(f"utf-32-{order}").rstrip("\0"))
    _PROVENANCE(provenance, "provenance")
    _PLAIN(provenance, "provenance")
    return provenance


def _require_covariance(matrix: np.ndarray) -> None:
    """Raise ValueError if a matrix [D, D] is not finite or not symmetric, or has variances below 0."""
    blocks = [slice(start, start + _ROWS) for start in range(0, len(matrix), _ROWS)]
    largest = max(float(np.abs(matrix[block]).max()) for block in blocks)  # NaN, too, is greatest for NumPy
    if not all(np.isfinite(matrix[block]).all() for block in blocks):
        raise ValueError("sigma holds numbers that are not finite")
    with np.errstate(over="ignore"):
        if any((np.abs(matrix[block] - matrix[:, block].T) > _ROUNDING * largest).any() for block in blocks):
            raise ValueError("sigma is not symmetric, so it is no covariance")
    if matrix.diagonal().min() < -_ROUNDING * largest:
        raise ValueError("sigma has variances below 0, so it is no covariance")
