"""How much memory there is, asked before as much is taken as a file or a config asks for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container that this is, has; a very large number if it cannot say."""
    known = [1 << 60]
    with suppress(OSError, ValueError, AttributeError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(size for size in known if size > 0)
