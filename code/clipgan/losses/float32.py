"""Losses compute in float32, whatever 16-bit precision the networks use.

One exception is asked for by name: ``TRAIN.PRECISION: tf32`` lets CUDA round the factors of all matrix products to 10
bits, those of the losses, too.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function of tensors outside autocast, its floating-point arguments cast to float32 (float64 stays)."""

    def cast(argument: object) -> object:
        low = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
        return argument.float() if low else argument

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        tensors = [argument for argument in (*args, *kwargs.values()) if isinstance(argument, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return wrapped
