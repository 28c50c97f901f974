"""The arithmetic of a training step: fp32, tf32, or bf16 and fp16 by autocast; and full precision for scores."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

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

    Weights, optimizer state and losses stay in float32 whatever the precision.

    - ``fp32``: float32 throughout.
    - ``tf32``: float32, but CUDA rounds the factors of convolutions and matrix products to 10 bits, in networks and
      losses, and multiplies them on its tensor cores. Elsewhere it is fp32.
    - ``bf16``, ``fp16``: convolutions and matrix products of the networks in 16 bits. bf16 is for speed: where a device
      would emulate it, fp32 takes its place.

    ``str()`` says what is computed in.

    Raises:
        UserError: fp16 on a CPU, which has no fast fp16 convolutions.
    """

    def __init__(self, name: str, device: torch.device):
        if name == "fp16" and device.type != "cuda":
            raise UserError("TRAIN.PRECISION fp16 needs CUDA: use bf16 or fp32 on the CPU")
        self._why = ""
        if name == "bf16" and not has_bf16(device):
            instead = ", fp16 would not" if device.type == "cuda" else ""
            name, self._why = "fp32", f" (bf16 would be slower: this {device.type} emulates it{instead})"
        elif name == "tf32" and device.type != "cuda":
            name, self._why = "fp32", " (tf32 is for CUDA)"
        self._name = name
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
        self._device = device
        if device.type == "cuda":
            _allow_tf32(name == "tf32")

    def __str__(self) -> str:
        return self._name + self._why

    @property
    def low(self) -> torch.dtype | None:
        """The 16-bit type that networks compute in, None where they compute in 32 bits."""
        return self._dtype

    def autocast(self) -> AbstractContextManager:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, one for each optimizer; it does nothing but for fp16."""
        return torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """A score must not depend on how the caller trains: no autocast, no TF32, no choice of algorithms by their speed.

    For ``with``, and as a decorator of what computes a score: ``@full_precision()``.
    """
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    _allow_tf32(False)
    backends.cudnn.benchmark = False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark = before
