"""The arithmetic that a step runs in: fp32, or bf16 / fp16 by autocast."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from clipgan.errors import UserError


class Precision:
    """``TRAIN.PRECISION`` on a device: an autocast context, and gradient scalers where fp16 needs them.

    Weights, optimizer state and losses stay in float32 whatever the precision.

    Raises:
        UserError: fp16 on a CPU, which has no fast fp16 convolutions.
    """

    def __init__(self, name: str, device: torch.device):
        if name == "fp16" and device.type != "cuda":
            raise UserError("TRAIN.PRECISION fp16 needs CUDA: use bf16 or fp32 on the CPU")
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self._device = device
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def autocast(self) -> AbstractContextManager:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, one for each optimizer; it does nothing but for fp16."""
        return torch.amp.GradScaler(self._device.type, enabled=self._dtype == torch.float16)
