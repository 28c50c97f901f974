"""Tensors that pretend to be on a GPU: they know their device and shape, and hold no numbers.

They raise where a tensor of another device meets one of CUDA, where a value is read back (a GPU would have to be waited
for), and where an operator has no fake kernel. The autograd engine wants a real device: forward passes only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.amp.autocast_mode
import torch.cuda.amp.common
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

CUDA = torch.device("cuda")


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside the block every new tensor is a fake one on CUDA, and autocast takes CUDA for present.

    Older releases of PyTorch (2.7) ask the driver even for fake tensors. Where they find none, the test is skipped.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (torch.amp.autocast_mode, torch.cuda.amp.common):
            patch.setattr(module, "amp_definitely_not_available", lambda: False, raising=False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
            try:
                torch.empty(3).uniform_()
            except RuntimeError as error:
                pytest.skip(f"this PyTorch wants a driver for fake CUDA tensors: {str(error).splitlines()[0]}")
            yield


def onto_cuda(network: nn.Module) -> nn.Module:
    """Move the buffers that were copied from constants, as ``.to("cuda")`` would do."""
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.device.type == "cpu":
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    return network
