"""Reads what ``torch.save`` wrote: dictionaries, lists, numbers, texts and tensors, and nothing that could run.

It knows the two formats of PyTorch: the archive of today, and the row of pickles from before 1.6, in which
checkpoints of DM-GAN and Inception's weights are published. Of a TorchScript archive, in which OpenAI published CLIP,
it reads the weights without the program. ``torch.load`` is not used: a forged file can make it allocate what it
claims, read beyond its storages, or crash.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.files.archives import open_archive, read_member
from clipgan.files.gate import reading, refuse_other_files, require_file, short
from clipgan.files.pickles import PLAIN, Foreign, PlainUnpickler, Refused

EXPECTED = "a file that torch.save wrote"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 1 << 28
_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class _StorageType:
    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, *_arguments: Any) -> None:
        raise Refused("a storage of its own")


class _Storage:
    """A row of numbers of the file, as a flat tensor; ``flat`` is None while the file is only measured."""

    def __init__(self, numel: int, flat: Tensor | None):
        self.numel, self.flat, self.used = numel, flat, False


class _Module(Foreign):
    """A module of a TorchScript archive: its attributes, some of which are modules again."""


class _ModuleClass:
    def __call__(self, *_arguments: Any) -> _Module:
        return _Module()


def read_torch_file(path: str | Path, *, foreign: bool = False, expected: str = EXPECTED) -> Any:
    """The content of a file, tensors on the CPU.

    Args:
        path: the file.
        foreign: objects of unknown classes, such as a training framework's, become inert; else they are refused.
        expected: what the file should be, for the message.

    Returns:
        Plain values and tensors. Of a TorchScript archive: its weights by their names.

    Raises:
        UserError: no such file; damaged; no such format; or it asks for something that plain data needs none of.
    """
    with reading(path, expected):
        require_file(path)
        with open(path, "rb") as file:
            beginning = file.read(64)
        refuse_other_files(path, beginning)
        try:
            if beginning.startswith(b"PK\x03\x04"):
                return _read_archive(path, foreign)
            return _read_legacy(path, foreign)
        except Refused as error:
            raise ValueError(f"refused, because it asks for {error}") from None
        except (UserError, OSError, RecursionError, MemoryError):
            raise
        except Exception as error:  # broken bytes make an unpickler raise nearly anything
            raise ValueError(f"is damaged or no checkpoint ({type(error).__name__}: {str(error)[:150]})") from None


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive."""
    with reading(path, EXPECTED), open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
        with open_archive(path, stored=True) as archive:
            return _is_program(archive.namelist())


def _is_program(names: list[str]) -> bool:
    return any("/code/" in name for name in names)


def _functions(size: int, program: bool = False) -> dict:
    """What the pickle of a file of ``size`` bytes may call."""
    rebuild_tensor = _Tensors(size)
    storages = {name: _StorageType(dtype) for name, dtype in _DTYPES.items()}
    return _Functions(
        {
            **PLAIN,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
            ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
            ("torch", "Size"): PLAIN["builtins", "tuple"],
            ("torch", "device"): lambda *names: str(names),
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _type: value,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): PLAIN["builtins", "list"]
                for kind in ("int", "double", "bool", "tensor")
            },
            **{(module, name): kind for module in ("torch", "torch.cuda") for name, kind in storages.items()},
        },
        program,
    )


class _Functions(dict):
    """A table of functions to which the classes of a TorchScript program belong, whatever their names."""

    def __init__(self, functions: dict, program: bool):
        super().__init__(functions)
        self._program = program

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        if self._program and key not in self and key[0].startswith("__torch__"):
            self[key] = _ModuleClass()
        return super().get(key, default)


class _Tensors:
    """Makes tensors of their own memory and of the layout that they had, if their storages hold all that they claim.

    Tensors may share a storage, or repeat its numbers. So all of them together may need more memory than the file has,
    but not much more.
    """

    def __init__(self, size: int):
        self._left = 4 * size + (1 << 20)  # bytes

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor | None:
        paired = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 16
        numbers = [offset, *size, *stride] if paired else [None]
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor is described wrongly")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
        if count and last >= storage.numel:
            raise ValueError(f"a tensor of {short(list(size))} claims more than its storage of {storage.numel} holds")
        self._left -= count * (storage.flat.element_size() if storage.flat is not None else 1)
        if self._left < 0:
            raise ValueError("its tensors claim much more memory than the file has")
        if storage.flat is None:
            return None
        alone = not storage.used and count == storage.numel
        storage.used = True
        tensor = storage.flat.as_strided(size, stride, offset)
        return tensor if alone and tensor.is_contiguous() else tensor.clone()


def _rebuild_parameter(data: Any = None, *_rest: Any) -> Any:
    return data


