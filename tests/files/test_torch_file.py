"""Our reader of torch files: equal to torch.load on what torch.save writes, and safe with what it never would."""

import collections
import io
import os
import pickle
import zipfile

import pytest
import torch

from clipgan.errors import UserError
from clipgan.files import torch_file
from clipgan.files.torch_file import read_torch_file


def content():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    shared = torch.arange(12.0)
    return {
        "network": network.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state(),
        "half": torch.randn(4, 6).half().T, "bfloat": torch.ones(3, dtype=torch.bfloat16), "view": shared[3:7],
        "the same storage": shared.view(3, 4)[:, 1], "empty": torch.zeros(0, 5),
        "byte": torch.tensor(3, dtype=torch.uint8), "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)), "expanded": torch.ones(1).expand(5),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "plain": [1, 2.5, None, True, "text", (3, "x"), {"a": {"b": []}}, -(2**40), float("inf")],
    }  # fmt: skip


def assert_equal(ours, theirs):
    if torch.is_tensor(theirs):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs.detach())
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_equal(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            assert_equal(one, two)
    else:
        assert type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_it_reads_what_torch_load_reads(tmp_path, archive):
    torch.save(content(), tmp_path / "a.pt", _use_new_zipfile_serialization=archive)
    ours, theirs = read_torch_file(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)
    assert_equal(ours, theirs)
    assert ours["channels last"].stride() == theirs["channels last"].stride()
    ours["view"].zero_()  # tensors have memory of their own, so weights that are trained in place do not mix
    assert ours["the same storage"].tolist() == [1, 5, 9]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive_gives_its_state_dict(tmp_path):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
            self.scale = torch.nn.Parameter(torch.tensor(4.6).half())
            self.register_buffer("size", torch.tensor(224))

        def forward(self, x):
            return self.visual(x)

    network = Network()
    torch.jit.trace(network, torch.randn(1, 3, 8, 8)).save(tmp_path / "a.pt")
    assert_equal(dict(sorted(read_torch_file(tmp_path / "a.pt").items())), dict(sorted(network.state_dict().items())))
    assert torch_file.is_torchscript(tmp_path / "a.pt")


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
@pytest.mark.parametrize("foreign", [True, False])
def test_nothing_of_a_file_is_ever_run(tmp_path, archive, foreign):
    trace, path = tmp_path / "trace", tmp_path / "a.pt"
    torch.save({"a": Attack(os.system, f"echo > {trace}")}, path, _use_new_zipfile_serialization=archive)
    if foreign:
        assert type(read_torch_file(path, foreign=True)["a"]).__name__ == "Foreign"
    else:
        with pytest.raises(UserError, match=r"a\.pt: refused, because it asks for (posix|nt)\.system"):
            read_torch_file(path)
    assert not trace.exists()


def rewrite(path, change):
    """Write an archive anew: ``change`` maps a member's name and bytes to its new bytes; None drops it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            new = change(name, data)
            if new is not None:
                archive.writestr(name, new)


def patched(old: bytes, new: bytes):
    def change(name, data):
        if name.endswith("data.pkl"):
            assert old in data
            return data.replace(old, new)
        return data

    return change


HOSTILE = {
    "a shorter storage": lambda name, data: data[:-4] if name.endswith("data/0") else data,
    "a missing storage": lambda name, data: None if name.endswith("data/0") else data,
    "a larger tensor": patched(b"K\x06K\x07\x86", b"K\xffK\xff\x86"),
    "another type": patched(b"FloatStorage", b"DoubleStorage"),
    "a negative stride": patched(b"K\x07K\x01\x86", b"K\x07J\xff\xff\xff\xff\x86"),
    "an offset": patched(b"QK\x00", b"QJ\x00\x00\x00\x10"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tensor_that_claims_what_the_file_does_not_hold_is_refused(tmp_path, name):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(6, 7)}, path)
    rewrite(path, HOSTILE[name])
    with pytest.raises(UserError, match=r"a\.pt: .*(claim|described wrongly|no item|damaged)") as caught:
        read_torch_file(path)
    assert len(str(caught.value)) < 490


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_a_bit_that_flipped_or_an_end_that_is_missing_is_noticed(tmp_path, archive):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=archive)
    whole = path.read_bytes()
    for cut in (1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.pt"):
            read_torch_file(path)
    if archive:  # the old format has no checksums
        place = whole.index(torch.arange(1000.0).numpy().tobytes()) + 77
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="Bad CRC"):
            read_torch_file(path)


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


MERSENNE = 2**61 - 1  # whose multiples Python hashes to 0
COLLIDING = [(i * MERSENNE).to_bytes(10, "little") for i in range(9999)]
BOMBS = {
    "a byte array of 2 GB": pickled(b"\x96", (2**31).to_bytes(8, "little")),
    "bytes of 2 GB by a call": pickled(b"cbuiltins\nbytes\n", b"J\xff\xff\xff\x7f\x85R"),
    "a number of a million digits": pickled(b"L" + b"9" * 10**6 + b"\n"),
    "a deep tuple as a key": pickled(b"}", b")", b"\x85" * 200_000, b"K\x00s"),
    "keys that collide": pickled(b"}(", *(b"\x8a\x0a%bN" % number for number in COLLIDING), b"u"),
    "a huge place in the memo": pickled(b"Nr\xff\xff\xff\x7f"),
    "an object of a codec": pickled(b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R"),
    "a name that is called later": pickled(b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R"),
    "an old-style class": pickled(b"(ios\nsystem\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_pickles_are_refused_at_once(tmp_path, name):
    path = tmp_path / "a.pt"
    torch.save({}, path)
    rewrite(path, lambda member, data: BOMBS[name] if member.endswith("data.pkl") else data)
    if name == "a huge place in the memo":
        assert read_torch_file(path) is None  # it costs nothing here
        return
    with pytest.raises(UserError, match=r"a\.pt") as caught:
        read_torch_file(path)
    assert len(str(caught.value)) < 490


def test_many_tensors_of_one_storage_are_no_memory_bomb(tmp_path):
    storage = torch.zeros(1 << 20)
    torch.save([storage.view(1024, 1024)[:, :1023] for _ in range(200)], tmp_path / "a.pt")
    with pytest.raises(UserError, match="claim much more memory than the file has"):
        read_torch_file(tmp_path / "a.pt")
    torch.save([torch.zeros(1).expand(1 << 40)], tmp_path / "a.pt")
    with pytest.raises(UserError, match="claim much more memory than the file has"):
        read_torch_file(tmp_path / "a.pt")


def test_an_archive_may_not_claim_more_than_it_holds(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(10)}, path)
    whole = bytearray(path.read_bytes())
    place = whole.rindex(b"archive/data/0") if b"archive/data/0" in whole else whole.rindex(b"data/0")
    header = whole.rindex(b"PK\x01\x02", 0, place)
    whole[header + 20 : header + 28] = (2**31).to_bytes(4, "little") * 2  # both sizes in the directory
    path.write_bytes(whole)
    with pytest.raises(UserError, match="claims to hold more"):
        read_torch_file(path)


def test_what_is_no_file_of_torch_is_named(tmp_path):
    (tmp_path / "page.pth").write_bytes(b"\n<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(UserError, match=r"page\.pth: is a web page"):
        read_torch_file(tmp_path / "page.pth")
    (tmp_path / "lfs.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    with pytest.raises(UserError, match=r"lfs\.pth: is a pointer of Git LFS"):
        read_torch_file(tmp_path / "lfs.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match=r"pipe\.pth: is a pipe"):
        read_torch_file(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_torch_file(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_torch_file(tmp_path / "none.pth")


def test_state_dicts_with_attributes_are_plain_dictionaries(tmp_path):
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert isinstance(state, collections.OrderedDict) and state._metadata
    torch.save(state, tmp_path / "a.pt")
    assert_equal(dict(read_torch_file(tmp_path / "a.pt")), dict(state))


def test_a_pickle_alone_is_no_checkpoint(tmp_path):
    buffer = io.BytesIO()
    pickle.dump({"a": 1}, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="magic number is missing"):
        read_torch_file(tmp_path / "a.pt")
