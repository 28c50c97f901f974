"""What the published captions of birds and flowers have in common: folders of texts, and class-disjoint splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipgan.data.captions import read_caption_file
from clipgan.data.safe_pickle import load_pickle
from clipgan.data.sources.pictures import (
    NO_CAPTION,
    NO_WORD,
    UNREADABLE,
    Given,
    Unusable,
    is_picture,
    is_text,
    subfolders,
    usable_captions,
    walk,
)
from clipgan.errors import UserError
from clipgan.files.gate import MEGABYTE, read_text, reading, short

_IN_NO_LIST = "pictures that the published split does not name"
_FOLDERS = ("text_c10", "text")  # of Reed's archives, of AttnGAN's
_TRAINING_CLASSES = ("trainvalclasses.txt", "trainclasses.txt", "valclasses.txt")
_TEST_CLASSES = "testclasses.txt"


class Texts:
    """The caption files of a folder, ``<class>/<name>.txt`` at any depth."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._by_name: dict[str, list[str]] = {}
        for path in walk(folder):
            if is_text(path) and "/" in path:
                self._by_name.setdefault(os.path.splitext(os.path.basename(path))[0], []).append(path)

    @classmethod
    def found(cls, captions: Path | None, near: Iterable[Path]) -> Texts | None:
        """Those of ``text_c10`` or ``text`` in ``captions``, or else of itself; without ``captions``, in ``near``."""
        folders = [captions] if captions is not None else near
        for folder in folders:
            for place in subfolders(folder):
                for name in _FOLDERS:
                    if (place / name).is_dir():
                        return cls(place / name)
        return cls(captions) if captions is not None else None

    def __len__(self) -> int:
        return len(self._by_name)

    def class_and_captions(self, name: str, folder: str | None, raw: bool) -> tuple[str, tuple[str, ...]]:
        """The folder of a picture's text, and its captions that can be used.

        Args:
            name: the picture's plain name without ending.
            folder: the class's folder; None takes any.
            raw: see :func:`usable_captions`.

        Raises:
            Unusable: there is no text, it cannot be read, or no caption of it can be used.
        """
        for path in self._by_name.get(name, []):
            of_class = path.split("/")[-2]
            if folder is None or of_class == folder:
                try:
                    captions = usable_captions(read_caption_file(self.folder / path), raw)
                except UserError as error:
                    raise Unusable(UNREADABLE, str(error).replace(f"{self.folder}{os.sep}", "")) from None
                if not captions:
                    raise Unusable(NO_WORD, path)
                return of_class, captions
        raise Unusable(NO_CAPTION, name)


class OfficialSplit:
    """A split that is published with the data: lists of classes, or of images."""

    def __init__(self, said: str, train: set[str] | None, test: set[str], by_class: bool):
        self.said, self._train, self._test, self._by_class = said, train, test, by_class

    @classmethod
    def found(cls, near: Iterable[Path]) -> OfficialSplit | None:
        """That of the first folder (or folder directly in it) with ``testclasses.txt``, or with lists of images.

        The lists of images are ``train/filenames.pickle`` and ``test/filenames.pickle``, as AttnGAN has them.

        Raises:
            UserError: a list cannot be read, or a class or image is in both.
        """
        for folder in dict.fromkeys(place for outer in near for place in subfolders(outer)):
            if (folder / _TEST_CLASSES).is_file():
                lists = [_lines(folder / name) for name in _TRAINING_CLASSES if (folder / name).is_file()]
                train = set().union(*lists) if lists else None
                return cls(_TEST_CLASSES, train, _lines(folder / _TEST_CLASSES), True)._checked(folder)
            pickles = [folder / split / "filenames.pickle" for split in ("train", "test")]
            if all(path.is_file() for path in pickles):
                return cls("train/ and test/filenames.pickle", *map(_names, pickles), False)._checked(folder)
        return None

    def _checked(self, folder: Path) -> OfficialSplit:
        both = self._test & (self._train or set())
        if both:
            raise UserError(f"{folder}: {short(min(both))} is in the list to test and in that to train; expected one")
        return self

    def split(self, of_class: str, name: str) -> str:
        """``train`` or ``test`` for an image's class (its folder) and plain name.

        Raises:
            Unusable: no list has it.
        """
        keys = {of_class} if self._by_class else {f"{of_class}/{name}", f"jpg/{name}", name}
        if keys & self._test:
            return "test"
        if self._train is None or keys & self._train:
            return "train"
        raise Unusable(_IN_NO_LIST, f"{of_class}/{name}")


@dataclass(frozen=True)
class Published:
    """What lies beside the pictures of birds or flowers."""

    texts: Texts
    official: OfficialSplit | None
    folders: tuple[Path, ...]  # in which other lists may lie

    @classmethod
    def beside(cls, given: Given, inner: Path, missing: str) -> Published:
        """Look in ``given.captions``, or else in and beside the folder of the data.

        Args:
            given: its one path is the folder that the user named.
            inner: the folder in which the data itself lies.
            missing: what to say where there are no captions.

        Raises:
            UserError: there are none, or a list of the split cannot be read.
        """
        path = given.paths[0]
        near = [path, inner, *given.near]
        if inner == path and not given.near:
            near.append(path.absolute().parent)
        texts = Texts.found(given.captions, near)
        if not texts:
            raise UserError(f"{given.captions or path}: {missing}; name their folder or archive by --captions")
        folders = [texts.folder.parent, texts.folder, *near]
        if given.captions is not None:
            folders.insert(0, given.captions)
        return cls(texts, OfficialSplit.found(folders), tuple(folders))


def _lines(path: Path) -> set[str]:
    with reading(path, "the name of a class a line"):
        return {line.strip() for line in read_text(path, MEGABYTE).split("\n")} - {""}


def _names(path: Path) -> set[str]:
    """The names of a list of images, without endings."""
    names = load_pickle(path)
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of image names, not {short(names)}")
    return {os.path.splitext(name)[0] if is_picture(name) else name for name in names}
