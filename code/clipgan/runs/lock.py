"""Locks: two processes that write to one place at once would mix their files."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from clipgan.errors import UserError, one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs. The system releases it when the process dies, however it dies.

    Args:
        path: of the lock's file, which stays behind, empty of meaning; its folder is made.
        what: the thing that is locked, for the message.

    Raises:
        UserError: another process holds the lock, or the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}): choose another OUTPUT_DIR") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = one_line(file.read(200), 100) or "unknown"
            raise UserError(
                f"{what} is in use by another process ({holder}): wait until it has ended, or choose another place "
                "(CONFIG_NAME or OUTPUT_DIR)"
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
