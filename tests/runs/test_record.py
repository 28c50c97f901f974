"""How a run was made: ``run.json``."""

import json
import re
import subprocess

import pytest
import torch

from clipgan.config import Config
from clipgan.errors import Stopped, UserError
from clipgan.machine.precision import Precision
from clipgan.runs import hardware, record
from clipgan.runs.folder import RunFolder
from clipgan.runs.record import command_line, git_state, recorded

CPU = torch.device("cpu")


@pytest.fixture
def session(tmp_path):
    """Enters a session of a run."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    origin = {"command": "python main.py --cfg x.yml", "data": {"train": "ab"}, "encoder": "cd"}

    def enter():
        return recorded(folder, Config(SEED=7), CPU, Precision("fp32", CPU), **origin)

    enter.path = folder.record
    return enter


def sessions(path):
    return json.loads(path.read_text())["sessions"]


def test_a_session_says_what_made_the_run(session):
    with session():
        (started,) = sessions(session.path)
        assert started["finished"] is None and started["ended"] is None
    (made,) = sessions(session.path)
    assert made["command"] == "python main.py --cfg x.yml"
    assert (made["seed"], made["device"], made["precision"]) == (7, "cpu", "fp32")
    assert (made["data"], made["encoder"]) == ({"train": "ab"}, "cd")
    assert made["versions"]["torch"] == torch.__version__
    assert made["ended"] == "done" and made["started"] <= made["finished"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["finished"])
    hardware = made["hardware"]
    assert hardware["processor"] and hardware["cores"] >= 1 and hardware["memory_gb"] > 0
    assert (hardware["gpus"], hardware["processes"]) == ([], 1)


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (Stopped("stopped after step 5"), "stopped"),
        (KeyboardInterrupt(), "interrupted"),
        (UserError("the disk is full"), "failed: the disk is full"),
        (ZeroDivisionError("x"), "failed: ZeroDivisionError"),
    ],
)
def test_the_way_it_ended_is_told_and_the_error_goes_on(session, error, ended):
    with pytest.raises(type(error)), session():
        raise error
    assert sessions(session.path)[0]["ended"] == ended and sessions(session.path)[0]["finished"]


def test_a_run_that_goes_on_adds_a_session_and_a_killed_one_stays_open(session):
    with session():
        killed = session.path.read_text()
    session.path.write_text(killed)
    with session():
        assert [made["ended"] for made in sessions(session.path)] == [None, None]
    assert [made["ended"] for made in sessions(session.path)] == [None, "done"]


BROKEN = [b"", b"{", b"[]", b'{"sessions": 5}', b'{"sessions": [5]}', b'{"sessions": [{}], "more": 1}', b"\0" * 5000,
          b'{"sessions": [' + b"[" * 100_000, b'{"sessions": [{}], "sessions": []}']  # fmt: skip


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_renamed_with_a_line_and_the_run_goes_on(session, content, capsys):
    session.path.write_bytes(content)
    with session():
        pass
    assert len(sessions(session.path)) == 1
    assert session.path.with_name("run.json.damaged").read_bytes() == content
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{session.path}: ") and line.endswith("it is now run.json.damaged, and a new one begins")


def test_a_folder_in_its_place_is_renamed_too(session):
    session.path.mkdir()
    with session():
        assert len(sessions(session.path)) == 1
    assert session.path.with_name("run.json.damaged").is_dir()


def test_what_cannot_be_written_is_an_error_at_first_and_a_warning_at_the_end(session, monkeypatch, capsys):
    def refused(path, value):
        raise UserError(f"{path}: cannot be written")

    with session():
        monkeypatch.setattr(record, "write_json", refused)
    assert "warning: " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"run\.json: cannot be written"), session():
        raise AssertionError
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError), session():
        monkeypatch.setattr(record, "write_json", refused)
        raise ZeroDivisionError


def test_other_processes_than_the_first_write_nothing(session, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with session():
        pass
    assert not session.path.exists()


def test_the_command_is_that_of_the_shell_unless_a_program_called(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/main.py", "--set", "DATA_DIR=my birds"])
    assert command_line("main.py", None) == "python main.py --set 'DATA_DIR=my birds'"
    assert command_line("main.py", ["--gpu", "-1"]) == "python main.py --gpu -1"


def git(root, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_its_files_were_changed(tmp_path, monkeypatch):
    root = tmp_path / "clone"
    root.mkdir()
    monkeypatch.setattr(record, "ROOT", root)
    try:
        git(root, "init")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_state() is None  # no commit
    (root / "a.py").write_text("1\n")
    git(root, "add", "a.py")
    git(root, "commit", "-m", "x")
    commit = git(root, "rev-parse", "HEAD")
    (root / "output").mkdir()
    (root / "output" / "untracked").write_text("x")
    assert git_state() == {"commit": commit, "dirty": False}
    (root / "a.py").write_text("2\n")
    assert git_state() == {"commit": commit, "dirty": True}
    monkeypatch.setattr(record, "ROOT", root / "output")  # unpacked inside somebody else's repository
    assert git_state() is None
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert git_state() is None
    monkeypatch.setattr(record, "ROOT", root)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


def test_a_git_that_hangs_is_not_waited_for(monkeypatch):
    def hanging(command, timeout, **_options):
        assert 0 < timeout < 60
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hanging)
    assert git_state() is None


def test_the_gpu_of_every_process_is_named(monkeypatch):
    class Properties:
        name, total_memory = "NVIDIA H100", 80 << 30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(hardware.distributed, "gather_objects", lambda value: [value, value])
    assert hardware.describe(torch.device("cuda", 0))["gpus"] == ["NVIDIA H100, 80 GB"] * 2
