"""An unpickler that builds plain values only, whatever a pickle asks for.

A pickle is a program for a small machine. The machine of the standard library calls any function by its name; it also
allocates what a file claims, hashes what a file nests, and crashes on what NumPy's own functions are given. This one
follows the same operations but knows a table of harmless functions, bounds what it allocates, and refuses keys that
are not plain.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

Functions = Mapping[tuple[str, str], Callable]


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that no plain data needs."""


class Foreign:
    """Stands for an object of a class that is not known here: its content, inert."""

    def __init__(self, name: str = "", arguments: tuple = ()):
        self.name, self.arguments, self.content = name, arguments, None

    def rebuild(self, state: Any) -> None:
        self.content = state


class _ForeignClass:
    """What a pickle gets for the name of a class that is not known here."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Foreign:
        return Foreign(self.name, arguments)


def _check_key(key: Any) -> None:
    # Numbers beyond 60 bits and nested tuples can be made to collide, and deep tuples overflow the stack when hashed.
    plain = type(key) in (str, bytes, bool, type(None)) or (type(key) is int and key.bit_length() <= 60)
    if not plain:
        raise Refused(f"a {type(key).__name__} as a key")


def _new_set(kind: type) -> Callable:
    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple | set | frozenset):
            raise Refused(f"a {kind.__name__} of a {type(items).__name__}")
        for item in items:
            _check_key(item)
        return kind(items)

    return build


def _new_dict(kind: type) -> Callable:
    def build(items: Any = ()) -> Any:
        if isinstance(items, dict):
            return kind(items)
        if not isinstance(items, list | tuple) or not all(isinstance(i, list | tuple) and len(i) == 2 for i in items):
            raise Refused(f"a {kind.__name__} of something else than pairs")
        for key, _ in items:
            _check_key(key)
        return kind(items)

    return build


def _new_list(kind: type) -> Callable:
    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple | set | frozenset):
            raise Refused(f"a {kind.__name__} of a {type(items).__name__}")
        return kind(items)

    return build


def _new_bytes(kind: type) -> Callable:
    def build(content: Any = b"", encoding: str = "") -> Any:
        if isinstance(content, str) and encoding in ("latin1", "latin-1"):
            return kind(content.encode("latin1"))
        if not isinstance(content, bytes | bytearray):  # a number would allocate as many bytes
            raise Refused(f"a {kind.__name__} of a {type(content).__name__}")
        return kind(content)

    return build


def _latin1_encode(content: str, encoding: str = "latin1") -> bytes:
    """What ``_codecs.encode`` does in pickles of NumPy scalars; the real one would load any codec by its name."""
    if encoding != "latin1" or not isinstance(content, str):
        raise Refused(f"_codecs.encode with {str(encoding)[:40]!r}")
    return content.encode("latin1")


def _new_number(kind: type) -> Callable:
    def build(value: Any = 0) -> Any:
        if type(value) not in (int, float, bool) and not (type(value) is str and len(value) < 100):
            raise Refused(f"a {kind.__name__} of a {type(value).__name__}")
        return kind(value)

    return build


def _new_defaultdict(_factory: Any = None, items: Any = ()) -> dict:
    return _new_dict(dict)(items)


def _new_complex(*_arguments: Any) -> complex:
    raise Refused("complex numbers")


def _new_text(content: Any = "") -> str:
    if not isinstance(content, str):
        raise Refused(f"a text of a {type(content).__name__}")
    return content


_BUILTINS: dict[str, Callable] = {
    "list": _new_list(list), "tuple": _new_list(tuple), "set": _new_set(set), "frozenset": _new_set(frozenset),
    "dict": _new_dict(dict), "bytes": _new_bytes(bytes), "bytearray": _new_bytes(bytearray),
    "int": _new_number(int), "float": _new_number(float), "bool": _new_number(bool), "complex": _new_complex,
    "str": _new_text,
}  # fmt: skip

PLAIN: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): _new_dict(OrderedDict),
    ("collections", "defaultdict"): _new_defaultdict,
    ("_codecs", "encode"): _latin1_encode,
    # Python 2 calls the module of built-ins by another name.
    **{(module, name): new for module in ("builtins", "__builtin__") for name, new in _BUILTINS.items()},
    ("__builtin__", "unicode"): _new_text,
    ("__builtin__", "long"): _new_number(int),
}

_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)

# Operations of the machine that plain data needs none of: codes of a registry, old-style classes, buffers from outside,
# and byte arrays, which are allocated before they are read.
_REFUSED = ("EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8", "NEWOBJ_EX")


class PlainUnpickler(pickle._Unpickler):
    """Reads one pickle.

    Args:
        file: from where it stands.
        functions: by module and name, all that the pickle may call.
        persistent: what becomes of persistent ids, which PyTorch uses for its storages; None refuses them.
        foreign: an object of another class becomes a :class:`Foreign`; else it is refused.

    Raises (``load``):
        Refused: it asks for something else.
        Exception: of nearly any kind, where its bytes are broken.
    """

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        file: io.BytesIO,
        functions: Functions = PLAIN,
        persistent: Callable[[Any], Any] | None = None,
        foreign: bool = False,
    ):
        super().__init__(file, encoding="latin1")
        self._functions, self._persistent, self._foreign = functions, persistent, foreign
        self.budget = 1 << 24  # items and bytes that all calls together may copy: a pickle can pass one list many times

    def find_class(self, module: str, name: str) -> Any:
        known = self._functions.get((module, name))
        if known is not None:
            return known
        if self._foreign:
            return _ForeignClass(f"{module}.{name}")
        raise Refused(f"{module}.{name}")

    def persistent_load(self, identifier: Any) -> Any:
        if self._persistent is None:
            raise Refused("a persistent object")
        return self._persistent(identifier)

    def _call(self, function: Any, arguments: Any) -> Any:
        ours = isinstance(function, _ForeignClass) or any(function is known for known in self._functions.values())
        if not ours or not isinstance(arguments, tuple):
            raise Refused(f"a call of a {type(function).__name__}")
        if not isinstance(function, _ForeignClass):  # which copies nothing
            self.budget -= sum(len(argument) for argument in arguments if isinstance(argument, _SIZED))
        if self.budget < 0:
            raise Refused("more copies than plain data needs")
        return function(*arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        rebuild = getattr(type(self.stack[-1]), "rebuild", None)
        if rebuild is not None:
            rebuild(self.stack[-1], state)
        elif not isinstance(self.stack[-1], OrderedDict):  # its attributes, such as PyTorch's `_metadata`, are left out
            raise Refused(f"the state of a {type(self.stack[-1]).__name__}")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], list(zip(items[::2], items[1::2], strict=True)))

    def load_dict(self) -> None:
        items = self.pop_mark()
        made: dict = {}
        self._set(made, list(zip(items[::2], items[1::2], strict=True)))
        self.append(made)

    def _set(self, mapping: Any, pairs: list[tuple[Any, Any]]) -> None:
        if isinstance(mapping, Foreign):  # a subclass of dict: what it holds is of no use here
            return
        if not isinstance(mapping, dict):
            raise Refused(f"keys of a {type(mapping).__name__}")
        for key, value in pairs:
            _check_key(key)
            mapping[key] = value

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, items: Any, more: list) -> None:
        if isinstance(items, Foreign):
            return
        if not isinstance(items, list):
            raise Refused(f"items of a {type(items).__name__}")
        items.extend(more)

    def load_additems(self) -> None:
        items = self.pop_mark()
        for item in items:
            _check_key(item)
        if type(self.stack[-1]) is not set:
            raise Refused(f"items of a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(items)

    def load_frozenset(self) -> None:
        self.append(_new_set(frozenset)(self.pop_mark()))

    def load_refused(self) -> None:
        raise Refused("an operation that plain data needs none of")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.APPEND[0]] = load_append
    dispatch[pickle.APPENDS[0]] = load_appends
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    for _name in _REFUSED:
        dispatch[getattr(pickle, _name)[0]] = load_refused
