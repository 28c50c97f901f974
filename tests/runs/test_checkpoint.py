"""Checkpoints: atomic, self-describing, strict, and never executed."""

import pickle

import pytest
import torch

from clipgan.errors import UserError
from clipgan.runs import checkpoint

ARCHITECTURE = {"width": 3}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "Model" / "net.pth"
    checkpoint.save(path, "generator", architecture=ARCHITECTURE, weights={"w": torch.arange(3.0)}, epoch=7)
    content = checkpoint.load(path, "generator", made_by="main.py")
    assert content["architecture"] == ARCHITECTURE and content["epoch"] == 7
    assert torch.equal(content["weights"]["w"], torch.arange(3.0))
    assert [file.name for file in path.parent.iterdir()] == ["net.pth"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    checkpoint.save(path, "generator", architecture=ARCHITECTURE, weights={})

    def fail(content, file):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"net\.pth: cannot be written \(disk full.*make room"):
        checkpoint.save(path, "generator", architecture={}, weights={})
    monkeypatch.undo()
    assert checkpoint.load(path, "generator", made_by="main.py")["architecture"] == ARCHITECTURE
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]


def test_pytorchs_own_error_of_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def fail(content, file):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 121664 vs 121552")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=r"net\.pth: cannot be written .*MB are free there.*make room"):
        checkpoint.save(tmp_path / "net.pth", "generator", architecture={}, weights={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_accepted(tmp_path, value):
    weights = {"a": torch.ones(3), "b.weight": torch.tensor([1.0, value])}
    with pytest.raises(UserError, match=r"net\.pth: is not written, because b\.weight of the generator holds NaN"):
        checkpoint.save(tmp_path / "net.pth", "generator", architecture=ARCHITECTURE, weights=weights)
    content = {"format": checkpoint.FORMAT, "kind": "generator", "architecture": ARCHITECTURE, "weights": weights}
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth: b\.weight of the generator holds NaN or infinities"):
        checkpoint.load(tmp_path / "net.pth", "generator", made_by="main.py")


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(UserError, match=r"no encoder checkpoint at .*clip\.pth: pretrain_DAMSM\.py writes one"):
        checkpoint.load(tmp_path / "clip.pth", "encoder", made_by="pretrain_DAMSM.py")


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    checkpoint.save(tmp_path / "net.pth", "generator", architecture={}, weights={})
    with pytest.raises(UserError, match="holds a generator, not a encoder"):
        checkpoint.load(tmp_path / "net.pth", "encoder", made_by="pretrain_DAMSM.py")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or no checkpoint") as caught:
        checkpoint.load(path, "generator", made_by="main.py")
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError):
        checkpoint.load("net.pth", "generator", made_by="main.py")
    torch.save({"format": checkpoint.FORMAT, "kind": "generator", "bomb": Bomb()}, "net.pth")
    with pytest.raises(UserError):
        checkpoint.load("net.pth", "generator", made_by="main.py")
    assert not (tmp_path / "bomb-went-off").exists()


def test_weights_that_do_not_fit_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"net\.pth does not fit this architecture") as caught:
        checkpoint.load_into(lambda: torch.nn.Linear(2, 2), {"weight": torch.zeros(3, 2)}, "net.pth")
    assert "\n" not in str(caught.value)
