"""MATLAB files of a row of numbers, sound ones and forged ones."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from clipgan.data.sources import matlab
from clipgan.data.sources.matlab import read_numbers
from clipgan.errors import UserError


def saved(values, compressed=True, name="labels", **more) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {name: values, **more}, do_compression=compressed)
    return file.getvalue()


def element(kind: int, data: bytes, claims: int | None = None) -> bytes:
    size = len(data) if claims is None else claims
    return struct.pack("<II", kind, size) + data + bytes(-len(data) % 8)


def matrix(numbers=b"\1\2", kind=2, matrix_class=9, name=b"labels", claims=None, sides=(1, 2)) -> bytes:
    parts = element(6, struct.pack("<II", matrix_class, 0)) + element(5, struct.pack("<ii", *sides))
    return element(14, parts + element(1, name) + element(kind, numbers, claims))


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def compressed(content: bytes) -> bytes:
    data = zlib.compress(content)
    return struct.pack("<II", 15, len(data)) + data


def read(tmp_path, content: bytes, high: int = 102):
    (tmp_path / "imagelabels.mat").write_bytes(content)
    return read_numbers(tmp_path / "imagelabels.mat", "labels", high)


def refused(tmp_path, content: bytes, match: str):
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"imagelabels\.mat: .*{match}") as caught:
        read(tmp_path, content)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 490


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int64, np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
@pytest.mark.parametrize("compress", [True, False])
def test_a_row_or_column_of_any_kind_of_number_is_read(tmp_path, kind, shape, compress):
    labels = np.array([77, 1, 102, 3, 0], kind).reshape(shape)
    content = saved(labels, compress, cells=np.array([["x"]], object), other=np.eye(3))
    assert read(tmp_path, content) == [77, 1, 102, 3, 0]


def test_files_of_both_byte_orders_are_read(tmp_path):
    assert read(tmp_path, HEADER + matrix()) == [1, 2]
    swapped = HEADER[:124] + b"\x01\x00MI"
    parts = struct.pack(">IIII", 6, 8, 9, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    parts += struct.pack(">II", 1, 6) + b"labels\0\0" + struct.pack(">HH", 2, 2) + b"\1\2\0\0"
    assert read(tmp_path, swapped + struct.pack(">II", 14, len(parts)) + parts) == [1, 2]


@pytest.mark.parametrize(
    "values, complaint",
    [
        (np.array([[1.5, 2.0]]), "not whole"), (np.array([[np.nan]]), "not whole"), (np.array([[np.inf]]), "not whole"),
        (np.array([[103]]), "from 0 to 102"), (np.array([[-1]], np.int16), "from 0 to 102"),
        (np.eye(3), "no row of numbers called labels"), (np.zeros((1, 0)), "no row"), ("text", "no row"),
        (np.array([["cell"]], object), "no row"), ({"a": 1}, "no row"), (np.array([[1 + 2j]]), "no row"),
    ],
    ids=str,
)  # fmt: skip
def test_other_content_is_refused(tmp_path, values, complaint):
    refused(tmp_path, saved(values), complaint)


def test_a_missing_name_or_file_is_named(tmp_path):
    refused(tmp_path, saved(np.array([[1]]), name="setid"), "no row of numbers called labels")
    with pytest.raises(UserError, match=r"gone\.mat: no such file; expected a MATLAB file"):
        read_numbers(tmp_path / "gone.mat", "labels", 102)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x" * 100, b"\x89HDF\r\n" + bytes(200), HEADER[:124] + b"\x00\x02IM" + matrix(), bytes(200),
        HEADER[:126] + b"XX" + matrix(),
    ],
    ids=["empty", "short", "HDF5", "version 7.3", "version 4", "no order"],
)  # fmt: skip
def test_files_of_other_versions_are_refused(tmp_path, content):
    refused(tmp_path, content, "is no MATLAB file of version 5 to 7")


@pytest.mark.parametrize(
    "body",
    [
        matrix()[:-4], matrix(claims=1 << 31), matrix(claims=0xFFFFFFFF), element(14, b"", claims=1 << 30), b"\1",
        struct.pack("<HHI", 2, 500, 0), compressed(matrix())[:-3], compressed(matrix()[:-8]), element(15, b"no zlib"),
        compressed(matrix() + matrix()), compressed(compressed(matrix())), compressed(matrix(claims=1 << 31)),
        compressed(bytes(40 << 20)),
    ],
    ids=["cut off", "2 GB", "4 GB", "1 GB", "one byte", "small", "cut zlib", "cut inside", "no zlib", "two in one",
         "nested zlib", "2 GB in zlib", "bomb"],
)  # fmt: skip
def test_what_claims_more_than_it_holds_is_refused_without_taking_the_memory(tmp_path, body):
    refused(tmp_path, HEADER + body, "")


@pytest.mark.parametrize("sides", [(1, 2**31 - 1), (-1, -2), (0, 0), (65536, 65536), (3, 1)])
def test_sides_that_the_numbers_do_not_fill_are_refused(tmp_path, sides):
    refused(tmp_path, HEADER + matrix(sides=sides), "")


def test_nesting_never_reaches_scipy(tmp_path, monkeypatch):
    cell = matrix()
    for _ in range(3000):
        parts = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"c")
        cell = element(14, parts + cell)
    seen = []
    load = scipy.io.loadmat
    monkeypatch.setattr(
        matlab.scipy.io, "loadmat", lambda file, **options: seen.append(file.getvalue()) or load(file, **options)
    )
    assert read(tmp_path, HEADER + cell + compressed(cell) + compressed(matrix())) == [1, 2]
    assert seen == [HEADER + matrix()]
