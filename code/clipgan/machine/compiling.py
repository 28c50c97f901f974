"""``TRAIN.COMPILE``: functions through ``torch.compile``, or as they are where that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from clipgan.machine import distributed


class CompiledFunction:
    """A function through ``torch.compile``, or as it is from the first time that it cannot be compiled.

    Only a failure to compile the forward pass has this remedy. What goes wrong in the backward pass or while computing,
    such as a lack of memory or a broken connection to another process, is raised.

    Args:
        function: of tensors.
        name: for the line that is printed when it cannot be compiled.
        varying: (argument, dimension) pairs whose sizes differ from call to call, such as the length of captions; other
            sizes there do not compile it anew.
        **options: of ``torch.compile``.
    """

    def __init__(self, function: Callable, name: str, varying: Sequence[tuple[int, int]] = (), **options: Any):
        self._function, self._name, self._varying = function, name, varying
        self._compiled: Callable | None = torch.compile(function, **options)

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is not None:
            for argument, dimension in self._varying:
                torch._dynamo.maybe_mark_dynamic(arguments[argument], dimension)
            try:
                return self._compiled(*arguments)
            except (TorchDynamoException, OSError, ImportError) as error:  # the last two: no compiler, no Triton
                if isinstance(error, ConnectionError):
                    raise
                if isinstance(getattr(error, "inner_exception", None), torch.OutOfMemoryError):
                    raise
                self._compiled = None
                if distributed.is_main():
                    reason = " ".join(str(error).split())[:160]
                    print(f"TRAIN.COMPILE: {self._name} runs uncompiled ({type(error).__name__}: {reason})")
        return self._function(*arguments)


def compile_forward(network: nn.Module, varying: Sequence[tuple[int, int]] = (), **options: Any) -> None:
    """Replace a network's ``forward`` by a :class:`CompiledFunction`. Weights and their names stay as they are."""
    name = f"{type(network).__name__}.forward"
    object.__setattr__(network, "forward", CompiledFunction(network.forward, name, varying, **options))
