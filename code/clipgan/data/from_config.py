"""The splits, the training set and its loader that a config describes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from clipgan.config import Config
from clipgan.data.cache import ImageCache, Preparation
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, Tokenize, make_loader
from clipgan.data.examples import Example, read_examples
from clipgan.data.look_alikes import LookAlikes
from clipgan.errors import UserError
from clipgan.machine import distributed


def require_even_shares(config: Config) -> None:
    """Refuse a global batch that the processes, or the parts of TRAIN.ACCUMULATE, cannot share evenly.

    Raises:
        UserError: names the batch and the processes.
    """
    share = distributed.even_share(config.TRAIN.BATCH_SIZE, distributed.world_size())
    if share < config.TRAIN.ACCUMULATE or share % config.TRAIN.ACCUMULATE:
        raise UserError(
            f"TRAIN.ACCUMULATE = {config.TRAIN.ACCUMULATE} does not divide the {share} images of each process evenly"
        )


def batch_line(config: Config) -> str:
    """The line printed at the start of a run that explains the batch size."""
    batch, processes = config.TRAIN.BATCH_SIZE, distributed.world_size()
    line = f"batch {batch}"
    if processes > 1:
        line += f" in all, {batch // processes} for each of {processes} processes"
    if config.TRAIN.ACCUMULATE > 1:
        line += f", encoded in {config.TRAIN.ACCUMULATE} parts"
    return line


def read_split(config: Config, split: str) -> list[Example]:
    """The examples of ``train`` or ``test``; raises ``UserError`` for whatever is missing in DATA_DIR."""
    return read_examples(
        config.DATA_DIR,
        split,
        config.DATASET_NAME,
        raw_captions=config.TEXT.RAW_CAPTIONS,
        captions_per_image=config.TEXT.CAPTIONS_PER_IMAGE,
    )


def data_fingerprint(examples: Sequence[Example]) -> str:
    """Tells two data sets apart, wherever they lie: by names, captions, classes, boxes, and the sizes of some images.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    step = max(1, len(examples) // 256)
    for number, example in enumerate(examples):
        size = 0
        if number % step == 0:
            with contextlib.suppress(OSError):
                size = example.image.stat().st_size
        described = f"{example.key}\n{example.captions}\n{example.class_id} {example.box} {size}\n"
        digest.update(described.encode(errors="backslashreplace"))
    return digest.hexdigest()[:16]


def training_set(
    config: Config, examples: Sequence[Example], sizes: Sequence[int], tokenize: Tokenize
) -> TextImageDataset:
    """The training set with the config's crop, flip and seed; ``DATA.CACHE`` reads its images from an image cache.

    Raises:
        UserError: a batch needs more images than there are, or the cache cannot be built.
    """
    if len(examples) < config.TRAIN.BATCH_SIZE:
        raise UserError(
            f"TRAIN.BATCH_SIZE is {config.TRAIN.BATCH_SIZE}, but the training split has {len(examples)} images"
        )
    data = config.DATA
    cache = None
    if data.CACHE:
        preparation = Preparation(max(sizes), data.CROP_SCALE, data.BOX_CROP)
        folder = Path(config.OUTPUT_DIR) / "cache"
        with distributed.main_first():
            cache = ImageCache.of(examples, preparation, folder, config.DATASET_NAME, config.WORKERS)
    return TextImageDataset(
        examples,
        sizes,
        tokenize,
        seed=config.SEED,
        box_crop=data.BOX_CROP,
        flip=data.FLIP,
        crop_scale=data.CROP_SCALE,
        cache=cache,
    )


def training_loader(
    config: Config, dataset: TextImageDataset, device: torch.device
) -> tuple[EpochBatchSampler, DataLoader]:
    """The sampler that sets the epoch, and the loader of this process's share of every batch of TRAIN.BATCH_SIZE."""
    ranks = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    arrange = LookAlikes(dataset.examples, config.TRAIN.LOOK_ALIKES)
    sampler = EpochBatchSampler(len(dataset), config.TRAIN.BATCH_SIZE, config.SEED, arrange=arrange, **ranks)
    return sampler, make_loader(dataset, sampler, config.WORKERS, device)
