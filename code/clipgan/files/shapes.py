"""Declared shapes: what values read from a file must be.

A shape is a function of a value and its name that raises :class:`Misfit` for a value of another shape. Shapes are put
together as the content is::

    ARCHITECTURE = record({"gf_dim": whole(1, 4096)})
    ARCHITECTURE(content, "architecture")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from clipgan.files.gate import short

Shape = Callable[[Any, str], None]


class Misfit(ValueError):
    """A value does not have the declared shape; the message names it and says what was expected."""


def _refuse(name: str, expected: str, value: Any) -> Misfit:
    return Misfit(f"{short(name)[1:-1]} must be {expected}, not {short(value)}")


def anything(value: Any, name: str) -> None:
    """What is kept but never looked into."""


def whole(low: int, high: int) -> Shape:
    """A whole number from ``low`` to ``high``."""

    def check(value: Any, name: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _refuse(name, f"a whole number from {low} to {high}", value)

    return check


def number(low: float = -math.inf, high: float = math.inf, *, finite: bool = True) -> Shape:
    """A number from ``low`` to ``high``; a ``finite`` one unless told otherwise."""

    def check(value: Any, name: str) -> None:
        fits = type(value) is float or (type(value) is int and value.bit_length() < 1024)  # what a float can hold
        if not (fits and (not finite or math.isfinite(value)) and low <= value <= high):
            bounds = "" if (low, high) == (-math.inf, math.inf) else f" from {low:g} to {high:g}"
            raise _refuse(name, f"a {'finite ' if finite else ''}number{bounds}", value)

    return check


def text(longest: int = 1000) -> Shape:
    """A text of at most ``longest`` characters."""

    def check(value: Any, name: str) -> None:
        if type(value) is not str or len(value) > longest:
            raise _refuse(name, f"a text of at most {longest} characters", value)

    return check


def flag(value: Any, name: str) -> None:
    """True or False."""
    if type(value) is not bool:
        raise _refuse(name, "true or false", value)


def one_of(*values: Any) -> Shape:
    """One of these values, of the same type."""

    def check(value: Any, name: str) -> None:
        if not any(type(value) is type(known) and value == known for known in values):
            raise _refuse(name, " or ".join(map(repr, values)), value)

    return check


def either(*shapes: Shape) -> Shape:
    """Any of several shapes; the message is that of the last."""

    def check(value: Any, name: str) -> None:
        for shape in shapes[:-1]:
            try:
                return shape(value, name)
            except Misfit:
                continue
        return shapes[-1](value, name)

    return check


def nothing(value: Any, name: str) -> None:
    """None, or null in JSON."""
    if value is not None:
        raise _refuse(name, "empty", value)


def list_of(shape: Shape, at_least: int = 0, at_most: int = 10**6) -> Shape:
    """A list or tuple of ``at_least`` to ``at_most`` values of one shape."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, list | tuple) or not at_least <= len(value) <= at_most:
            count = f"{at_least}" if at_least == at_most else f"{at_least} to {at_most}"
            raise _refuse(name, f"a list of {count} values", value)
        for place, item in enumerate(value):
            shape(item, f"{name}[{place}]")

    return check


def mapping_of(shape: Shape, at_most: int = 10**5, key: type = str) -> Shape:
    """A dictionary from keys of one type (texts: of at most 1 000 characters) to values of one shape."""

    def check(value: Any, name: str) -> None:
        if not isinstance(value, Mapping) or len(value) > at_most:
            raise _refuse(name, f"a dictionary of at most {at_most} entries", value)
        for entry, item in value.items():
            if type(entry) is not key or (key is str and len(entry) > 1000):
                raise _refuse(f"a key of {name}", f"a {'text' if key is str else 'whole number'}", entry)
            shape(item, f"{name}.{entry}")

    return check


def record(
    required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None, *, others: bool = False
) -> Shape:
    """A dictionary with these keys, ``others`` too where that is said."""
    optional = optional or {}

    def check(value: Any, name: str) -> None:
        if not isinstance(value, Mapping) or len(value) > 1000:
            raise _refuse(name, f"a dictionary with {', '.join(required) or 'named entries'}", value)
        missing = [key for key in required if key not in value]
        if missing:
            raise Misfit(f"{name} lacks {', '.join(missing)}")
        for key, item in value.items():
            shape = required.get(key) or optional.get(key) if isinstance(key, str) else None
            if shape is not None:
                shape(item, f"{name}.{key}")
            elif not others:
                known = ", ".join([*required, *optional])
                raise Misfit(f"{name} has {short(key)}, which it should not: it may have {known}")

    return check


def tensor(value: Any, name: str) -> None:
    """A dense tensor of real numbers on the CPU."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        raise _refuse(name, "a tensor", value if not isinstance(value, Tensor) else f"{value.layout} {value.device}")
    if value.is_complex() or value.is_quantized:
        raise _refuse(name, "a tensor of real numbers", str(value.dtype))


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; None if all are finite."""
    for name, value in tensors:
        if value.is_floating_point() and not torch.isfinite(value).all():
            return name
    return None


def weight_differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """How a file's tensors differ from those that a network has: the first three in words; empty where they fit.

    Names, shapes and kinds of numbers are compared. ``wanted`` may be on the meta device.
    """
    differences = [f"lacks {name}" for name in wanted if name not in found]
    differences += [f"has {short(name)[1:-1]}, which is unknown here" for name in found if name not in wanted]
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tensor.shape:
            differences.append(f"has {name} as {short(list(found[name].shape))}, not {list(tensor.shape)}")
        elif name in found and found[name].is_floating_point() != tensor.is_floating_point():
            differences.append(f"has {name} in {found[name].dtype}, not {tensor.dtype}")
    more = f", and {len(differences) - 3} more differences" if len(differences) > 3 else ""
    return f"it {', it '.join(differences[:3])}{more}" if differences else ""


WEIGHTS = mapping_of(tensor)
