"""Stand-ins for the functions by which NumPy's pickles rebuild scalars and arrays.

NumPy's own functions trust what they are given: a forged type makes them read beyond their bytes or crash the
interpreter. These know plain numbers and texts only, and compare every size with the bytes that are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from clipgan.files.gate import short
from clipgan.files.pickles import Refused

# Truth values, whole numbers, floats, byte strings and texts of at most 99 999 characters; objects in arrays of texts.
_PLAIN_TYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,4}|O[48]?)")
_MOST_DIMENSIONS = 32
_ITEMS = (str, bytes, int, float, bool, type(None))  # what an array of objects may hold


class Dtype:
    """The type of NumPy values: a stand-in for ``numpy.dtype``."""

    def __init__(self, name: Any, _align: Any = False, _copy: Any = True):
        known = _PLAIN_TYPE.fullmatch(name) if isinstance(name, str) else None
        if known is None:
            raise Refused(f"the NumPy type {short(name)}")
        self._name, self._order = known[1], "<"

    @property
    def kind(self) -> str:
        return self._name[0]

    @property
    def real(self) -> np.dtype:
        return np.dtype(self._order + self._name)

    def rebuild(self, state: Any) -> None:
        """Take the byte order from (version, order, and nothing that a plain type has)."""
        plain = (
            isinstance(state, tuple)
            and len(state) in (8, 9)
            and type(state[0]) is int
            and state[1] in ("<", ">", "=", "|")
            and all(part is None for part in state[2:5])
            and type(state[5]) is int
            and state[5] in (-1, self.real.itemsize)
        )
        if not plain:
            raise Refused(f"a forged NumPy type {self._name}")
        self._order = ">" if state[1] == ">" else "<"


class Unbuilt:
    """An array whose content has not come yet. ``places`` are the numbers under which the pickle remembers it."""

    def __init__(self) -> None:
        self.places: list = []

    def build(self, state: Any) -> np.ndarray:
        """The array of a state (version, shape, type, whether it is in Fortran's order, content)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array of an unknown form")
        _, shape, dtype, fortran, content = state
        return _array(content, dtype, shape, "F" if fortran else "C")


def _bytes_of(content: Any) -> bytes:
    if isinstance(content, str):  # a byte string of Python 2
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise Refused(f"NumPy values of a {type(content).__name__}")
    return bytes(content)


def _values(content: Any, dtype: Any, count: int) -> np.ndarray:
    """``count`` values of a plain type, from exactly as many bytes."""
    if not isinstance(dtype, Dtype):
        raise Refused(f"NumPy values whose type is a {type(dtype).__name__}")
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != count or not all(type(i) in _ITEMS for i in content):
            raise Refused("an array of objects that are no texts or numbers")
        values = np.empty(count, dtype=object)
        values[:] = content
        return values
    content = _bytes_of(content)
    if len(content) != count * dtype.real.itemsize:
        raise ValueError(f"{short(count)} NumPy values of {dtype.real} are claimed, but there are {len(content)} bytes")
    if dtype.kind == "U":
        content.decode("utf-32-be" if dtype.real.str[0] == ">" else "utf-32-le")  # raises for what is no text
    return np.frombuffer(content, dtype.real) if count else np.zeros(0, dtype.real)


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if type(shape) is int:
        shape = (shape,)
    sound = isinstance(shape, tuple) and len(shape) <= _MOST_DIMENSIONS
    if not sound or not all(type(side) is int and 0 <= side < 2**48 for side in shape):
        raise ValueError(f"an array claims the shape {short(shape)}")
    return _values(content, dtype, math.prod(shape)).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any = b"") -> Any:
    """A number or text as Python's own."""
    if isinstance(dtype, Dtype) and dtype.kind == "O":
        raise Refused("a NumPy scalar that is an object")
    return _values(content, dtype, 1)[0].item()


def _array_class(*_arguments: Any) -> Any:
    raise Refused("an array without content")


def _reconstruct(kind: Any, _shape: Any = (0,), _code: Any = b"b") -> Unbuilt:
    if kind is not _array_class:
        raise Refused("an array of a class of its own")
    return Unbuilt()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if not isinstance(dtype, Dtype) or dtype.kind == "O":
        raise Refused("an array of objects in bytes")
    array = _array(content, dtype, shape, "F" if order == "F" else "C")
    if axes is None:
        return array
    if not isinstance(axes, tuple) or not all(type(a) is int for a in axes) or sorted(axes) != [*range(array.ndim)]:
        raise ValueError(f"an array claims the order of axes {short(axes)}")
    return array.transpose(axes)


# NumPy 1 and 2 keep the functions in different modules.
NUMPY: dict[tuple[str, str], Callable] = {
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): _array_class,
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}