def _flat(content: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(content, dtype=dtype) if content else torch.zeros(0, dtype=dtype)


def _storage_of(identifier: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and length of a persistent id."""
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise Refused("an unknown persistent object")
    _, kind, key, _, numel = identifier[:5]
    if not isinstance(kind, _StorageType) or type(numel) is not int or numel < 0:
        raise ValueError("a storage is described wrongly")
    return kind.dtype, str(key), numel


def _read_archive(path: str | Path, foreign: bool) -> Any:
    with open_archive(path, stored=True) as archive:
        names = archive.namelist()
        (main,) = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")] or [""]
        if not main:
            raise ValueError("is an archive, but not PyTorch's")
        prefix = main.removesuffix("data.pkl")
        if f"{prefix}byteorder" in names and bytes(read_member(archive, f"{prefix}byteorder")) != b"little":
            raise ValueError("was written on a big-endian machine")
        known: dict[str, _Storage] = {}

        def storage(identifier: Any) -> _Storage:
            dtype, key, numel = _storage_of(identifier)
            if key not in known:
                member = f"{prefix}data/{key}"
                size = archive.getinfo(member).file_size
                if size != numel * dtype.itemsize:
                    raise ValueError(f"{member} has {size} bytes, but {numel} numbers of {dtype} are claimed")
                known[key] = _Storage(numel, _flat(read_member(archive, member), dtype))
            found = known[key]
            if found.flat.dtype != dtype or found.numel != numel:
                raise ValueError(f"{prefix}data/{key} is claimed to be of two types")
            return found

        if archive.getinfo(main).file_size > _LARGEST_PICKLE:
            raise ValueError("its pickle is larger than any that describes weights")
        program = _is_program(names)
        content = io.BytesIO(read_member(archive, main))
        functions = _functions(require_file(path), program)
        value = PlainUnpickler(content, functions, storage, foreign or program).load()
        return _weights_of(value) if program else value


def _weights_of(module: Any) -> dict[str, Tensor]:
    """The tensors of a TorchScript module and of those below it, by the names that ``state_dict`` gives them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        prefix, value = waiting.pop()
        if not isinstance(value, _Module) or not isinstance(value.content, dict) or id(value) in seen:
            continue
        seen.add(id(value))
        for name, part in value.content.items():
            if isinstance(part, Tensor):
                found[f"{prefix}{name}"] = part
            elif len(prefix) < 1000:
                waiting.append((f"{prefix}{name}.", part))
    return found


def _read_legacy(path: str | Path, foreign: bool) -> Any:
    """Five pickles (a magic number, the protocol, the system, the content, the storages' keys), then the storages."""
    size = require_file(path)
    with open(path, "rb") as file:
        if _pickle(file, size) != _LEGACY_MAGIC:
            raise ValueError("is no checkpoint: PyTorch's magic number is missing")
        _pickle(file, size)
        system = _pickle(file, size)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("was written on a big-endian machine")
        begin = file.tell()

        # First measure, to know where the storages lie; then build the tensors from them
        claimed: dict[str, tuple[torch.dtype, int]] = {}

        def measure(identifier: Any) -> _Storage:
            dtype, key, numel = _storage_of(identifier)
            if claimed.setdefault(key, (dtype, numel)) != (dtype, numel):
                raise ValueError(f"the storage {key} is claimed to be of two types")
            return _view(_Storage(numel, None), identifier)

        _pickle(file, size, measure, foreign)
        keys = _pickle(file, size)
        if not isinstance(keys, list) or len(keys) != len(claimed) or not all(str(key) in claimed for key in keys):
            raise ValueError("its storages are not those that its tensors need")
        storages = {}
        for key in keys:
            dtype, numel = claimed[str(key)]
            (stored,) = struct.unpack("<q", file.read(8))
            if stored != numel or numel * dtype.itemsize > size - file.tell():
                raise ValueError(f"the storage {key} is cut off, or is not of the size that is claimed")
            content = bytearray(file.read(numel * dtype.itemsize))
            storages[str(key)] = _Storage(numel, _flat(content, dtype))
        file.seek(begin)
        return _pickle(file, size, lambda identifier: _view(storages[str(identifier[2])], identifier), foreign)


def _view(storage: _Storage, identifier: tuple) -> _Storage:
    """The storage itself, or the part of it that the sixth entry of an old persistent id names."""
    if len(identifier) < 6 or identifier[5] is None:
        return storage
    view = identifier[5]
    if not isinstance(view, tuple) or len(view) != 3 or any(type(n) is not int or n < 0 for n in view[1:]):
        raise ValueError("a storage is described wrongly")
    _, offset, count = view
    if offset + count > storage.numel:
        raise ValueError("a part of a storage lies outside it")
    part = _Storage(count, None if storage.flat is None else storage.flat[offset : offset + count])
    part.used = True
    return part


def _pickle(file: Any, size: int, persistent: Callable[[Any], Any] | None = None, foreign: bool = False) -> Any:
    """The next pickle of a file, which then stands behind it."""
    functions = _functions(size) if persistent else PLAIN
    return PlainUnpickler(_Bounded(file, size), functions, persistent, foreign).load()


class _Bounded:
    """A file that never gives, and so never allocates, more than it has."""

    def __init__(self, file: Any, size: int):
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise EOFError("it is cut off")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(1 << 20)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)
