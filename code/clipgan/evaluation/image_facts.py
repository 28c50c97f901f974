"""What is noted of each image file while it is read, so that no score hides what a look at the images would show.

A generator that has collapsed makes the same image again and again, or images of one colour. A folder may hold images
of two generators, of two sizes. A score is a number in all these cases.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from clipgan.files.gate import printable
from clipgan.machine import distributed


class Fact(NamedTuple):
    """Of one image: a digest of its size and pixels, whether all its pixels are equal, its width and height."""

    digest: bytes
    constant: bool
    size: tuple[int, int]


def fact_of(image: Image.Image) -> Fact:
    """The facts of an RGB image."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.tobytes())
    return Fact(digest.digest(), all(low == high for low, high in image.getextrema()), image.size)


class ImageFacts:
    """The facts of a sequence of files, of which each process reads its share (``distributed.share``)."""

    def __init__(self) -> None:
        self._own: list[Fact] = []
        self._all: list[Fact] = []

    def add(self, facts: Sequence[Fact]) -> None:
        """Take in the facts of this process's next files."""
        self._own += facts

    def join(self) -> None:
        """Collect the facts of all processes, in the order of the files."""
        self._all = distributed.join(self._own)

    def digest(self) -> str:
        """A hash of all images' pixels, in 16 hexadecimal digits."""
        return hashlib.sha256(b"".join(fact.digest for fact in self._all)).hexdigest()[:16]

    def report(self, folder: Path, files: Sequence[Path], side: int | None = None) -> tuple[dict[str, Any], list[str]]:
        """What is unusual about the files, for the JSON of a score, and the same as warnings.

        Args:
            folder: from which on the files are named.
            files: in the order in which their facts were added.
            side: width and height that they should have; None takes the size of most of them.

        Returns:
            How many images repeat the pixels of an earlier one, have pixels of one colour only, or have another size
            than ``size``; where there are any, an example of each. ``size`` is None if no size is that of most.
        """
        names = [printable(os.path.relpath(file, folder)) for file in files]
        size = (side, side) if side is not None else self._usual_size()
        first: dict[bytes, int] = {}
        repeated = [(first[f.digest], i) for i, f in enumerate(self._all) if first.setdefault(f.digest, i) != i]
        constant = [i for i, fact in enumerate(self._all) if fact.constant]
        other = [i for i, fact in enumerate(self._all) if size is not None and fact.size != size]
        examples: dict[str, Any] = {}
        warnings = []
        where = f"of the {len(names)} images in {printable(str(folder))}"
        if repeated:
            earlier, later = (names[i] for i in repeated[0])
            examples["duplicates"] = [earlier, later]
            warnings.append(
                f"{len(repeated)} {where} are duplicates of others, pixel for pixel ({later} is {earlier} again): "
                "the score takes each for an image of its own"
            )
        if constant:
            examples["constant"] = names[constant[0]]
            warnings.append(
                f"{len(constant)} {where} are constant: all pixels have one colour ({names[constant[0]]}, for example)"
            )
        if other:
            examples["other_size"] = [names[other[0]], list(self._all[other[0]].size)]
            warnings.append(
                f"{len(other)} {where} have another size than {_times(size)} pixels "
                f"({names[other[0]]} has {_times(self._all[other[0]].size)}, for example)"
            )
        found = {"duplicates": len(repeated), "constant": len(constant), "other_size": len(other)}
        return found | {"size": list(size) if size else None, "examples": examples}, warnings

    def _usual_size(self) -> tuple[int, int] | None:
        """The size of at least half of the images; photographs of all sizes have none."""
        ((size, count),) = Counter(fact.size for fact in self._all).most_common(1) or [((0, 0), 0)]
        return size if count and 2 * count >= len(self._all) else None


def _times(size: tuple[int, int] | None) -> str:
    return " x ".join(map(str, size or ()))
