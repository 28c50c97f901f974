"""Batches of images and captions that depend on seed, epoch and index only, never on workers, ranks or a restart."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from clipgan.data.cache import ImageCache, Preparation
from clipgan.data.caption_ids import caption_ids
from clipgan.data.examples import Example
from clipgan.data.images import crop_and_flip, from_uint8, pixel_pyramid
from clipgan.data.shared_memory import fit_workers
from clipgan.errors import UserError
from clipgan.machine.distributed import even_share

Tokenize = Callable[[list[str]], Tensor]

_PREFETCH = 4  # batches that each worker prepares ahead, so that a slow file does not delay training


@dataclass(frozen=True)
class Item:
    """One image with two of its captions."""

    pixels: list[Tensor]  # uint8 [3, s, s], smallest first
    tokens: Tensor  # int64 [2, L]; L is the length of the longer caption
    class_id: int
    index: int
    captions: tuple[str, str]
    key: str

    @cached_property
    def images(self) -> list[Tensor]:
        """[3, s, s] in [−1, 1], smallest first."""
        return [from_uint8(pixels) for pixels in self.pixels]


@dataclass
class Batch:
    """Images, two captions of each, and where they come from.

    The images travel from the workers to the device as bytes, a quarter of the memory of floats. ``images`` converts
    them to floats on first use, on the device where the batch is then.
    """

    pixels: list[Tensor]  # uint8 [B, 3, s, s], smallest first, channels-last
    tokens: tuple[Tensor, Tensor]  # int64 [B, L], first and second caption; L is the longest length
    class_ids: Tensor  # int64 [B]
    indices: Tensor  # int64 [B], places in the data set
    captions: tuple[list[str], list[str]]
    keys: list[str]
    caption_ids: Tensor | None = None  # int64 [B, 2], equal for equal captions; None: captions are not compared

    @cached_property
    def images(self) -> list[Tensor]:
        """[B, 3, s, s] in [−1, 1], smallest first."""
        return [from_uint8(pixels) for pixels in self.pixels]

    def __getstate__(self) -> dict:
        """State of a batch on the CPU. Small tensors become NumPy arrays: copying them is faster than sharing."""
        return vars(self) | self._numbers(Tensor.numpy) | {"tokens": [tokens.numpy() for tokens in self.tokens]}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state | {"tokens": tuple(map(torch.from_numpy, state["tokens"]))})
        vars(self).update(self._numbers(torch.from_numpy))

    def _numbers(self, move: Callable) -> dict:
        numbers = {"class_ids": self.class_ids, "indices": self.indices, "caption_ids": self.caption_ids}
        return {name: tensor if tensor is None else move(tensor) for name, tensor in numbers.items()}

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        first, second = self.tokens
        return Batch(
            pixels=[move(pixels) for pixels in self.pixels],
            tokens=(move(first), move(second)),
            captions=self.captions,
            keys=self.keys,
            **self._numbers(move),
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
        tokenize: list of n captions → int64 [n, L], each row ended by zeros.
        seed: not negative.
        box_crop: cut to the box where an example has one.
        flip: mirror half of the training images.
        crop_scale: see :func:`clipgan.data.images.prepare_image`.
        train: False gives a centre crop, no flip, and captions 0 and 1.
        cache: the same examples, cut and resized before; None reads their files each time. The items do not differ.
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
        cache: ImageCache | None = None,
    ):
        preparation = Preparation(max(sizes), crop_scale, box_crop)
        if cache is not None and (cache.preparation != preparation or len(cache) != len(examples)):
            raise ValueError(f"{cache.path} holds {len(cache)} images as {cache.preparation}, not as {preparation}")
        self.examples = examples
        self._sizes = sorted(sizes)
        self._tokenize = tokenize
        self._seed = seed
        self._preparation = preparation
        self._flip = flip
        self._train = train
        self._cache = cache
        self._known: dict[str, np.ndarray] = {}  # tokens by caption, int32 [L]: each worker process has its own

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image at all its sizes, as a worker sends it."""
        return sum(3 * size * size for size in self._sizes)

    def __getitem__(self, address: tuple[int, int]) -> Item:
        """The item (epoch, index).

        Raises:
            UserError: its image is missing or unreadable, its box lies outside it, or a caption has no words.
        """
        epoch, index = address
        example = self.examples[index]
        rng = np.random.default_rng((self._seed, epoch, index)) if self._train else None
        image = np.asarray(self._preparation.load(example)) if self._cache is None else self._cache[index]
        largest = crop_and_flip(image, self._sizes[-1], rng, self._flip)

        count = len(example.captions)
        if count == 1:
            first, second = 0, 0
        elif rng is None:
            first, second = 0, 1
        else:
            first, second = rng.choice(count, 2, replace=False)
        captions = (example.captions[first], example.captions[second])
        pixels = pixel_pyramid(largest, self._sizes)
        try:
            tokens = self._tokens_of(captions)
        except UserError as error:
            raise UserError(f"image {example.key}: {error}") from None
        return Item(pixels, tokens, example.class_id, index, captions, example.key)

    def __getitems__(self, addresses: list[tuple[int, int]]) -> list[Item] | UserError:
        """The items of a batch, or a ``UserError``: if a worker raised it, the loader would add a traceback to it."""
        try:
            return [self[address] for address in addresses]
        except UserError as error:
            return error
        except MemoryError:
            return UserError("a process that prepares images ran out of memory: set WORKERS or TRAIN.BATCH_SIZE lower")

    def _tokens_of(self, captions: tuple[str, str]) -> Tensor:
        """int64 [2, L]. Training uses each caption many times, so it keeps the tokens."""
        if not self._train:
            return self._tokenize(list(captions))
        for caption in captions:
            if caption not in self._known:
                self._known[caption] = self._tokenize([caption])[0].numpy().astype(np.int32)
        return pad_sequence([torch.from_numpy(self._known[caption]).long() for caption in captions], batch_first=True)


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, index) in an order that depends on seed and epoch only.

    Args:
        length: number of examples.
        batch_size: of all ranks together; a multiple of ``world_size``.
        seed: not negative.
        shuffle: False keeps the order of the examples.
        drop_last: leave out the examples that do not fill a batch (different ones in each epoch when shuffling).
        rank: this process's number: it gets the ``rank``-th contiguous slice of each batch.
        world_size: number of processes.
        arrange: makes of a shuffled order [length] the one to take, such as ``LookAlikes``. None: takes it as it is.

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
        arrange: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        even_share(batch_size, world_size)  # raises if the shares are uneven
        self._length = length
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._arrange = arrange or (lambda order: order)
        self._epoch = 0
        self._start_batch = 0

    @property
    def share_size(self) -> int:
        """Number of examples of a full batch that this process gets."""
        return self._batch_size // self._world_size

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that iterating gives from now on, and how many of its first batches to skip."""
        self._epoch = epoch
        self._start_batch = start_batch

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever ``start_batch``; 0 when ``drop_last`` leaves no batch."""
        full, rest = divmod(self._length, self._batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self._shuffle:
            order = self._arrange(np.random.default_rng((self._seed, self._epoch)).permutation(self._length))
        else:
            order = np.arange(self._length)
        for number in range(self._start_batch, len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            share = np.array_split(batch, self._world_size)[self._rank]
            if len(share):  # an incomplete last batch may be too small for every rank
                yield [(self._epoch, int(index)) for index in share]


def collate(items: Sequence[Item] | UserError) -> Batch | UserError:
    """Stack items into a batch; a ``UserError`` is returned as it is, and the loader raises it."""
    if isinstance(items, UserError):
        return items
    # Pad to the longest caption here, where its length is known without waiting for a GPU.
    tokens = pad_sequence([item.tokens.T for item in items], batch_first=True)  # [B, L, 2]
    return Batch(
        pixels=[_stack(of_size) for of_size in zip(*(item.pixels for item in items), strict=True)],
        tokens=(tokens[..., 0].contiguous(), tokens[..., 1].contiguous()),
        class_ids=torch.tensor([item.class_id for item in items]),
        indices=torch.tensor([item.index for item in items]),
        captions=([item.captions[0] for item in items], [item.captions[1] for item in items]),
        keys=[item.key for item in items],
        caption_ids=caption_ids(tokens.transpose(1, 2)),
    )


def _stack(pixels: Sequence[Tensor]) -> Tensor:
    """Stack images [3, s, s] to [B, 3, s, s] that is channels-last in memory."""
    # In a worker, default_collate stacks straight into the memory that it shares with the main process.
    return default_collate([image.permute(1, 2, 0) for image in pixels]).permute(0, 3, 1, 2)


@contextlib.contextmanager
def _sigterm_held_back() -> Iterator[None]:
    """Block SIGTERM in this thread; processes that start in the block keep it blocked, in all their threads."""
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Loader(DataLoader):
    """A DataLoader that raises a worker's ``UserError`` as it is, without the worker's traceback in its message."""

    def __iter__(self) -> Iterator[Batch]:
        with _sigterm_held_back():  # here the workers start
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _heed_only_the_main_process(_worker: int) -> None:
    """Make a worker ignore SIGINT, and SIGTERM unless the main process sends it.

    A job's end is often signalled to all of its processes, but the main process needs its workers to finish the step.
    At its own end it stops them by SIGTERM. The worker starts with SIGTERM blocked, so that one thread can receive
    each SIGTERM and see its sender. If the main process is gone, a SIGTERM from any process ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return

    main = multiprocessing.parent_process()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid and main.is_alive():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def make_loader(
    dataset: TextImageDataset, batches: Iterable[list[tuple[int, int]]], workers: int, device: torch.device
) -> DataLoader:
    """A loader of :class:`Batch`, from lists of (epoch, index) such as ``EpochBatchSampler`` gives.

    Batches are pinned if the device is CUDA. The workers live as long as the loader. Each prepares up to ``_PREFETCH``
    batches ahead, as far as shared memory allows.
    """
    batch_size = batches.share_size if isinstance(batches, EpochBatchSampler) else max(map(len, batches), default=1)
    workers, ahead = fit_workers(workers, _PREFETCH, batch_size * dataset.image_bytes)
    return _Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=ahead if workers > 0 else None,
        worker_init_fn=_heed_only_the_main_process,
        generator=torch.Generator(),  # else each epoch would draw from the global generator, which training uses
    )
