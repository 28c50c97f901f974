"""The ranks of ``torchrun``, as far as one process needs them: rank 0 prints, draws and writes."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among all, 0 when there is one."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    return rank() == 0
