"""What a run computes on, as its records tell it: processor, memory, GPUs."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from clipgan.files.memory import machine_memory
from clipgan.machine import distributed

GIGABYTE = 1 << 30


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, memory and GPUs of this run, in JSON's types. All processes call it together."""
    gpu = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = f"{properties.name}, {properties.total_memory / GIGABYTE:.0f} GB"
    memory = machine_memory()
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_gb": round(memory / GIGABYTE, 1) if memory < 1 << 60 else None,
        "gpus": [name for name in distributed.gather_objects(gpu) if name],
        "processes": distributed.world_size(),
    }


def processor_name() -> str:
    """The model of the processor, or at least its kind."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, colon, value = line.partition(":")
            if colon and name.strip() in ("model name", "Model", "cpu model"):
                return value.strip()[:200]
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory(device: torch.device) -> int:
    """The most bytes in use at once: by PyTorch on a GPU, else by this process; 0 where nothing tells it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):  # Linux
        found = re.search(r"^VmHWM:\s*([0-9]+) kB", Path("/proc/self/status").read_text(errors="replace"), re.M)
        if found:
            return int(found[1]) << 10
    with contextlib.suppress(ImportError):  # macOS counts bytes
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if platform.system() == "Darwin" else 10)
    return 0
