"""Freed memory that is kept."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from clipgan.flags import REPOSITORY
from clipgan.machine.cpu_memory import keep_freed_memory

PAGES_OF_A_SECOND_BLOCK = """
import ctypes, resource, torch
from clipgan.machine.cpu_memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def new_pages(size=2**26):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
as_it_is, kept = new_pages(), keep_freed_memory(torch.device("cpu"))
new_pages()
print(kept, as_it_is, new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept_for_the_next_block_unless_the_environment_says_otherwise(monkeypatch):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONPATH"] = str(REPOSITORY / "code")
    command = [sys.executable, "-c", PAGES_OF_A_SECOND_BLOCK]
    kept, before, after = subprocess.check_output(command, env=environment, text=True).split()
    assert kept == "True" and int(after) < int(before) / 10
    assert keep_freed_memory.__wrapped__(torch.device("cuda")) is False
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert keep_freed_memory.__wrapped__(torch.device("cpu")) is False
