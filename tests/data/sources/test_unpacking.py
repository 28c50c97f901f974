"""Archives of pictures, sound ones and those that want to do harm."""

import errno
import gzip
import io
import os
import shutil
import tarfile
import tracemalloc
import zipfile

import pytest

from clipgan.data.sources import unpacking
from clipgan.data.sources.unpacking import archive_stem, is_archive, unpack
from clipgan.errors import UserError

PICTURE = b"\xff\xd8\xff not really a picture" * 99


def tar(path, members, mode="w:gz", end=True):
    """Writes an archive of (name or TarInfo, content) pairs; without ``end``, as it is before its last two blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        length = archive.offset
    content = buffer.getvalue() if end else buffer.getvalue()[:length]
    path.write_bytes(gzip.compress(content) if mode == "w:gz" else content)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


def link_in_zip(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info, target.encode()


def unpacked(path, folder):
    folder.mkdir(exist_ok=True)
    unpack(path, folder)
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def refused(path, folder, match):
    """The archive is refused by name, and nothing is written, not even outside the folder."""
    folder.mkdir(exist_ok=True)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError, match=match) as caught:
        unpack(path, folder)
    assert path.name in str(caught.value) and len(str(caught.value)) < 490
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize("ending", [".tgz", ".tar.gz", ".tar", ".zip"])
def test_pictures_and_texts_are_unpacked_and_all_else_is_not(tmp_path, ending):
    members = [
        ("./set/images/001.Auk/ä b.jpg", PICTURE), ("set/a.PNG", b"png"), ("set/empty.txt", b""),
        ("set/list.csv", b"c"), ("set/run.sh", b"rm"), ("set/program", b"x"), ("set/x.t7", b"x"),
        ("__MACOSX/set/._a.jpg", b"x"),
        ("set/.hidden.jpg", b"x"), ("set/._a.jpg", b"x"),
    ]  # fmt: skip
    path = tmp_path / f"pics{ending}"
    if ending == ".zip":
        zipped(path, [(name.removeprefix("./"), content) for name, content in members])
    else:
        tar(path, members, "w" if ending == ".tar" else "w:gz")
    assert is_archive(path) and archive_stem(path) == "pics"
    assert unpacked(path, tmp_path / "to") == {
        "set/images/001.Auk/ä b.jpg": PICTURE, "set/a.PNG": b"png", "set/empty.txt": b"", "set/list.csv": b"c",
    }  # fmt: skip


def test_other_files_are_unpacked_where_they_are_asked_for(tmp_path):
    path = tar(tmp_path / "a.tgz", [("text.zip", b"PK"), ("a.jpg", b"x")])
    (tmp_path / "to").mkdir()
    unpack(path, tmp_path / "to", also=(".zip",))
    assert sorted(os.listdir(tmp_path / "to")) == ["a.jpg", "text.zip"]


BAD = "holds a member that cannot be unpacked"
BAD_NAMES = ["../a.jpg", "x/../../a.jpg", "/tmp/a.jpg", "..\\a.jpg", "C:\\a.jpg", "a\n.jpg", "x" * 201 + ".jpg"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_leads_out_or_that_no_file_should_have_refuses_a_tar(tmp_path, name):
    refused(tar(tmp_path / "a.tgz", [("good.jpg", PICTURE), (name, b"x")]), tmp_path / "to", rf"a\.tgz: {BAD}: .*")


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_leads_out_or_that_no_file_should_have_refuses_a_zip(tmp_path, name):
    refused(zipped(tmp_path / "a.zip", [("good.jpg", PICTURE), (name, b"x")]), tmp_path / "to", rf"a\.zip: {BAD}: .*")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "x/../../up", ".."])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, "zip"])
def test_a_link_that_leads_out_refuses_the_archive(tmp_path, kind, target):
    if kind == "zip":
        path = zipped(tmp_path / "a.zip", [("a.jpg", PICTURE), link_in_zip("b.jpg", target)])
    else:
        path = tar(tmp_path / "a.tgz", [("a.jpg", PICTURE), special("b.jpg", kind, target)])
    refused(path, tmp_path / "to", "holds the link b.jpg, which leads out of it")


def test_a_link_within_the_archive_is_left_out_and_counted(tmp_path):
    members = [("a/a.jpg", PICTURE), special("b/b.jpg", tarfile.SYMTYPE, "../a/a.jpg"),
               special("c.jpg", tarfile.LNKTYPE, "a/a.jpg")]  # fmt: skip
    (tmp_path / "to").mkdir()
    assert unpack(tar(tmp_path / "a.tgz", members), tmp_path / "to") == 2
    assert os.listdir(tmp_path / "to") == ["a"]


def test_a_picture_behind_a_link_to_a_folder_cannot_leave(tmp_path):
    members = [special("up", tarfile.SYMTYPE, "."), ("up/a.jpg", PICTURE)]
    assert unpacked(tar(tmp_path / "a.tgz", members), tmp_path / "to") == {"up/a.jpg": PICTURE}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_refuse_the_archive(tmp_path, kind):
    path = tar(tmp_path / "a.tgz", [("a.jpg", PICTURE), special("b.jpg", kind)])
    refused(path, tmp_path / "to", "holds b.jpg, which is neither a file nor a folder")


def test_a_device_in_a_zip_refuses_it(tmp_path):
    info = zipfile.ZipInfo("b.jpg")
    info.external_attr = 0o020666 << 16
    refused(zipped(tmp_path / "a.zip", [("a.jpg", PICTURE), (info, b"")]), tmp_path / "to", "holds b.jpg, which is")


@pytest.mark.parametrize("ending", [".tgz", ".tar", ".zip"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8, 0.999])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, ending, kept):
    path = tmp_path / f"a{ending}"
    members = [(f"{i}.jpg", os.urandom(3000)) for i in range(5)]
    zipped(path, members) if ending == ".zip" else tar(path, members, "w" if ending == ".tar" else "w:gz")
    content = path.read_bytes()
    if ending == ".tar":
        content = content[: content.rindex(b"4.jpg") + 3584]  # without the zeros behind the last file
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, tmp_path / "to", rf"a\{ending}: ")


def test_a_tar_that_ends_between_two_files_is_refused(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", PICTURE), ("b.jpg", PICTURE)], "w", end=False)
    refused(path, tmp_path / "to", "cut off or damaged")


@pytest.mark.parametrize("ending", [".tgz", ".tar", ".zip"])
def test_a_damaged_archive_is_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    members = [(f"{i}.jpg", os.urandom(3000)) for i in range(5)]
    zipped(path, members) if ending == ".zip" else tar(path, members, "w" if ending == ".tar" else "w:gz")
    content = bytearray(path.read_bytes())
    place = content.index(b"3.jpg") if ending == ".tar" else len(content) // 2  # a header's checksum, or any byte
    content[place] ^= 0xFF
    path.write_bytes(content)
    (tmp_path / "to").mkdir()
    with pytest.raises(UserError, match=rf"a\{ending}: "):
        unpack(path, tmp_path / "to")


def test_what_is_no_archive_is_refused(tmp_path):
    for name, content in {"a.tgz": b"x" * 2000, "b.tar": b"", "c.zip": b"PK\3\4", "d.tgz": b"<html>no</html>"}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, tmp_path / "to", "expected an archive|is a web page")
    os.mkfifo(tmp_path / "e.tgz")
    refused(tmp_path / "e.tgz", tmp_path / "to", "is a pipe")
    refused(tar(tmp_path / "f.tgz", [("a.sh", b"x")]), tmp_path / "to", "holds no picture and no text")


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    path = tar(tmp_path / "a.tgz", [("a.jpg", b"1"), ("./a.jpg", b"2")])
    with pytest.raises(UserError, match=r"a\.tgz: holds two members called \./a\.jpg"):
        unpacked(path, tmp_path / "to")
    path = tar(tmp_path / "b.tgz", [("a.jpg", b"1"), ("a.jpg/b.jpg", b"2")])
    with pytest.raises(UserError, match=r"b\.tgz: holds two members"):
        unpacked(path, tmp_path / "other")


def test_a_small_archive_that_expands_far_is_refused_before_much_is_read(tmp_path):
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=9) as file:
        info = tarfile.TarInfo("a.jpg")
        info.size = 120 << 20
        file.write(info.tobuf())
        for _ in range(120):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    tracemalloc.start()
    refused(tmp_path / "a.tgz", tmp_path / "to", "expands to more than")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a.jpg", bytes(120 << 20))
    refused(tmp_path / "b.zip", tmp_path / "to", "claims to hold more")


@pytest.mark.parametrize(
    "size, complaint",
    [(1 << 40, "unexpected end"), (-512, "damaged"), (-1 << 40, "leads back"), (-1, "damaged")],
)
def test_a_size_that_is_not_there_is_refused(tmp_path, size, complaint):
    info = tarfile.TarInfo("a.jpg")
    info.size = size
    content = info.tobuf(format=tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(content + PICTURE + bytes(2048))
    (tmp_path / "to").mkdir()
    with pytest.raises(UserError, match=rf"a\.tar: .*{complaint}"):
        unpack(tmp_path / "a.tar", tmp_path / "to")


def test_a_size_in_a_zip_that_is_not_there_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.jpg", PICTURE)])
    content = path.read_bytes()
    size = len(PICTURE).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (len(PICTURE) + 10).to_bytes(4, "little")))
    (tmp_path / "to").mkdir()
    with pytest.raises(UserError, match=r"a\.zip: is cut off"):
        unpack(path, tmp_path / "to")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 60 << 20
    (tmp_path / "a.tgz").write_bytes(gzip.compress(info.tobuf() + bytes(60 << 20)))
    tracemalloc.start()
    refused(tmp_path / "a.tgz", tmp_path / "to", "has a header that claims 62,914,560 bytes")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_gaps_and_unusual_compression_are_refused(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", PICTURE)], "w")
    content = bytearray(path.read_bytes())
    content[156:157] = tarfile.GNUTYPE_SPARSE
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    refused(path, tmp_path / "to", "with gaps")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", PICTURE)
    refused(tmp_path / "b.zip", tmp_path / "to", "unusual method")


def test_more_members_than_any_data_set_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "_MOST_MEMBERS", 3)
    path = tar(tmp_path / "a.tgz", [(f"{i}.sh", b"") for i in range(4)])
    refused(path, tmp_path / "to", "holds more than 3 files")


def test_many_members_take_no_memory(tmp_path):
    path = tar(tmp_path / "a.tgz", [("a.jpg", PICTURE), *((f"{i}.sh", b"") for i in range(4000))])
    unpacked(path, tmp_path / "to")  # the table of all of Python's names may grow by megabytes when it takes a new one
    shutil.rmtree(tmp_path / "to")
    tracemalloc.start()
    try:
        assert len(unpacked(path, tmp_path / "to")) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()  # it would slow all later tests down


def test_an_archive_for_which_there_is_no_room_is_refused_before_writing(tmp_path, monkeypatch):
    path = tar(tmp_path / "a.tgz", [("a.jpg", os.urandom(3 << 20))])
    usage = type("usage", (), {"free": 2 << 20})
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: usage)
    refused(path, tmp_path / "to", r"holds 3 MB, but there is room for 2 MB")


def test_a_disk_that_takes_no_more_is_named_with_the_file(tmp_path, monkeypatch):
    path = tar(tmp_path / "a.tgz", [("a.jpg", PICTURE)])
    (tmp_path / "to").mkdir()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking, "_copy", full)
    with pytest.raises(UserError, match=r"to/a\.jpg: cannot be written \(No space left on device\)"):
        unpack(path, tmp_path / "to")
