"""Files of FID statistics: pytorch-fid's are read, and what is none is refused in a line, before it takes memory."""

import io
import json
import os
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from clipgan.errors import UserError
from clipgan.evaluation.metrics.frechet import Statistics
from clipgan.evaluation.statistics_file import read_statistics, write_statistics

GOOD = {"mu": np.arange(3.0), "sigma": np.diag([1.0, 2.0, 3.0])}


def npy_bytes(array, **header) -> bytes:
    """An array as NumPy writes it, with a header that may claim something else."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, npy.header_data_from_array_1_0(array) | header)
    return buffer.getvalue() + array.tobytes()


def archive(path, compression=zipfile.ZIP_STORED, **members: bytes):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def arrays(path, **changed):
    np.savez(path, **{name: value for name, value in (GOOD | changed).items() if value is not None})
    return path


def refused(path) -> str:
    """The message with which a file is refused, in no time and without memory."""
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        read_statistics(path)
    assert time.perf_counter() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    message = str(caught.value)
    assert str(path) in message and len(message) <= 480 and "\n" not in message
    return message


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", ["<f8", "<f4", ">f8", "<f2", "<i8", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_as_pytorch_fid_writes_them_are_read_whatever_the_type_of_real_number(tmp_path, write, kind, order):
    sigma = np.array([[4, 1, 0], [1, 5, 2], [0, 2, 6]])
    path = tmp_path / "statistics.npz"
    write(path, mu=np.array([1, 2, 3], kind), sigma=np.array(sigma, kind, order=order))
    statistics, provenance = read_statistics(path)
    assert statistics.mean.tolist() == [1, 2, 3]
    assert statistics.covariance.tolist() == sigma.tolist()
    assert statistics.mean.dtype == statistics.covariance.dtype == np.float64
    assert (statistics.count, provenance) == (None, {})


def test_other_members_are_not_looked_at(tmp_path):
    path = arrays(tmp_path / "a.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array([{}], dtype=object))
    assert read_statistics(path)[0].dims == 3


def test_rounding_in_single_precision_is_no_asymmetry(tmp_path):
    sigma = np.cov(np.random.default_rng(0).normal(size=(64, 16)), rowvar=False).astype(np.float32)
    sigma[3, 5] = np.nextafter(sigma[3, 5], np.float32(9))
    assert read_statistics(arrays(tmp_path / "a.npz", mu=np.zeros(16), sigma=sigma))[0].dims == 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mu": None}, "lacks mu"),
        ({"sigma": None}, "lacks sigma"),
        ({"mu": np.arange(3) * 1j}, "mu holds complex128, not real numbers"),
        ({"sigma": np.eye(3, dtype=np.complex64)}, "sigma holds complex64"),
        ({"sigma": np.eye(3, dtype=np.longdouble)}, "sigma holds float128"),
        ({"mu": np.array(["a", "b", "c"])}, "mu holds <U1"),
        ({"mu": np.array([True, False, True])}, "mu holds bool"),
        ({"mu": np.array([1, None, 2], dtype=object)}, "mu holds object"),
        ({"mu": np.zeros(3, dtype=[("a", "f8")])}, "mu holds"),
        ({"mu": np.zeros(3, dtype="M8[s]")}, "mu holds datetime64"),
        ({"mu": np.zeros((3, 1))}, "mu has the shape [3, 1]"),
        ({"mu": np.array(3.0)}, "mu has the shape []"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "mu has 0 numbers"),
        ({"mu": np.zeros(1), "sigma": np.eye(1)}, "mu has 1 numbers"),
        ({"mu": np.zeros(5000)}, "mu has"),
        ({"mu": np.zeros(4)}, "sigma has the shape [3, 3], not [4, 4]"),
        ({"sigma": np.eye(3)[:2]}, "sigma has the shape [2, 3]"),
        ({"mu": np.array([0, np.nan, 0])}, "mu holds numbers that are not finite"),
        ({"sigma": np.diag([1, np.inf, 1])}, "sigma holds numbers that are not finite"),
        ({"sigma": np.full((3, 3), np.nan)}, "sigma holds numbers that are not finite"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"sigma": 1e308 * np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]])}, "not symmetric"),
        ({"sigma": np.diag([1.0, -0.5, 1.0])}, "variances below 0"),
        ({"count": np.array(0)}, "count is 0"),
        ({"count": np.array(-5)}, "count is -5"),
        ({"count": np.array(2.5)}, "count is 2.5"),
        ({"count": np.array(np.nan)}, "count is nan"),
        ({"count": np.array(10**13)}, "count is 1e+13"),
        ({"count": np.array([1, 2])}, "count has the shape [2]"),
        ({"count": np.array("many")}, "count holds <U4"),
        ({"provenance": np.array(3)}, "provenance is no text"),
        ({"provenance": np.array(b"{}")}, "provenance holds"),
        ({"provenance": np.array("[1]")}, "provenance must be a dictionary"),
        ({"provenance": np.array("{")}, "not valid JSON"),
        ({"provenance": np.array("[" * 5000)}, "nested too deeply"),
        ({"provenance": np.array('{"weights": 3}')}, "provenance.weights must be a text"),
        ({"provenance": np.array('{"weights_random": "no"}')}, "provenance.weights_random must be true or false"),
        ({"provenance": np.array('{"dims": NaN}')}, "provenance.dims must be a whole number"),
        ({"provenance": np.array('{"split": ["test"]}')}, "provenance.split must be"),
        ({"provenance": np.array('{"images": %s}' % ("9" * 400))}, "expected FID statistics"),
        ({"provenance": np.array('{"dims": 3, "dims": 4}')}, "stands there twice"),
        ({"provenance": np.array("{" + " " * 200_000 + "}")}, "provenance is no text"),
    ],
)
def test_values_of_another_shape_are_refused_by_name(tmp_path, changed, message):
    assert message in refused(arrays(tmp_path / "a.npz", **changed))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("sigma", (1_000_000, 1_000_000)), ("mu", (10**12,)), ("mu", (10**300,)), ("sigma", (3, -3)), ("mu", (2,))],
)
def test_a_shape_that_the_member_does_not_hold_is_refused(tmp_path, name, shape):
    members = {key: npy_bytes(value) for key, value in GOOD.items()}
    members[name] = npy_bytes(GOOD[name], shape=shape)
    assert f"{name} claims the shape" in refused(archive(tmp_path / "a.npz", **members))


def test_many_zeros_in_few_bytes_are_not_unpacked(tmp_path):
    side, path = 5000, tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("mu.npy", npy_bytes(np.zeros(3)))
        with file.open("sigma.npy", "w", force_zip64=True) as member:
            member.write(npy_bytes(np.zeros(0), shape=(side, side)))
            for _ in range(8):
                member.write(bytes(side * side))
    assert "sigma has the shape [5000, 5000], not [3, 3]" in refused(path)


def test_a_header_longer_than_any_is_refused(tmp_path):
    long = b"\x93NUMPY\x02\x00" + (3 << 30).to_bytes(4, "little") + b" " * 50_000_000
    members = {"mu": long, "sigma": npy_bytes(GOOD["sigma"])}
    assert "expected FID statistics" in refused(archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, **members))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path, method):
    members = {name: npy_bytes(value) for name, value in GOOD.items()}
    assert "unusual method" in refused(archive(tmp_path / "a.npz", method, **members))


def test_encrypted_doubled_damaged_and_cut_archives_are_refused(tmp_path):
    whole = arrays(tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "a.npz"
    central = whole.index(b"PK\x01\x02")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[central + 8] |= 1
    path.write_bytes(encrypted)
    assert "is encrypted" in refused(path)

    flipped = bytearray(whole)
    flipped[whole.index(np.float64(2.0).tobytes()) + 1] ^= 4
    path.write_bytes(flipped)
    assert "CRC" in refused(path)

    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)

    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as file:
        for _ in range(2):
            file.writestr("mu.npy", npy_bytes(GOOD["mu"]))
    assert "two members of one name" in refused(path)


def test_what_is_no_archive_is_said(tmp_path):
    path = tmp_path / "a.npz"
    path.write_text("<!DOCTYPE html><html>login</html>")
    assert "is a web page" in refused(path)
    path.write_bytes(npy_bytes(np.zeros(3)))
    assert "not a zip file" in refused(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refused(path)
    path.rmdir()
    os.mkfifo(path)
    assert "a pipe" in refused(path)
    assert "no statistics file at" in refused(tmp_path / "none.npz")


def test_what_is_written_is_read_back_to_the_last_digit(tmp_path):
    sigma = np.cov(np.random.default_rng(0).normal(size=(64, 16)), rowvar=False)
    written = Statistics(np.random.default_rng(1).normal(size=16), (sigma + sigma.T) / 2, 64)
    provenance = {"dims": 16, "weights": "0" * 64, "weights_source": "ä 漢", "weights_random": True, "crop_scale": 1.5}
    write_statistics(tmp_path / "a.npz", written, provenance)
    read, found = read_statistics(tmp_path / "a.npz")
    assert found == json.loads(json.dumps(provenance))
    assert read.count == 64
    np.testing.assert_array_equal(read.covariance, written.covariance)
    np.testing.assert_array_equal(read.mean, written.mean)
