"""Reads the metadata pickles of the data sets without running what is in them.

A pickle is a program: loading a stranger's file can do anything. The lists of names, class numbers and word indices
that the data sets come with need lists, numbers, strings and NumPy scalars or arrays, so all else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from clipgan.errors import UserError


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that ``_ALLOWED`` does not list."""


def _latin1_encode(text: str, encoding: str = "latin1") -> bytes:
    """What ``_codecs.encode`` does in pickles of NumPy scalars; the real one would load any codec by its name."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


# NumPy's functions that rebuild scalars and arrays. Its versions keep them in different modules, so they are taken from
# what NumPy itself pickles.
_SCALAR = np.float64(0).__reduce__()[0]
_ARRAY = np.zeros(0).__reduce__()[0]
_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_NUMPY_MODULES = ("numpy.core", "numpy._core")

_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("_codecs", "encode"): _latin1_encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"{module}.multiarray", "scalar"): _SCALAR for module in _NUMPY_MODULES},
    **{(f"{module}.multiarray", "_reconstruct"): _ARRAY for module in _NUMPY_MODULES},
    **{(f"{module}.numeric", "_frombuffer"): _BUFFER for module in _NUMPY_MODULES},
    # Python 2 calls the module of built-ins by another name.
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (list, dict, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, complex)
    },
    ("__builtin__", "unicode"): str,
    ("__builtin__", "long"): int,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def load_pickle(path: str | Path) -> Any:
    """Load a pickle of any protocol that holds plain containers, strings, numbers and NumPy arrays.

    Byte strings of Python 2 become ``str`` by Latin-1, as NumPy's old pickles need.

    Raises:
        UserError: the file is missing, is no pickle, or asks for anything that is not allowed (the message names it).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{path}: refused, because it asks for {error}; expected a plain pickle of lists, numbers and strings"
        ) from None
    except Exception as error:  # broken bytes make the unpickler raise nearly anything
        raise UserError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from None
