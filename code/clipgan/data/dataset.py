"""Batches of images and captions that depend on seed, epoch and index only, never on workers, ranks or a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clipgan.data.examples import Example
from clipgan.data.images import load_image, prepare_image
from clipgan.errors import UserError

Tokenize = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class Item:
    """One image with two of its captions."""

    images: list[Tensor]  # [3, s, s] in [−1, 1], smallest first
    tokens: Tensor  # int64 [2, T]
    class_id: int
    index: int
    captions: tuple[str, str]
    key: str


@dataclass
class Batch:
    """Images, two captions of each, and where they come from."""

    images: list[Tensor]  # [B, 3, s, s] in [−1, 1], smallest first
    tokens: tuple[Tensor, Tensor]  # int64 [B, T], first and second caption
    class_ids: Tensor  # int64 [B]
    indices: Tensor  # int64 [B], places in the data set
    captions: tuple[list[str], list[str]]
    keys: list[str]

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        first, second = self.tokens
        return Batch(
            images=[move(image) for image in self.images],
            tokens=(move(first), move(second)),
            class_ids=move(self.class_ids),
            indices=move(self.indices),
            captions=self.captions,
            keys=self.keys,
        )

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """This batch with its tensors on ``device``; from pinned memory the copy overlaps with computing."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """This batch in page-locked memory (the loader calls this when it feeds a CUDA device)."""
        return self._map(Tensor.pin_memory)


class TextImageDataset(Dataset):
    """Items of a split, addressed by (epoch, index).

    Everything random about an item comes from ``(seed, epoch, index)``, so it is the same for any number of workers or
    ranks and after a resume.

    Args:
        examples: the split.
        sizes: sides of the images to make.
        tokenize: list of n captions → int64 [n, T].
        seed: not negative.
        box_crop: cut to the box where an example has one.
        flip: mirror half of the training images.
        crop_scale: see :func:`clipgan.data.images.prepare_image`.
        train: False: centre crop, no flip, captions 0 and 1.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        sizes: Sequence[int],
        tokenize: Tokenize,
        *,
        seed: int,
        box_crop: bool = True,
        flip: bool = True,
        crop_scale: float = 76 / 64,
        train: bool = True,
    ):
        self.examples = examples
        self._sizes = sorted(sizes)
        self._tokenize = tokenize
        self._seed = seed
        self._box_crop = box_crop
        self._flip = flip
        self._crop_scale = crop_scale
        self._train = train

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, address: tuple[int, int]) -> Item:
        """The item (epoch, index).

        Raises:
            UserError: its image is missing or unreadable, its box lies outside the image, or a caption has no words.
        """
        epoch, index = address
        example = self.examples[index]
        rng = np.random.default_rng((self._seed, epoch, index)) if self._train else None
        image = load_image(example.image)
        try:
            images = prepare_image(
                image,
                example.box if self._box_crop else None,
                self._sizes,
                crop_scale=self._crop_scale,
                rng=rng,
                flip=self._flip,
            )
        except UserError as error:
            raise UserError(f"{example.image}: {error}") from None

        count = len(example.captions)
        if count == 1:
            first, second = 0, 0
        elif rng is None:
            first, second = 0, 1
        else:
            first, second = rng.choice(count, 2, replace=False)
        captions = (example.captions[first], example.captions[second])
        return Item(images, self._tokenize(list(captions)), example.class_id, index, captions, example.key)

    def __getitems__(self, addresses: list[tuple[int, int]]) -> list[Item] | UserError:
        """The items of a batch. A worker process would turn a ``UserError`` into a traceback: hand it over instead."""
        try:
            return [self[address] for address in addresses]
        except UserError as error:
            return error


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, index) in an order that depends on seed and epoch only.

    Args:
        length: number of examples.
        batch_size: of all ranks together; a multiple of ``world_size``.
        seed: not negative.
        shuffle: False: in order.
        drop_last: leave out the examples that do not fill a batch (others, each epoch, when shuffling).
        rank: this process's number: it gets the ``rank``-th contiguous slice of each batch.
        world_size: number of processes.

    Raises:
        UserError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size % world_size:
            raise UserError(f"TRAIN.BATCH_SIZE = {batch_size} cannot be shared out evenly among {world_size} processes")
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._start_batch = 0

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that iterating gives from now on, and how many of its batches were done before."""
        self._epoch = epoch
        self._start_batch = start_batch

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever ``start_batch``; 0 when ``drop_last`` leaves no batch."""
        full, rest = divmod(self._length, self._batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self._shuffle:
            order = np.random.default_rng((self._seed, self._epoch)).permutation(self._length)
        else:
            order = np.arange(self._length)
        for number in range(self._start_batch, len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            share = np.array_split(batch, self._world_size)[self._rank]
            if len(share):  # an incomplete last batch may be too small for every rank
                yield [(self._epoch, int(index)) for index in share]


def collate(items: Sequence[Item] | UserError) -> Batch | UserError:
    """Stack items into a batch; a ``UserError`` passes through, the loader raises it."""
    if isinstance(items, UserError):
        return items
    tokens = torch.stack([item.tokens for item in items])  # [B, 2, T]
    return Batch(
        images=[torch.stack(images) for images in zip(*(item.images for item in items), strict=True)],
        tokens=(tokens[:, 0].contiguous(), tokens[:, 1].contiguous()),
        class_ids=torch.tensor([item.class_id for item in items]),
        indices=torch.tensor([item.index for item in items]),
        captions=([item.captions[0] for item in items], [item.captions[1] for item in items]),
        keys=[item.key for item in items],
    )


class _Loader(DataLoader):
    """A DataLoader that raises a worker's ``UserError`` as it is, without the worker's traceback in its message."""

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def make_loader(
    dataset: TextImageDataset, sampler: EpochBatchSampler, workers: int, device: torch.device
) -> DataLoader:
    """A loader of :class:`Batch` that follows ``sampler``; its memory is pinned when it feeds a CUDA device."""
    return _Loader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
