"""A machine that fails: one line that says what to do, and a bug keeps its traceback."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch

from clipgan.config import Config, save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import Stopped, UserError
from clipgan.files.writing import write_text
from clipgan.machine import failures
from clipgan.machine.failures import explained
from clipgan.runs.progress import Progress
from clipgan.runs.report import write_json

ROOT = Path(__file__).resolve().parents[2]


def raising(error: BaseException) -> None:
    @explained
    def main():
        raise error

    main()


def line_of(error: Exception) -> str:
    with pytest.raises(UserError) as caught:
        raising(error)
    line = str(caught.value)
    assert len(line) <= 480 and line.isprintable()
    return line


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "this user's share of the disk is used up"),
        (errno.EFBIG, "larger than the system lets it be"),
    ],
)
def test_a_full_disk_names_the_file_its_room_and_what_to_do(tmp_path, number, said):
    line = line_of(OSError(number, os.strerror(number), str(tmp_path / "new" / "state.pt")))
    assert f"{tmp_path}/new/state.pt: cannot be written: " in line and said in line
    assert " MB are free" in line and "make room" in line and "--resume" in line
    assert line_of(OSError(number, os.strerror(number))).startswith("a file cannot be written: ")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_written_to_asks_for_another(number):
    line = line_of(OSError(number, os.strerror(number), "/mnt/run/x.png"))
    assert line.startswith("/mnt/run/x.png: cannot be written: ") and "OUTPUT_DIR" in line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "out of memory: lower TRAIN.BATCH_SIZE or EVAL.BATCH_SIZE"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "out of memory (unable to allocate 7.45 gib): lower"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory: lower"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"), "tried to allocate 2.00 gib"),
        (RuntimeError("CUDA error: out of memory"), "the GPU is out of memory: lower TRAIN.BATCH_SIZE"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 4000 bytes. Error code 12"), "out of memory (tried to allocate 4000 bytes)"),
        (RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you"), "out of memory: lower"),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "lower WORKERS, or raise the system's limit"),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), "a.jpg: cannot be read or written"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "that reads images was killed,"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "was killed (signal: Killed)"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                      "workers are out of shared memory. Please try to raise"), "out of shared memory: lower WORKERS"),
        (RuntimeError("unable to write to file </torch_9_8_0>: No space left on device (28)"), "the shared memory"),
        (RuntimeError("unable to open shared memory object </torch_1> in read-write mode"), "the shared memory"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "was killed"),
        (MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal"), "in a process that reads images"),
        (OSError("Caught OSError in DataLoader worker process 0.\nOriginal Traceback\nOSError: [Errno 28] No space"),
         "a file cannot be written: the disk is full"),
        (ConnectionResetError("Caught ConnectionResetError in pin memory thread for device 0.\n  File "
                              '"/usr/lib/python3.11/multiprocessing/connection.py", line 395'), "was killed"),
        (OSError("got end of file during message"), "was killed"),
        (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 121664 vs 121552"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "the disk is full"),
        (OSError("400 requested and 128 written"), "the disk is full"),
        (RuntimeError("[/third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "another process"),
    ],
    ids=range(25),
)  # fmt: skip
def test_every_other_failure_of_a_machine_is_a_line_that_says_what_to_do(error, expected):
    line = line_of(error)
    assert expected in line
    assert "--resume" in line and ("WORKERS" in line or "BATCH_SIZE" in line or "make room" in line or "see" in line
                                   or "look after" in line)  # fmt: skip


@pytest.mark.parametrize("kind", [ConnectionResetError, EOFError, BrokenPipeError, ConnectionRefusedError])
def test_a_queue_whose_worker_was_killed(kind, monkeypatch):
    from multiprocessing import connection

    def broken(self, size, read=os.read):
        raise kind

    monkeypatch.setattr(connection.Connection, "_recv", broken)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    sender.send(1)

    @explained
    def main():
        receiver.recv()

    with pytest.raises(UserError, match="a process that reads images was killed"):
        main()


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        KeyError("x"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("DataLoader worker number must be positive"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        EOFError("Ran out of input"),
        OSError("could not create decoder object"),
        AssertionError(),
        RecursionError("maximum recursion depth exceeded"),
        UserError("a mistake"),
        Stopped("stopped after step 5"),
        SystemExit(3),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        raising(error)
    assert caught.value is error


def test_main_keeps_its_name_and_result():
    @explained
    def main(argv=None):
        """What it does."""
        return argv

    assert (main.__name__, main.__doc__, main([1])) == ("main", "What it does.", [1])


@pytest.mark.parametrize("name", ["main.py", "pretrain_DAMSM.py", "fid_score.py", "inception_score.py",
                                  *(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py"))])  # fmt: skip
def test_every_script_explains(script, name):
    main = script(name).main
    assert hasattr(main, "__wrapped__") and main.__code__ is explained(main).__code__


class Disk:
    """Inside, no file may become longer than so many bytes, which is what a full disk looks like from here."""

    def __init__(self, room: int):
        self._room = room

    def __enter__(self):
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._room, self._before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def test_a_report_on_a_full_disk_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "fid.json"
    write_json(path, {"value": 1})
    before = path.read_bytes()
    with Disk(1000), pytest.raises(UserError, match=r"fid\.json: cannot be written: .*make room"):
        write_json(path, {"value": "x" * 5000})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["file/fid.json", "file/x/fid.json", "folder", "x" * 300, "."])
def test_a_report_that_can_stand_nowhere_is_one_line(tmp_path, where):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / where, {"value": 1})
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_path_that_is_no_text_is_written_all_the_same(tmp_path):
    write_text(tmp_path / "x.json", '"a\udcff"')
    assert (tmp_path / "x.json").read_text() == '"a\\udcff"'


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_clip) -> list[str]:
    """The flags of a pretraining of a few steps, with a worker that reads the images, and a state after each step."""
    folder = tmp_path_factory.mktemp("failing")
    draw_toy_dataset(folder / "data", "birds", train=24, test=12, size=32, seed=3)
    config = Config(DATA_DIR=str(folder / "data"), OUTPUT_DIR=str(folder / "output"), WORKERS=1, GPU_ID=-1)
    config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.STATE_INTERVAL = 6, 6, 1e-9
    config.TRAIN.CLIP_MODEL_BASE, config.TRAIN.CLIP_PRETRAINED, config.TEXT.EMBEDDING_DIM = str(tiny_clip), "", 16
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 32, 1
    save_config(config, folder / "run.yml")
    return ["--cfg", str(folder / "run.yml"), "--resume", "auto"]


def test_a_worker_that_is_killed_ends_the_run_in_a_line_and_it_goes_on(script, run, monkeypatch):
    step = Progress.step

    def killing(self, now, *arguments, **keywords):
        step(self, now, *arguments, **keywords)
        if now == 3:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.3)

    main = script("pretrain_DAMSM.py").main
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"reads images was killed.*lower WORKERS.*--resume"),
    ):
        patch.setattr(Progress, "step", killing)
        main(run)
    seen = []
    monkeypatch.setattr(Progress, "step", lambda self, now, *a, **k: seen.append(now) or step(self, now, *a, **k))
    main(run)
    assert seen[0] in (3, 4) and seen[-1] == 6


def test_a_full_disk_ends_a_script_with_one_line_and_status_2(run):
    config = run[1]
    finished = subprocess.run(
        [sys.executable, str(ROOT / "pretrain_DAMSM.py"), "--cfg", config, "--set", "CONFIG_NAME=full"],
        capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert finished.returncode == 2 and "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "cannot be written" in lines[0] and "--resume" in lines[0] and len(lines[0]) <= 500


def test_an_error_that_a_signal_handler_raises_meanwhile_is_explained_instead(monkeypatch):
    explain, told = failures._of_the_system, []

    def interrupted(error):
        if not told:
            told.append(error)
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        return explain(error)

    monkeypatch.setattr(failures, "_of_the_system", interrupted)

    @failures.explained
    def main():
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(UserError, match="a process that reads images was killed"):
        main()
