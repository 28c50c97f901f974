"""Divides pictures into train and test: as their source says, by whole classes, or at random.

The order comes from hashes of the seed with names, so it is the same on every machine and does not depend on the order
in which a file system lists its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from clipgan.data.sources.pictures import Picture, Source
from clipgan.errors import UserError

WAYS = ("class", "random")
_FEWEST_CLASSES = 2  # of a split: the matching losses and R-precision compare classes


@dataclass(frozen=True)
class Parts:
    """The two splits, each in the order of names, and how they came about."""

    train: list[Picture]
    test: list[Picture]
    how: str


def divide(source: Source, way: str | None, test_share: float, seed: int) -> Parts:
    """Divide a source's pictures.

    Args:
        source: at least two pictures.
        way: ``class``: no class is in both splits; ``random``: each class is in both as far as it goes round. None
            takes the source's own split, else ``class`` if there are four classes or more, else ``random``.
        test_share: of the classes, or of the pictures, that test gets; in (0, 1). Each split gets one at least.
        seed: another one gives another split.

    Raises:
        UserError: there is only one picture, a split stays empty, or there are too few classes.
    """
    pictures = sorted(source.pictures, key=lambda picture: picture.name)
    if way is None and source.split_by:
        return _as_said(pictures, source.split_by)
    if len(pictures) < 2:
        raise UserError(f"{source.root}: only {pictures[0].name} can be used; train and test need a picture each")
    groups = sorted({_group(picture) for picture in pictures})
    enough = sum(picture.label is not None for picture in pictures) and len(groups) >= 2 * _FEWEST_CLASSES
    if way == "class" and not enough:
        classes = len({picture.label for picture in pictures} - {None})
        raise UserError(
            f"{source.root}: has {classes} classes; to divide by class it needs {2 * _FEWEST_CLASSES} at least: "
            "--split-by random"
        )
    if way == "class" or (way is None and enough):
        test = _first(groups, test_share, _FEWEST_CLASSES, seed)
        chosen = {picture.name for picture in pictures if _group(picture) in test}
        how = f"by class, seed {seed}"
    else:
        chosen = _spread(pictures, test_share, seed)
        how = f"at random, seed {seed}"
    return Parts(
        [picture for picture in pictures if picture.name not in chosen],
        [picture for picture in pictures if picture.name in chosen],
        how,
    )


def _as_said(pictures: Sequence[Picture], split_by: str) -> Parts:
    train, test = ([picture for picture in pictures if picture.split == split] for split in ("train", "test"))
    if not train or not test:
        raise UserError(
            f"the split by {split_by} leaves no picture to {'test' if train else 'train'} on; divide them anew by "
            "--split-by class or --split-by random"
        )
    return Parts(train, test, f"by {split_by}")


def _group(picture: Picture) -> str:
    """The class of a picture; one without a class is a class of its own."""
    return f"class {picture.label}" if picture.label is not None else f"picture {picture.name}"


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _first(names: Sequence[str], share: float, at_least: int, seed: int) -> set[str]:
    count = min(max(round(share * len(names)), at_least), len(names) - at_least)
    return set(_shuffled(names, seed)[:count])


def _spread(pictures: Sequence[Picture], share: float, seed: int) -> set[str]:
    """Names of pictures at random, of each class about ``share``."""
    by_name = {picture.name: picture for picture in pictures}
    order = _shuffled(list(by_name), seed)
    sizes: dict[str, int] = {}
    for picture in pictures:
        sizes[_group(picture)] = sizes.get(_group(picture), 0) + 1
    seen: dict[str, int] = {}
    places = {}
    for place, name in enumerate(order):
        group = _group(by_name[name])
        seen[group] = seen.get(group, 0) + 1
        # Where the picture stands within its class: the lowest shares of all classes are test's.
        places[name] = ((seen[group] - 0.5) / sizes[group], place)
    count = min(max(round(share * len(order)), 1), len(order) - 1)
    return set(sorted(order, key=places.__getitem__)[:count])
