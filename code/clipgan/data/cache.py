"""Training images cut to their boxes and resized once, kept in one file that every worker maps into memory.

The file, ``<folder>/<dataset>_<S>px_<digest>.images``, is read from its end:

    pixels      uint8, the RGB rows of each image; images differ in size and are in no particular order
    records     int64 [N, 5]: offset, height and width of each image, size and mtime_ns of its source
    provenance  JSON: whatever else the pixels depend on, and the hash of the records
    trailer     N, the JSON's length, the magic number

It is written under a temporary name in the same folder and renamed when it is complete. So no process reads an
unfinished file.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from clipgan.data.examples import Example
from clipgan.data.image_file import READING
from clipgan.data.images import load_shrunk
from clipgan.errors import UserError, one_line
from clipgan.files.gate import MEGABYTE, parse_json, require_file
from clipgan.machine.distributed import is_main

_FORMAT = 2
_MAGIC = b"clipgan\n"
_TRAILER = struct.Struct("<QQ8s")
_RECORD = 5  # numbers of a record
_LONGEST_SIDE = 10**6  # pixels; so that sizes in bytes stay far below what int64 holds
_UNREADABLE = (OSError, ValueError, UserError, RecursionError, MemoryError)  # what _read raises
_SAMPLE = 32  # images from which the space for all of them is estimated
_ABANDONED = 3600  # seconds without a write after which an unfinished file counts as left by a killed process


@dataclass(frozen=True)
class Preparation:
    """What is done with an image file once, before the random crop."""

    size: int  # S, the side of the crop
    crop_scale: float
    box_crop: bool

    def load(self, example: Example) -> Image.Image:
        """The example's image as RGB, see :func:`clipgan.data.images.load_shrunk`; raises its ``UserError``."""
        return load_shrunk(example.image, example.box if self.box_crop else None, self.size, self.crop_scale)


@dataclass(frozen=True)
class _Content:
    provenance: dict[str, Any]
    records: np.ndarray  # int64 [N, 5]
    pixels: np.ndarray  # uint8 [bytes], a memory map


class ImageCache:
    """The prepared images of a list of examples, indexed as the list is. Create it with :meth:`of`.

    Each process maps the file when it first reads an image. A pickled cache holds the file's name, not its pixels.
    """

    def __init__(self, path: Path, preparation: Preparation, provenance: dict[str, Any]):
        self.path = path
        self.preparation = preparation
        self._provenance = provenance
        self._content: _Content | None = None

    @staticmethod
    def of(
        examples: Sequence[Example], preparation: Preparation, folder: str | Path, dataset: str, workers: int
    ) -> ImageCache:
        """The cache of these examples in ``folder``, built if it is missing or if a source image has changed.

        Source images are compared by size and modification time; they are not read. Other examples or another
        preparation give another file name. Unused files may be deleted at any time between runs.

        Args:
            examples: a split, not empty.
            preparation: how to prepare each image.
            folder: the folder of the file; created if missing.
            dataset: the first part of the file's name.
            workers: threads that build the file; at least one is used.

        Raises:
            UserError: an image cannot be prepared, the folder cannot be written, or its disk has too little room.
        """
        provenance = _describe(examples, preparation)
        digest = hashlib.sha256(json.dumps(provenance).encode()).hexdigest()[:12]
        path = Path(folder) / f"{dataset}_{preparation.size}px_{digest}.images"
        there = os.path.exists(path)
        fault = _find_fault(path, provenance, examples) if there else "missing"
        if fault and there:
            print(f"{path}: {fault}; it is built again")
        if fault:
            _build(path, provenance, examples, preparation, max(1, workers))
        return ImageCache(path, preparation, provenance)

    def __len__(self) -> int:
        return self._provenance["images"]

    def __getitem__(self, index: int) -> np.ndarray:
        """The image of example ``index``, uint8 [H, W, 3], RGB; read-only, straight from the file.

        Raises:
            UserError: the file was removed or replaced since it was checked.
        """
        if self._content is None:
            self._content = self._open()
        start, height, width = self._content.records[index, :3].tolist()
        pixels = self._content.pixels[start : start + height * width * 3]
        return pixels.reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_content": None}

    def _open(self) -> _Content:
        with contextlib.suppress(*_UNREADABLE):
            content = _read(self.path)
            if content.provenance == self._provenance:
                return content
        raise UserError(f"{self.path}: removed or damaged since this run began; start again, and it is built anew")


def _describe(examples: Sequence[Example], preparation: Preparation) -> dict[str, Any]:
    """Everything that the images depend on, except the content of the source images."""
    digest = hashlib.sha256()
    for example in examples:
        box = example.box if preparation.box_crop else None
        digest.update(f"{os.path.abspath(example.image)} {box}\n".encode(errors="backslashreplace"))
    return {
        "format": _FORMAT,
        "reading": READING,
        **asdict(preparation),
        "pillow": PIL.__version__,  # its decoders and its resampling decide the pixels
        "images": len(examples),
        "examples": digest.hexdigest(),
    }


