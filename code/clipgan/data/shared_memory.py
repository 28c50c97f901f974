"""Limits a loader's workers to the machine's free shared memory, through which they pass batches to the main process.

Containers often have little of it (Docker gives 64 MB), and the system kills a worker that finds none left.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clipgan.machine import distributed

_SHARED = Path("/dev/shm")  # of Linux; other systems have no such limit


def fit_workers(workers: int, ahead: int, batch_bytes: int) -> tuple[int, int]:
    """Reduce workers and batches ahead to fit half of the free shared memory; prints a line if there are fewer workers.

    Args:
        workers: how many the loader should have.
        ahead: batches that each worker may prepare ahead, at least 1.
        batch_bytes: size of one batch in bytes, at least 1.

    Returns:
        How many workers, and how many batches ahead (at least 1). 0 workers: batches are made in the main process.
    """
    if workers == 0 or not _SHARED.is_dir():
        return workers, ahead
    free = shutil.disk_usage(_SHARED).free
    fitting = free // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) // batch_bytes - 1  # one is in use
    fewer = max(0, min(workers, fitting))
    if fewer < workers and distributed.is_main():
        print(
            f"the shared memory has {free / 1e6:.0f} MB free, and a batch takes {batch_bytes / 1e6:.1f} MB: "
            f"{fewer} instead of {workers} workers read images (in Docker, --shm-size=2g gives more)"
        )
    return fewer, max(1, min(ahead, fitting // max(1, fewer)))
