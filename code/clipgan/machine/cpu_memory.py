"""Memory that a process keeps instead of giving it back to the system: faster on a CPU, with glibc."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

import torch

from clipgan.machine.door import fast_forms_are_on

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # parameters of mallopt, in glibc's malloc.h


@functools.cache
def keep_freed_memory(device: torch.device) -> bool:
    """Have a process that computes on the CPU keep the memory that it frees from now on, and take it again.

    By default glibc gives large blocks back to the system, which clears every page before it hands them out again: a
    good third of a GAN step at 256 pixels on a CPU, a fifth of a pretraining step of ViT-B/16 (bench/RESULTS.md). The
    price is that the process stays as large as it ever was. Best called when the tensors that last have been allocated.

    Returns:
        Whether it does: not on another device, nor with another C library than glibc, nor where the environment says,
        by a ``MALLOC_…`` variable, how memory is to be handled, nor where fast forms are off (``door.py``).
    """
    if device.type != "cpu" or not fast_forms_are_on():
        return False
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
