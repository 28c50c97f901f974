"""What a machine does to a program: full disks, no memory, killed processes. Each becomes a line that says what to do.

These failures may arise anywhere, so they are explained in one place, around a script's ``main``.
"""

from __future__ import annotations

import errno
import functools
import re
import traceback
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

import torch

from clipgan.errors import UserError, one_line
from clipgan.files.writing import STILL_THERE, explain_write

P, R = ParamSpec("P"), TypeVar("R")

_ON = "training goes on with --resume"
# What PyTorch, whose failures are all RuntimeErrors, and the libraries below it say.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|cannot allocate memory|out of memory|bad_alloc|ALLOC_FAILED",
    re.IGNORECASE,
)
_WORKER_KILLED = re.compile(
    r"DataLoader worker \(pid.*?\) (exited unexpectedly|is killed by signal)|Pin memory thread exited"
)
_SHARED_MEMORY = re.compile(r"</torch_|shared memory|\bshm\b")
_HALF_WRITTEN = re.compile(
    r"unexpected pos \d|PytorchStreamWriter failed|file write failed|\d+ requested and \d+ written"
)
_PEER_GONE = re.compile(
    r"gloo.*(closed by peer|reset by peer|broken pipe|timed out)|NCCL.*remote process exited", re.IGNORECASE | re.DOTALL
)
# Where the main process takes batches from its workers.
_QUEUE = re.compile(r"multiprocessing[./\\](connection|queues|reduction|resource_sharer)\b")


def explained(main: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a script's ``main``: failures of the machine become a :class:`UserError` of one line.

    Everything else passes as it is, so a bug keeps its traceback.
    """

    @functools.wraps(main)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except Exception as error:
            line = _without_interruption(error)
            if line is None:
                raise
            raise UserError(line) from error

    return explaining


def _without_interruption(error: Exception) -> str | None:
    """The explanation of ``error``, or of what PyTorch raises meanwhile.

    PyTorch tells of a killed worker from within a signal handler, so its error may come anywhere, here, too.
    """
    for _ in range(100):  # one for each worker
        try:
            return explanation(error)
        except RuntimeError as interruption:
            error = interruption
    return None


def explanation(error: Exception) -> str | None:
    """What happened and what to do, for a failure of the machine; None for any other error."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _no_memory(error)
    if isinstance(error, BrokenProcessPool):
        return _worker_killed("")
    if isinstance(error, OSError | EOFError):
        return _of_the_system(error)
    if isinstance(error, RuntimeError):
        return _of_torch(error)
    return None


def _of_the_system(error: OSError | EOFError) -> str | None:
    number, said = _errno(error), str(error)
    path = getattr(error, "filename", None)
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open at once: lower WORKERS, or raise the system's limit (ulimit -n); {_ON}"
    if number == errno.ENOMEM:
        return _no_memory(error)
    if _HALF_WRITTEN.search(said):
        return explain_write(errno.ENOSPC)
    modules = " ".join(frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    if number == errno.ENOSPC and "multiprocessing.synchronize" in modules:
        return f"the shared memory through which processes meet is used up: {_SHARED_REMEDY}; {_ON}"
    if number == errno.EAGAIN and ("multiprocessing" in modules or "subprocess" in modules):
        return f"the system starts no more processes for this user: lower WORKERS; {_ON}"
    # What a worker raised comes with the worker's traceback in its message.
    where = modules + (said if _from_worker(error) else "")
    cut = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and _QUEUE.search(where)
    if cut or "end of file during message" in said:
        return _worker_killed("")
    return explain_write(number, path if isinstance(path, str) else None)


def _of_torch(error: RuntimeError) -> str | None:
    said = str(error)
    killed = _WORKER_KILLED.search(said)
    if killed:
        return _worker_killed(said[killed.start() :])
    if _HALF_WRITTEN.search(said):
        cause = error.__context__
        number = cause.errno if isinstance(cause, OSError) else None
        return explain_write(number) or explain_write(errno.ENOSPC)
    if _SHARED_MEMORY.search(said) and re.search(r"unable to|No space left|Too many open files", said):
        return f"the shared memory through which images travel is used up: {_SHARED_REMEDY}; {_ON}"
    if _NO_MEMORY.search(said):
        return _no_memory(error)
    if "can't start new thread" in said:
        return f"the system starts no more threads for this user: lower WORKERS; {_ON}"
    if _PEER_GONE.search(said):
        return f"another process of this run has ended, see what it said; {_ON}"
    return None


_SHARED_REMEDY = "lower WORKERS or TRAIN.BATCH_SIZE, or give more (docker run --shm-size=8g, or --ipc=host)"


def _worker_killed(said: str) -> str:
    if re.search(r"shared memory|Bus error", said):
        return f"a process that reads images has run out of shared memory: {_SHARED_REMEDY}; {_ON}"
    signal = re.search(r"killed by signal: ([\w ]+)", said)
    how = f" (signal: {signal[1].strip()})" if signal else ""
    return f"a process that reads images was killed{how}, perhaps for lack of memory: lower WORKERS; {STILL_THERE}"


def _no_memory(error: Exception) -> str:
    if _from_worker(error):
        return f"out of memory in a process that reads images: lower WORKERS or TRAIN.BATCH_SIZE; {_ON}"
    asked = re.search(r"(tried to allocate|unable to allocate) [\d.]+ ?\w+", str(error), re.IGNORECASE)
    how = f" ({one_line(asked[0], 60).lower()})" if asked else ""
    where, also = "out of memory", "lower WORKERS"
    if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error) or "CUBLAS" in str(error):
        where, also = "the GPU is out of memory", "set TRAIN.PRECISION to bf16"
    return f"{where}{how}: lower TRAIN.BATCH_SIZE or EVAL.BATCH_SIZE (--batch_size of a score), or {also}; {_ON}"


def _from_worker(error: Exception) -> bool:
    return str(error).startswith("Caught ")


def _errno(error: OSError | EOFError) -> int | None:
    """Also of an error of a worker, which keeps no number but in its message."""
    number = getattr(error, "errno", None)
    found = re.findall(r"\[Errno (\d+)\]", str(error)) if number is None and _from_worker(error) else []
    return int(found[-1]) if found else number
