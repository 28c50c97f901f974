"""The device that a process computes on, what is set there for speed, and the seeds of its random numbers."""

from __future__ import annotations

import random
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.machine import distributed, door

Network = TypeVar("Network", bound=nn.Module)


def choose_device(gpu: int | None, use_cuda: bool = True) -> torch.device:
    """The device to compute on.

    Args:
        gpu: CUDA index, −1 for the CPU, None for CUDA if there is one and else the CPU with a line that says so.
            Under torchrun it is that of the machine's first process; the others take the ones after it. Where each
            process is shown one GPU of its own, it is number 0 in each.
        use_cuda: False forces the CPU (the config's ``CUDA``).

    Raises:
        UserError: a CUDA device was asked for by number and is not there.
    """
    if not use_cuda or (gpu is not None and gpu < 0):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        if count == 0:
            if distributed.is_main():
                print("no CUDA device found: computing on the CPU (--gpu -1 says so without this line)")
            return torch.device("cpu")
        gpu = 0
    # `distributed.initialise` refuses two processes on one GPU.
    alone_with_one = count == 1 and gpu == 0
    gpu += 0 if alone_with_one else distributed.local_rank()
    if gpu >= count:
        have = {0: "this machine has no CUDA device", 1: "this machine has one CUDA device, number 0"}.get(
            count, f"this machine has CUDA devices 0 to {count - 1}"
        )
        processes = ", one for each process of torchrun" if distributed.world_size() > 1 else ""
        raise UserError(f"--gpu {gpu}{processes}: {have}; --gpu -1 computes on the CPU")
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def place(network: Network, device: torch.device, low: torch.dtype | None = None) -> Network:
    """Move a convolutional network to ``device``, its weights in the :func:`fastest_layout`.

    Features take their layout from the weights. No number changes but for rounding.
    """
    return network.to(device).to(memory_format=fastest_layout(device, low))


def fastest_layout(device: torch.device, low: torch.dtype | None) -> torch.memory_format:
    """The layout in which convolutions are fastest.

    Channels-last is up to a third faster on a CPU. On CUDA, tensor cores compute in it where ``low``, the type that the
    network computes in, has 16 bits.
    """
    wanted = low is not None if device.type == "cuda" else door.fast_forms_are_on()
    return torch.channels_last if wanted else torch.preserve_format


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor from the host to ``device``; a GPU need not be waited for."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def prepare_training(device: torch.device) -> None:
    """Let cuDNN try its algorithms on the first batch and keep the fastest: all batches of a run are of one size."""
    torch.backends.cudnn.benchmark = device.type == "cuda"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Items of a loader do not depend on these: see ``data/dataset.py``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
