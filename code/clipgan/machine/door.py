"""The one door from the method's plain formulas to faster forms of them on a CPU.

``networks/`` and ``losses/`` hold every formula in plain PyTorch. A function there that is marked with
:func:`faster_on_cpu` has a second form of the same name in ``cpu_kernels.py``: the same arguments, the same values and
gradients. The door picks the form at each call. It picks the fast one for plain tensors on a CPU only: a GPU,
``torch.compile`` and a dry run on fake tensors always meet the plain form.

One switch turns every fast form off: ``CLIPGAN_PLAIN=1`` in the environment, or :func:`plain_forms` in a program. It
also turns off :func:`speed_up` and what else asks :func:`fast_forms_are_on`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

_on = os.environ.get("CLIPGAN_PLAIN", "") in ("", "0")

# The plain functions that have a fast form, by name.
PLAIN_FORMS: dict[str, Callable] = {}


def fast_forms_are_on() -> bool:
    """Whether fast forms may be used at all."""
    return _on


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Inside the block, everything is computed in its plain form."""
    global _on
    before, _on = _on, False
    flash = torch.backends.cuda.flash_sdp_enabled()
    torch.backends.cuda.enable_flash_sdp(True)  # the default, which `speed_up` changes
    try:
        yield
    finally:
        _on = before
        torch.backends.cuda.enable_flash_sdp(flash)


def faster_on_cpu(plain: Callable) -> Callable:
    """Mark a function whose first argument is a tensor: on a CPU, ``cpu_kernels`` has a faster form of it."""
    PLAIN_FORMS[plain.__name__] = plain

    @functools.wraps(plain)
    def choose(x: Tensor, *arguments: object) -> Tensor:
        if torch.compiler.is_compiling() or not _takes_the_fast_form(x):
            return plain(x, *arguments)
        from clipgan.machine import cpu_kernels

        return getattr(cpu_kernels, plain.__name__)(x, *arguments)

    return choose


def _takes_the_fast_form(x: Tensor) -> bool:
    return _on and x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter)


def speed_up(device: torch.device) -> None:
    """Prepare the process for computing on ``device``: what is set for good rather than chosen at each call.

    On a CPU, oneDNN multiplies float32 matrices where it is the faster library (``cpu_products``), and attention runs
    in its plain form: for CLIP's short sequences the fused kernel's backward pass is slower.
    """
    if device.type != "cpu" or not _on:
        return
    from clipgan.machine.cpu_products import use_fast_products

    use_fast_products(device)
    torch.backends.cuda.enable_flash_sdp(False)  # the name is CUDA's; CPUs ask it, too
