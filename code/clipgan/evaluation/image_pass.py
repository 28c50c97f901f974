"""One pass over images: each is read once, and everything that is computed from it sees it then.

The sizes of the images may differ. Each is brought to a network's size by itself, in the process that reads it, so that
neither batches nor processes change a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipgan.data.images import from_uint8
from clipgan.data.shared_memory import fit_workers
from clipgan.errors import UserError
from clipgan.evaluation.image_facts import Fact, ImageFacts
from clipgan.machine import distributed

_MANY_PIXELS = 16_000_000  # of an image whose colours are resized one after the other, which takes less memory


@dataclass(frozen=True)
class View:
    """A size that images are brought to.

    Attributes:
        name: of the view; two with one name are the same.
        side: in pixels.
        resize: [B, C, H, W] → [B, C, side, side], each colour by itself. A function of a module or a
            ``functools.partial`` of one, as other processes call it.
    """

    name: str
    side: int
    resize: Callable[[Tensor], Tensor]

    def of(self, pixels: Tensor) -> Tensor:
        """A uint8 image [3, H, W] as a float image [3, side, side] in [−1, 1]."""
        if pixels.shape[-2] * pixels.shape[-1] <= _MANY_PIXELS:
            return self.resize(from_uint8(pixels)[None])[0]
        return torch.cat([self.resize(from_uint8(colour)[None])[0] for colour in pixels.split(1)])


@dataclass(frozen=True)
class Extractor:
    """What is computed from images.

    Attributes:
        name: of the output.
        view: the size that it takes images in.
        compute: images [B, 3, S, S] in [−1, 1] on ``device``, and the places of the images → [B, …].
        device: that it computes on.
        identity: tells everything else that the output depends on; empty: the output is not worth keeping.
    """

    name: str
    view: View
    compute: Callable[[Tensor, Sequence[int]], Tensor]
    device: torch.device
    identity: str = ""

    def __call__(self, images: Tensor, places: Sequence[int]) -> Tensor:
        """The output for images of any size."""
        return self.compute(self.view.resize(images), places)


Loaded = tuple[Tensor, Fact | None]  # the pixels, uint8 [3, H, W], and what is noted of a file
_Viewed = tuple[dict[str, Tensor], Fact | None]


class _Items(Dataset):
    """Items as their views. For an unreadable image its error is returned: a loader would add a traceback to it."""

    def __init__(self, items: Sequence[Any], load: Callable[[Any], Loaded], views: Sequence[View]):
        self.items, self.load, self.views = items, load, views

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Viewed | UserError:
        try:
            pixels, fact = self.load(self.items[index])
        except UserError as error:
            return error
        return {view.name: view.of(pixels) for view in self.views}, fact


def _stack(items: list[_Viewed | UserError]) -> tuple[dict[str, Tensor], list[Fact]] | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    views, facts = zip(*items, strict=True)
    images = {name: torch.stack([view[name] for view in views]) for name in views[0]}
    return images, [fact for fact in facts if fact is not None]


def image_pass(
    items: Sequence[Any],
    load: Callable[[Any], Loaded],
    extractors: Sequence[Extractor],
    batch_size: int,
    workers: int,
    label: str = "",
    facts: ImageFacts | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Compute all outputs for this process's share of some items, batch by batch.

    Args:
        items: that ``load`` turns into pixels.
        load: a function of a module, or a ``functools.partial`` of one.
        extractors: at least one, all on one device.
        batch_size: images at once.
        workers: processes that read; 0 reads in this one.
        label: heads the bar; empty shows none.
        facts: gets what ``load`` notes of the files.

    Yields:
        Each extractor's output for the next images, by its name.

    Raises:
        UserError: an image is unreadable.
    """
    views = {extractor.view.name: extractor.view for extractor in extractors}
    device = extractors[0].device
    own, places = distributed.share(items), distributed.share(range(len(items)))
    loader = _loader(_Items(own, load, list(views.values())), batch_size, workers, device)
    done, hidden = 0, not label or not distributed.is_main()
    with tqdm(total=len(own), desc=label, unit="img", disable=hidden, leave=False) as bar:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, noted = batch
            if facts is not None:
                facts.add(noted)
            images = {name: view.to(device, non_blocking=True) for name, view in images.items()}
            count = len(next(iter(images.values())))
            here = places[done : done + count]
            yield {one.name: one.compute(images[one.view.name], here) for one in extractors}
            done += count
            bar.update(count)


def collect(
    items: Sequence[Any],
    load: Callable[[Any], Loaded],
    extractors: Sequence[Extractor],
    batch_size: int,
    workers: int,
    label: str = "",
    facts: ImageFacts | None = None,
) -> dict[str, Tensor]:
    """The outputs of :func:`image_pass` for all items in their order, on the CPU and in every process."""
    if not extractors:
        return {}
    parts: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
    with torch.no_grad():
        for outputs in image_pass(items, load, extractors, batch_size, workers, label, facts):
            for name, output in outputs.items():
                parts[name].append(output.cpu())
    if facts is not None:
        facts.join()
    return {name: join_rows(own, len(items)) for name, own in parts.items()}


def join_rows(own: Sequence[Tensor], total: int) -> Tensor:
    """The outputs of a process's share of ``total`` items, in parts → those of all items in their order."""
    shares = distributed.gather_objects(torch.cat(list(own)) if own else None)  # None: more processes than items
    first = next(part for part in shares if part is not None)
    rows = first.new_empty(total, *first.shape[1:])
    for start, part in enumerate(shares):
        if part is not None:
            rows[start :: len(shares)] = part
    return rows


def _loader(items: _Items, batch_size: int, workers: int, device: torch.device) -> DataLoader:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores, len(items) // batch_size)  # no worker for less than a batch: starting it takes longer
    of_image = sum(3 * view.side * view.side for view in items.views) * torch.float32.itemsize
    workers, ahead = fit_workers(workers, 2, batch_size * of_image)
    return DataLoader(
        items,
        batch_size=batch_size,
        num_workers=workers,
        prefetch_factor=ahead if workers > 0 else None,
        collate_fn=_stack,
        pin_memory=device.type == "cuda",
    )