def _find_fault(path: Path, provenance: dict[str, Any], examples: Sequence[Example]) -> str:
    """Why the existing file cannot be used; an empty string if it can."""
    try:
        content = _read(path)
    except _UNREADABLE as error:
        return one_line(f"not a whole image cache ({str(error).removeprefix(f'{path}: ')})")
    if content.provenance != provenance:
        return "made from other images or in another way"
    stamps = np.array([_stamp(example.image) for example in examples])  # [N, 2]
    changed = (content.records[:, 3:] != stamps).any(1).nonzero()[0]
    if len(changed):
        others = f" and {len(changed) - 1} other images" if len(changed) > 1 else ""
        return f"{examples[changed[0]].image}{others} changed since it was made"
    return ""


def _stamp(source: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a file; (−1, −1) if it does not exist."""
    try:
        status = source.stat()
    except (OSError, ValueError):  # no file system takes the name
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> _Content:
    """Map the file; raises one of ``_UNREADABLE`` if it cannot be read, is incomplete or contradicts itself."""
    require_file(path)
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    if len(content) < _TRAILER.size:
        raise ValueError("it is too short")
    count, length, magic = _TRAILER.unpack(content[-_TRAILER.size :].tobytes())
    described = len(content) - _TRAILER.size - length
    pixels = described - count * _RECORD * 8
    if magic != _MAGIC or pixels < 0 or length > MEGABYTE:
        raise ValueError("its end is missing")
    provenance = parse_json(content[described : described + length].tobytes().decode())
    table = content[pixels:described].tobytes()
    records = np.frombuffer(table, "<i8").reshape(count, _RECORD)
    if not isinstance(provenance, dict) or provenance.pop("records", None) != _hash(table):
        raise ValueError("its records are damaged")
    if provenance.get("images") != count or not _records_fit(records, provenance.get("size"), pixels):
        raise ValueError("its beginning is missing, or its records contradict it")
    return _Content(provenance, records, content[:pixels])


def _hash(table: bytes) -> str:
    return hashlib.sha256(table).hexdigest()


def _records_fit(records: np.ndarray, size: Any, pixels: int) -> bool:
    """Whether the images are large enough to crop, and lie one behind the other in so many bytes, in any order."""
    sides = records[:, 1:3]
    if type(size) is not int or not len(records) or sides.min() < max(1, size) or sides.max() > _LONGEST_SIDE:
        return False
    order = records[:, 0].argsort()
    starts = records[order, 0]
    ends = np.append(starts[1:], pixels)
    return bool(starts[0] == 0 and (ends - starts == 3 * sides[order].prod(1)).all())


def _build(
    path: Path, provenance: dict[str, Any], examples: Sequence[Example], preparation: Preparation, threads: int
) -> None:
    """Write the file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        _require_space(path.parent, examples, preparation)
        with unfinished.open("xb") as file:
            records = _write_images(file, examples, preparation, threads)
            table = records.tobytes()
            description = json.dumps(provenance | {"records": _hash(table)}).encode()
            file.write(table + description + _TRAILER.pack(len(examples), len(description), _MAGIC))
            file.flush()
            os.fsync(file.fileno())  # without this, a power cut could leave the final name without the pixels
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); mend that, choose another OUTPUT_DIR, "
            "or set DATA.CACHE to False"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _write_images(file: BinaryIO, examples: Sequence[Example], preparation: Preparation, threads: int) -> np.ndarray:
    """Append all images; returns their records [N, 5]. Threads help, because Pillow releases Python's global lock."""
    records = np.empty((len(examples), _RECORD), "<i8")
    lock = threading.Lock()

    def add(index: int) -> None:
        stamp = _stamp(examples[index].image)  # before reading, so that a later change is noticed in the next run
        image = preparation.load(examples[index])
        pixels = image.tobytes()
        with lock:
            records[index] = file.tell(), image.height, image.width, *stamp
            file.write(pixels)

    pool = ThreadPoolExecutor(threads)
    try:
        results = pool.map(add, range(len(examples)))
        bar = tqdm(results, "image cache", len(examples), unit="img", leave=False, disable=not is_main())
        for _ in bar:
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return records


def _require_space(folder: Path, examples: Sequence[Example], preparation: Preparation) -> None:
    sample = examples[:: math.ceil(len(examples) / _SAMPLE)]
    pixels = sum(math.prod(preparation.load(example).size) for example in sample)
    needed = 3 * pixels * len(examples) / len(sample)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the image cache of {len(examples)} images needs about {needed / 1e6:,.0f} MB, but "
            f"{free / 1e6:,.0f} MB are free: make room, choose another OUTPUT_DIR, or set DATA.CACHE to False"
        )


def _remove_abandoned(path: Path) -> None:
    """Delete unfinished files of killed processes; a file that is being written now was modified recently."""
    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > _ABANDONED:
                unfinished.unlink()
