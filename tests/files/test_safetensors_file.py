"""Our reader of safetensors files: equal to the library's, and safe with what it never would write."""

import json
import struct

import pytest
import torch

from clipgan.errors import UserError
from clipgan.files.safetensors_file import is_safetensors, read_safetensors

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_it_reads_what_the_library_writes(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    tensors = {str(dtype): (torch.randn(3, 4, 2) * 9).to(dtype) for dtype in TYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 7)}
    path = tmp_path / "a.safetensors"
    safetensors.save_file(tensors, path, metadata={"format": "pt"})
    ours = read_safetensors(path)
    assert ours.keys() == tensors.keys() and is_safetensors(path)
    for name, value in tensors.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape and torch.equal(ours[name], value)
    assert len({tensor.untyped_storage().data_ptr() for tensor in ours.values() if tensor.numel()}) == len(ours) - 1


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": entry(0, 8, [2**40])}, "is said to lie from byte 0 to 8"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, "not from 8 to 16"),  # overlapping
        ({"a": entry(4, 12)}, "not from 0 to 8"),  # a gap
        ({"a": entry(0, 8)}, "its tensors have 8 bytes, the file has 16"),
        ({"a": entry(0, 1 << 50, [1 << 48])}, "its tensors have .* the file has 16"),  # longer than the file
        ({"a": entry(0, 16, [2], "F8_E5M2")}, "dtype must be"),
        ({"a": entry(8, 0)}, "is said to lie"),
        ({"a": entry(0, 16, [-2])}, "shape.0. must be a whole number"),
        ({"a": entry(0, 16, [True])}, "must be a whole number"),
        ({"a": entry(0, 16, [1] * 9)}, "a list of 0 to 8"),
        ({"a": {"dtype": "F32"}}, "lacks shape, data_offsets"),
        ({"a": 5}, "must be a dictionary"),
        ([1], "its header must be a dictionary"),
        (b'{"a": 1, "a": 2}', "stands there twice"),
        (b"{" * 50000, "nested|JSON"),
        (b"\xff\xfe", "decode"),
        (b" " * (5 << 20), "header of 5,242,880 bytes"),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path, header, expected):
    with pytest.raises(UserError, match=expected) as refused:
        read_safetensors(written(tmp_path / "a.safetensors", header, bytes(16)))
    assert str(tmp_path) in str(refused.value) and len(str(refused.value)) < 490


@pytest.mark.parametrize("content", [b"", b"{}", struct.pack("<Q", 1 << 62) + b"{}", b"<html>nothing here</html>"])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert not is_safetensors(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors"):
        read_safetensors(tmp_path / "a.safetensors")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = written(tmp_path / "a.safetensors", {"a": entry(0, 8)}, bytes(8))
    whole = path.read_bytes()
    assert read_safetensors(path)["a"].tolist() == [0, 0]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_safetensors(path)
