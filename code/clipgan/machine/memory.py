"""Whether the networks that are to be trained fit into the machine's memory, asked before they are made."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from clipgan.errors import UserError
from clipgan.files.memory import machine_memory

GIGABYTE = 1 << 30


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
    needed, have = copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors), machine_memory()
    if needed > have:
        raise UserError(
            f"{what} would need {needed / GIGABYTE:,.0f} GB, and this machine has {have / GIGABYTE:,.0f}: {remedy}"
        )
