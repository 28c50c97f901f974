"""The splits and the training set that a config describes."""

from __future__ import annotations

from collections.abc import Sequence

from clipgan.config import Config
from clipgan.data.dataset import TextImageDataset, Tokenize
from clipgan.data.examples import Example, read_examples
from clipgan.errors import UserError


def read_split(config: Config, split: str) -> list[Example]:
    """The examples of ``train`` or ``test``; raises ``UserError`` for whatever is missing in DATA_DIR."""
    return read_examples(
        config.DATA_DIR,
        split,
        config.DATASET_NAME,
        raw_captions=config.TEXT.RAW_CAPTIONS,
        captions_per_image=config.TEXT.CAPTIONS_PER_IMAGE,
    )


def training_set(
    config: Config, examples: Sequence[Example], sizes: Sequence[int], tokenize: Tokenize
) -> TextImageDataset:
    """The examples with the config's crop, flip and seed, at these sizes.

    Raises:
        UserError: a batch needs more images than there are.
    """
    if len(examples) < config.TRAIN.BATCH_SIZE:
        raise UserError(
            f"TRAIN.BATCH_SIZE is {config.TRAIN.BATCH_SIZE}, but the training split has {len(examples)} images"
        )
    return TextImageDataset(
        examples,
        sizes,
        tokenize,
        seed=config.SEED,
        box_crop=config.DATA.BOX_CROP,
        flip=config.DATA.FLIP,
        crop_scale=config.DATA.CROP_SCALE,
    )
