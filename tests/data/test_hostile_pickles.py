"""Pickles that were forged, damaged by a transfer, or made by other versions of Python and NumPy."""

import pickle
import resource
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest

from clipgan.data.captions import read_caption_pickle
from clipgan.data.safe_pickle import _is_simple, load_pickle
from clipgan.errors import UserError


@pytest.fixture
def load(tmp_path):
    """Load bytes as a pickle. It may take neither 5 seconds nor 500 MB, whatever they are."""

    def load(content: bytes):
        path = tmp_path / "a.pickle"
        path.write_bytes(content)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            return load_pickle(path)
        except UserError as error:
            assert str(path) in str(error) and str(error).isprintable() and len(str(error)) < 490
            raise
        finally:
            assert time.process_time() - began < 5
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000

    return load


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def dtype(name: str, order: bytes = text("<"), rest: bytes = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00") -> bytes:
    """NumPy's type as protocol 2 writes it."""
    return b"cnumpy\ndtype\n" + text(name) + b"K\x00K\x01\x87R(K\x03" + order + rest + b"tb"


def scalar(kind: bytes, content: bytes) -> bytes:
    return b"\x80\x03cnumpy.core.multiarray\nscalar\n" + kind + b"C" + bytes([len(content)]) + content + b"\x86R."


def array(kind: bytes, shape: bytes, content: bytes) -> bytes:
    begin = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
    return begin + shape + kind + b"\x89" + content + b"tb."


def test_values_of_plain_types_are_read_in_both_byte_orders(load):
    assert load(scalar(dtype("i4"), b"\x01\x02\x00\x00")) == 513
    assert load(scalar(dtype("i4", text(">")), b"\x00\x00\x02\x01")) == 513
    assert load(scalar(dtype("b1", text("|")), b"\x01")) is True
    assert load(scalar(dtype("U2"), "é ".encode("utf-32-le"))) == "é "
    assert load(array(dtype("i2", text(">")), b"K\x02\x85", b"C\x04\x00\x01\x01\x00")).tolist() == [1, 256]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        np.array(["ab", "c"]), np.array(["a", None], dtype=object), np.zeros((2, 3), order="F"), np.array(5),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), np.arange(6)[::2], np.zeros((0, 3)), np.array([b"x"]),
        np.arange(3, dtype=">i4"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)  # fmt: skip
def test_arrays_load_as_they_were_and_keep_their_identity(load, value, protocol):
    first, (second,) = load(pickle.dumps([value, [value]], protocol))
    assert first is second
    assert np.array_equal(first, value) and first.dtype == value.dtype


@pytest.mark.parametrize(
    "content",
    [
        scalar(dtype("O8"), b"\x00" * 8),
        scalar(dtype("O8"), b"\x41" * 8),
        scalar(dtype("V8"), b"\x00" * 8),
        scalar(dtype("M8[s]"), b"\x00" * 8),
        scalar(dtype("i8,O"), b"\x00" * 16),
        scalar(dtype("i4"), b"\x00" * 3),
        scalar(dtype("i4"), b""),
        scalar(dtype("i4"), b"\x00" * 8),
        scalar(dtype("U1"), b"\xff\xff\xff\xff"),
        scalar(dtype("U999999999"), b""),
        scalar(dtype("i8", rest=b"(" + dtype("O8") + b"K\x02tNNK\x08K\x08K\x00"), b"\x00" * 8),
        scalar(dtype("i8", rest=b"NNNJ\x00\x01\x00\x00J\x00\x01\x00\x00K\x3f"), b"\x00" * 8),
        scalar(dtype("i8", order=b"K\x07"), b"\x00" * 8),
        scalar(b"N", b"\x00" * 8),
        scalar(b"cnumpy\ndtype\n", b"\x00" * 8),
        array(dtype("i8"), b"J\xff\xff\xff\x7f\x85", b"C\x08" + b"\x00" * 8),
        array(dtype("i8"), b"J\xff\xff\xff\xff\x85", b"C\x08" + b"\x00" * 8),
        array(dtype("i8"), b"N", b"C\x08" + b"\x00" * 8),
        array(dtype("O8"), b"K\x01\x85", b"C\x08" + b"\x41" * 8),
        array(dtype("O8"), b"K\x02\x85", b"]" + text("a") + b"a"),
        array(dtype("O8"), b"K\x01\x85", b"]]a"),
        b"\x80\x02cnumpy._core.numeric\n_frombuffer\n(C\x08" + b"A" * 8 + dtype("O8") + b"K\x01\x85U\x01CtR.",
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
        b"\x80\x02cnumpy\ndtype\nK\x05\x85R.",
    ],
)  # fmt: skip
def test_a_forged_numpy_value_is_refused(load, content):
    with pytest.raises(UserError, match=r"a\.pickle"):
        load(content)


def nested_tuples(depth: int) -> bytes:
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_a_deep_tuple_as_a_key_is_refused(load, depth):
    with pytest.raises(UserError, match="a tuple as a key"):
        load(nested_tuples(depth))


