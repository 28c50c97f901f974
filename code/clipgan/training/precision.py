"""The arithmetic that a step runs in: fp32, or bf16 / fp16 by autocast; compiled, where that is asked for."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from clipgan import distributed
from clipgan.errors import UserError


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16. Without them it is emulated, on a CPU 20 times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):  # AVX-512 alone emulates, too
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Precision:
    """``TRAIN.PRECISION`` on a device: an autocast context, and gradient scalers where fp16 needs them.

    Weights, optimizer state and losses stay in float32 whatever the precision. bf16 is for speed: where a device
    would emulate it, fp32 takes its place. ``str()`` says what is computed in.

    Raises:
        UserError: fp16 on a CPU, which has no fast fp16 convolutions.
    """

    def __init__(self, name: str, device: torch.device):
        if name == "fp16" and device.type != "cuda":
            raise UserError("TRAIN.PRECISION fp16 needs CUDA: use bf16 or fp32 on the CPU")
        self._emulated = name == "bf16" and not has_bf16(device)
        self._name = "fp32" if self._emulated else name
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self._name]
        self._device = device
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def __str__(self) -> str:
        instead = ", fp16 would not" if self._device.type == "cuda" else ""
        why = f" (bf16 would be slower: this {self._device.type} emulates it{instead})" if self._emulated else ""
        return self._name + why

    @property
    def low(self) -> bool:
        """Whether convolutions run in 16 bits."""
        return self._dtype is not None

    def autocast(self) -> AbstractContextManager:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, one for each optimizer; it does nothing but for fp16."""
        return torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A score must not depend on the precision that the caller trains in: no autocast, no TF32."""
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed


class _Compiled:
    """A function through ``torch.compile``, or as it is from the first time that this fails."""

    def __init__(self, function: Callable, name: str):
        self._function, self._name = function, name
        self._compiled: Callable | None = torch.compile(function)

    def __call__(self, *args: Any) -> Any:
        if self._compiled is not None:
            try:
                return self._compiled(*args)
            except (RuntimeError, OSError, ImportError) as error:  # dynamo's and inductor's own are RuntimeErrors
                self._compiled = None
                if distributed.is_main():
                    reason = " ".join(str(error).split())[:160]
                    print(f"TRAIN.COMPILE: {self._name} runs uncompiled ({type(error).__name__}: {reason})")
        return self._function(*args)


def compile_methods(wanted: bool, network: nn.Module, *names: str) -> None:
    """Replace methods of a network by compiled ones (``TRAIN.COMPILE``); each falls back with a line if it cannot be.

    Weights and their names stay as they are.
    """
    for name in names if wanted else ():
        compiled = _Compiled(getattr(network, name), f"{type(network).__name__}.{name}")
        object.__setattr__(network, name, compiled)
