"""The folder that a manifest is written into: what is made in it vanishes again unless all of it is made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clipgan.data.sources.pictures import is_text
from clipgan.data.sources.unpacking import archive_stem, is_archive, unpack
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE
from clipgan.files.writing import writing

SPLITS = ("train", "test")
COPIES = "images"
_REMEDY = "make room, or name another folder by --out (with --copy, if the pictures lie elsewhere)"
_ENDINGS_OF_ARCHIVES = (".zip", ".tgz", ".gz", ".tar")


class Output:
    """Use it as a context: where the block raises, the folder is left as it was found."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._undo.pop_all()
        self._undo.close()

    def make(self, folder: Path) -> None:
        """Make a folder and those above it, where they are not there yet; raises ``UserError``."""
        missing = []
        place = folder
        while not place.exists() and place != place.parent:
            missing.append(place)
            place = place.parent
        with writing(folder, _REMEDY):
            for place in reversed(missing):
                place.mkdir(exist_ok=True)
                self._undo.callback(_remove_if_empty, place)
            if not folder.is_dir():
                raise UserError(f"{folder}: is no folder; name another one by --out")

    def unpacked(self, archive: Path, folder: Path) -> tuple[Path, int]:
        """Unpack an archive of pictures into a folder of its own within ``folder``.

        That has the name of the archive, or of the one folder that all of it lies in.

        Returns:
            The archive's folder, and how many links were left out.

        Raises:
            UserError: as :func:`unpack`; or that folder is there already.
        """
        with self._temporary(folder) as temporary:
            links = unpack(archive, temporary)
            inner = [path for path in temporary.iterdir()]
            only = inner[0] if len(inner) == 1 and inner[0].is_dir() else temporary
            place = folder / (archive_stem(archive) if only is temporary else only.name)
            self._take(only, place, f"give it instead of {archive.name}, or remove it")
        return place, links

    def copy(self, root: Path, names: Sequence[str], folder: Path) -> None:
        """Copy pictures into ``folder/images``, under their names in ``root``.

        Raises:
            UserError: that folder is there already, or the disk takes no more.
        """
        place = folder / COPIES
        with self._temporary(folder) as temporary, writing(place, _REMEDY):
            for name in tqdm(names, desc="copying", unit="img", leave=False):
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, target)  # no hard link: who changes a copy must not change the picture
            self._take(temporary, place, "remove it, or name another folder by --out")

    @staticmethod
    def require_new(folder: Path, overwrite: bool) -> None:
        """Raise ``UserError`` if a manifest is there that may not be replaced."""
        for path in (manifest(folder, split) for split in SPLITS):
            if path.is_dir() or (os.path.lexists(path) and not overwrite):
                raise UserError(f"{path}: is there already; --overwrite replaces it, --out names another folder")

    def write(self, folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Write the manifests of all splits, all or none.

        Args:
            folder: gets ``<split>.jsonl``.
            splits: the lines of each split, as :mod:`clipgan.data.manifest` reads them.

        Raises:
            UserError: the disk takes no more.
        """
        temporary = {split: folder / f".{split}.{os.getpid()}.tmp" for split in splits}
        with writing(folder, _REMEDY):
            try:
                for split, lines in splits.items():
                    with open(temporary[split], "w", encoding="utf-8") as file:
                        file.writelines(_line(line) for line in lines)
                        file.flush()
                        os.fsync(file.fileno())
                for split, path in temporary.items():
                    os.replace(path, manifest(folder, split))
            finally:
                for path in temporary.values():
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _temporary(self, folder: Path) -> Iterator[Path]:
        self.make(folder)
        with writing(folder, _REMEDY):
            temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
        try:
            inner = temporary / "content"  # with the usual permissions, which the temporary folder has not
            inner.mkdir()
            yield inner
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _take(self, made: Path, place: Path, remedy: str) -> None:
        if os.path.lexists(place):
            raise UserError(f"{place}: is there already; {remedy}")
        with writing(place, _REMEDY):
            made.rename(place)
        self._undo.callback(shutil.rmtree, place, ignore_errors=True)


@contextlib.contextmanager
def unpacked_for_now(archive: Path) -> Iterator[Path]:
    """The folder of an unpacked archive of texts, as long as the block runs; raises ``UserError``.

    Where it holds no text but archives, as AttnGAN's metadata do, these are unpacked, too.
    """
    with tempfile.TemporaryDirectory(prefix="captions-") as name:
        folder = Path(name, archive_stem(archive))
        folder.mkdir()
        unpack(archive, folder, also=_ENDINGS_OF_ARCHIVES)
        if not any(is_text(path.name) for path in folder.rglob("*")):
            for nested in sorted(path for path in folder.rglob("*") if is_archive(path)):
                inside = folder / archive_stem(nested)
                inside.mkdir(exist_ok=True)
                unpack(nested, inside)
        yield folder


def manifest(folder: Path, split: str) -> Path:
    """Where a split's manifest is."""
    return folder / f"{split}.jsonl"


def _line(entry: Mapping[str, Any]) -> str:
    """An entry as a line that the reader of manifests takes; captions too many for its longest line are left out."""
    entry = dict(entry)
    while True:
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        if len(line.encode()) <= MEGABYTE:
            return line
        entry["captions"] = entry["captions"][: len(entry["captions"]) // 2]


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
