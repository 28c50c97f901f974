"""Products of float32 matrices by oneDNN, on the processors where PyTorch's own choice of library is slow.

On x86, PyTorch multiplies float32 matrices by Intel's MKL, which leaves the AVX-512 units of AMD's processors unused.
oneDNN, which PyTorch brings along for its convolutions and for bf16, uses them: twice the speed (bench/RESULTS.md). On
any other processor nothing changes.
"""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from clipgan.machine.door import fast_forms_are_on

# Multiplications below which oneDNN's start costs more than it saves (measured on two cores).
_WORTH_IT = 2**22
_SIDE_WORTH_IT = 32  # rows and columns, too

_PROCESSORS = Path("/proc/cpuinfo")  # of Linux; elsewhere `platform.processor` names the maker

_until_the_end = contextlib.ExitStack()


@functools.cache
def use_fast_products(device: torch.device) -> bool:
    """`fast_products` for the rest of the process; for what a script computes on ``device``."""
    return _until_the_end.enter_context(fast_products(device))


@contextlib.contextmanager
def fast_products(device: torch.device) -> Iterator[bool]:
    """For as long as it lasts, multiply float32 matrices on the CPU by oneDNN where that is faster.

    It replaces what PyTorch's operators ``mm`` and ``addmm`` call on a CPU: linear layers, 2-D ``@`` and the gradients
    of both come down to them. Results are the same up to rounding, and the same bits each time.
    It does not nest.

    Args:
        device: what the process computes on.

    Yields:
        Whether it does: on a CPU of AMD's with AVX-512.
    """
    wanted = device.type == "cpu" and _mkl_is_slow() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    operators = torch.library.Library("aten", "IMPL")
    if wanted:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")  # it is meant
            operators.impl("mm", _mm, "CPU")
            operators.impl("addmm", _addmm, "CPU")
    try:
        yield wanted
    finally:
        operators._destroy()


def _mkl_is_slow() -> bool:
    text = _PROCESSORS.read_text() if _PROCESSORS.is_file() else platform.processor()
    return "AuthenticAMD" in text and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _mm(a: Tensor, b: Tensor) -> Tensor:
    if _worth_it(a, b):
        return _by_onednn(a, b)
    return torch.mm(a, b, out=a.new_empty(0))  # with `out` it is another operator, PyTorch's own


def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if c.ndim == 1 and c.dtype == a.dtype and beta == alpha == 1 and _worth_it(a, b) and len(c) == b.shape[1]:
        return _by_onednn(a, b, c.contiguous())
    return torch.addmm(c, a, b, beta=beta, alpha=alpha, out=a.new_empty(0))


def _worth_it(a: Tensor, b: Tensor) -> bool:
    # Products with few rows or columns are bound by memory. What does not fit is left to PyTorch, which says so.
    fits = a.dtype == b.dtype == torch.float32 and a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]
    if not (fits and fast_forms_are_on()):
        return False
    sides = *a.shape, b.shape[1]
    return min(sides) >= _SIDE_WORTH_IT and math.prod(sides) >= _WORTH_IT


def _by_onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (b.is_contiguous() or b.T.is_contiguous()):
        b = b.contiguous()  # it takes no overlapping rows
    return torch.ops.mkldnn._linear_pointwise(a, b.T, bias, "none", [], "")
