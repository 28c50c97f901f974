"""Divides pictures into train and test: as their source says, by whole classes, or at random.

The order comes from hashes of the seed with names, so it is the same on every machine and does not depend on the order
in which a file system lists its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipgan.data.sources.pictures import Picture, Source
from clipgan.errors import UserError, counted

WAYS = ("class", "random")
TEST_SHARE, SEED = 0.2, 0
_FEWEST = 2  # pictures of a split, and classes where there are some: the losses and R-precision compare them


@dataclass(frozen=True)
class Parts:
    """The two splits, each in the order of names, and how they came about."""

    train: list[Picture]
    test: list[Picture]
    how: str


def divide(source: Source, way: str | None = None, test_share: float | None = None, seed: int | None = None) -> Parts:
    """Divide a source's pictures, two at least for each split, and of two classes where that can be.

    Args:
        source: what a reader found.
        way: ``class``: no class is in both splits; ``random``: each class is in both as far as it goes round. None
            takes the source's own split, else ``class`` if there are four classes or more, else ``random``.
        test_share: of the classes, or of the pictures, that test gets, in (0, 1); None is ``TEST_SHARE``.
        seed: another one gives another split; None is ``SEED``.

    Raises:
        UserError: there are fewer than four pictures, the source's own split gives one of its two fewer than two,
            ``test_share`` or ``seed`` is given where that split is taken, or there are too few classes.
    """
    pictures = sorted(source.pictures, key=lambda picture: picture.name)
    if len(pictures) < 2 * _FEWEST:
        reasons = "; ".join(["", *source.left_out.lines()])
        raise UserError(
            f"{source.root}: only {counted(len(pictures), 'picture')} can be used; train and test need {_FEWEST} each, "
            f"so {2 * _FEWEST} in all{reasons}"
        )
    if way is None and source.split_by:
        for flag, value in (("--test-share", test_share), ("--seed", seed)):
            if value is not None:
                raise UserError(
                    f"{flag}: has no effect, as the split is that by {source.split_by}; leave it out, or divide "
                    f"anew by --split-by {' or '.join(WAYS)}"
                )
        return _as_said(pictures, source)
    test_share, seed = (TEST_SHARE if test_share is None else test_share), (SEED if seed is None else seed)
    groups = sorted({_group(picture) for picture in pictures})
    enough = sum(picture.label is not None for picture in pictures) and len(groups) >= 2 * _FEWEST
    if way == "class" and not enough:
        classes = len({picture.label for picture in pictures} - {None})
        raise UserError(
            f"{source.root}: has {counted(classes, 'class', 'classes')}; to divide by class it needs {2 * _FEWEST} at "
            "least: --split-by random"
        )
    if way == "class" or (way is None and enough):
        test = set(_shuffled(groups, seed)[: _share_of(len(groups), test_share)])
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


def _as_said(pictures: Sequence[Picture], source: Source) -> Parts:
    train, test = ([picture for picture in pictures if picture.split == split] for split in ("train", "test"))
    for split, of_split in (("train", train), ("test", test)):
        if len(of_split) < _FEWEST:
            number = counted(len(of_split), "picture") if of_split else "no picture"
            raise UserError(
                f"{source.root}: the split by {source.split_by} leaves {number} to {split} on, which needs {_FEWEST} "
                f"at least; divide them anew by --split-by {' or '.join(WAYS)}"
            )
    return Parts(train, test, f"by {source.split_by}")


def _group(picture: Picture) -> str:
    """The class of a picture; one without a class is a class of its own."""
    return f"class {picture.label}" if picture.label is not None else f"picture {picture.name}"


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _share_of(count: int, share: float) -> int:
    """How many of ``count``, four at least, are test's, so that each split gets enough."""
    return min(max(round(share * count), _FEWEST), count - _FEWEST)


def _spread(pictures: Sequence[Picture], share: float, seed: int) -> set[str]:
    """Names of pictures to test on, at random, of each class about ``share``; see :func:`_exchange`."""
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
    order.sort(key=places.__getitem__)
    count = _share_of(len(order), share)
    test, train = order[:count], order[count:]
    groups = {name: _group(picture) for name, picture in by_name.items()}
    _exchange(test, train, groups)
    _exchange(train, test, groups)
    return set(test)


def _exchange(part: list[str], other: list[str], groups: Mapping[str, str]) -> None:
    """Give a part whose pictures are all of one class one of another, if the other part has a second of those."""
    own = {groups[name] for name in part}
    strangers = [place for place, name in enumerate(other) if groups[name] not in own]
    if len(own) == 1 and len(strangers) > 1:
        part[-1], other[strangers[0]] = other[strangers[0]], part[-1]