def test_a_huge_memo_index_costs_nothing(load):
    assert load(b"\x80\x02]r\xff\xff\xff\xff.") == []
    assert load(b"(lp999999999\n.") == []


def test_a_claimed_byte_array_is_not_allocated(load):
    with pytest.raises(UserError):
        load(b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"abc.")
    assert load(pickle.dumps(bytearray(b"abc"), 5)) == bytearray(b"abc")


@pytest.mark.parametrize("name", ["bytes", "bytearray", "list", "tuple", "set", "dict"])
def test_a_container_of_a_number_is_refused(load, name):
    with pytest.raises(UserError, match=f"asks for a {name} of"):
        load(f"\x80\x02c__builtin__\n{name}\n".encode("latin1") + b"J\xff\xff\xff\x7f\x85R.")


@pytest.mark.parametrize("name, copied", [("list", b"]q\x01(" + b"K\x01" * 100_000 + b"e"), ("str", text("a" * 10**6))])
def test_many_copies_of_a_large_value_are_refused(load, name, copied):
    call = f"c__builtin__\n{name}\nq\x02".encode()
    again = b"h\x02h\x03\x85R"
    with pytest.raises(UserError, match="more copies"):
        load(b"\x80\x02" + copied + b"q\x03" + call + b"](" + again * 20_000 + b"e.")


def test_long_digits_are_refused_or_read(load):
    with pytest.raises(UserError):
        load(b"(lL" + b"9" * 10**6 + b"L\na.")
    assert load(pickle.dumps([2**70], 2)) == [2**70]


def test_deep_nesting_and_a_list_that_holds_itself_are_read(load):
    value, depth = load(b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."), 1
    while value:
        (value,) = value
        depth += 1
    assert depth == 500_000
    (inner,) = itself = load(b"\x80\x02]q\x00h\x00a.")
    assert inner is itself


def test_colliding_keys_are_refused(load):
    keys = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"K\x01" for i in range(1, 30_000))
    with pytest.raises(UserError, match="a int as a key"):
        load(b"\x80\x02}(" + keys + b"u.")


def test_more_containers_than_memory_can_hold_are_refused(load):
    with pytest.raises(UserError, match="lists and dictionaries"):
        load(b"\x80\x02(" + b"]" * 5_000_000 + b"l.")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_simple_pickles_take_the_short_way_and_give_the_same(load, protocol):
    value = [[1, 2, 300, -70_000, 2**30], {0: "<end>", 1: "vögel"}, [None, True, False], "x" * 300]
    content = pickle.dumps(value, protocol)
    assert _is_simple(content)
    assert load(content) == value


@pytest.mark.parametrize("value", [OrderedDict(a=1), np.int64(1), {1, 2}, 2**70])
def test_other_pickles_do_not(value):
    assert not any(_is_simple(pickle.dumps([value], protocol)) for protocol in range(6))


@pytest.mark.parametrize("content", [b"\x80\x02]r\xff\xff\xff\x7f.", b"cos\nsystem\n.", b"\x80\x02\x96" + b"\xff" * 9])
def test_dangerous_operations_never_take_the_short_way(content):
    assert not _is_simple(content)


def test_line_ends_that_windows_changed_are_put_right_in_a_pickle_of_text(load):
    names = ["001.A/one", "002.B/twö"]
    assert load(pickle.dumps(names, 0).replace(b"\n", b"\r\n")) == names
    assert load(b"(lp0\r\nS'001.A/Bird'\r\np1\r\na.") == ["001.A/Bird"]
    ids = [np.int64(3), np.int64(70_000)]
    assert load(pickle.dumps(ids, 0).replace(b"\n", b"\r\n")) == ids


@pytest.mark.parametrize("protocol", [2, 3])
def test_line_ends_that_windows_changed_in_a_binary_pickle_are_named(load, protocol):
    content = pickle.dumps([np.int64(10), np.int64(3)], protocol)
    with pytest.raises(UserError, match=r"line ends were changed to CR-LF.*binary"):
        load(content.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("size", [2**30, 2**40])
def test_a_file_larger_than_any_metadata_is_refused_unread(tmp_path, size):
    path = tmp_path / "filenames.pickle"
    with open(path, "wb") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=r"filenames\.pickle: has .* MB"):
        load_pickle(path)


@pytest.mark.parametrize("word", ["a", "", "<end>", "x" * 190])
def test_a_caption_that_a_small_pickle_names_many_times_is_refused(tmp_path, word):
    path = tmp_path / "captions.pickle"
    caption = [1] * (9000 if len(word) < 190 else 90)
    content = [[caption] * 100_000, [], {1: word}, {}]
    path.write_bytes(pickle.dumps(content, 2))
    began = time.process_time()
    with pytest.raises(UserError, match=r"captions\.pickle: its captions are much longer"):
        read_caption_pickle(path, "train", 100_000, 1)
    assert time.process_time() - began < 5
