"""How much memory the machine has, asked before much of it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterable

from torch import Tensor

from clipgan.errors import UserError

GIGABYTE = 1 << 30


def host_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def require_memory(tensors: Iterable[Tensor], copies: int, what: str, remedy: str) -> None:
    """Refuse what does not fit into this machine's memory before it is made.

    Args:
        tensors: of PyTorch's meta device, which need no memory yet.
        copies: how many of each there will be, such as a weight, its gradient and its moments.
        what: they are, for the message.
        remedy: what would need less.

    Raises:
        UserError: they need more than the machine has.
    """
    needed, have = copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors), host_memory()
    if have is not None and needed > have:
        raise UserError(
            f"{what} would need {needed / GIGABYTE:,.0f} GB, and this machine has {have / GIGABYTE:,.0f}: {remedy}"
        )
