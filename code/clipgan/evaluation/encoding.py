"""Encodes the captions of a split, and loads its real images as the evaluation needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.caption_ids import caption_ids
from clipgan.data.dataset import TextImageDataset, make_loader
from clipgan.data.examples import Example
from clipgan.data.images import crop_and_flip, from_uint8, load_shrunk
from clipgan.evaluation.metrics.caption_features import CaptionFeatures
from clipgan.evaluation.sampling import Sample
from clipgan.machine import distributed
from clipgan.networks.clip_encoder import ClipEncoder


@dataclass(frozen=True)
class EncodedCaptions:
    """The sentence features of all captions of a split, and the example of each caption."""

    sentences: Tensor  # [M, E] on the CPU
    owners: Tensor  # int64 [M], the example that a caption describes
    classes: Tensor  # int64 [M], that example's class
    first: Tensor  # int64 [N], row of each example's caption 0; its caption c is at first + c
    ids: Tensor  # int64 [M], equal for equal captions

    def row(self, example: Tensor, caption: Tensor) -> Tensor:
        """Rows of the given captions of the given examples."""
        return self.first[example] + caption

    def features(self, images: Tensor, samples: Sequence[Sample]) -> CaptionFeatures:
        """With image features [N, E] of this judge; image i was generated for ``samples[i]``, or is its real image."""
        examples, captions = (torch.tensor([getattr(s, name) for s in samples]) for name in ("example", "caption"))
        own = self.row(examples, captions)
        return CaptionFeatures(
            images=images,
            sentences=self.sentences,
            own=own,
            image_classes=self.classes[own],
            caption_classes=self.classes,
            image_captions=self.ids[own],
            caption_ids=self.ids,
        )

    @property
    def shared(self) -> int:
        """How many of the M captions also occur at an image of another class."""
        captions = self.ids.unique(return_inverse=True)[1]                           # [M], numbered from 0
        pairs = torch.stack([captions, self.classes]).unique(dim=1)                  # each caption's classes, once each
        return int((pairs[0].bincount()[captions] > 1).sum())


@torch.no_grad()
def encode_captions(
    encoder: ClipEncoder, examples: Sequence[Example], device: torch.device, *, batch_size: int = 256
) -> EncodedCaptions:
    """Encode every caption of the examples once."""
    texts = [caption for example in examples for caption in example.captions]
    owners = torch.tensor([i for i, example in enumerate(examples) for _ in example.captions])
    classes = torch.tensor([example.class_id for example in examples])[owners]
    counts = torch.tensor([len(example.captions) for example in examples])
    starts = distributed.share(range(0, len(texts), batch_size))
    parts = []
    for i in tqdm(starts, desc="captions", unit="batch", leave=False, disable=not distributed.is_main()):
        tokens = encoder.tokenize(texts[i : i + batch_size])
        parts.append((encoder.encode_text(tokens.to(device))[2].cpu(), caption_ids(tokens)))
    sentences, ids = map(torch.cat, zip(*distributed.join(parts), strict=True))
    return EncodedCaptions(sentences, owners, classes, counts.cumsum(0) - counts, ids)


def evaluation_loader(
    examples: Sequence[Example],
    encoder: ClipEncoder,
    config: Config,
    batch_size: int,
    device: torch.device,
    order: Sequence[int] | None = None,
) -> DataLoader:
    """This process's share of the batches of all examples: centre crop, no flip, captions 0 and 1, the largest size.

    Args:
        order: indices into ``examples``; None keeps their order.
    """
    dataset = TextImageDataset(
        examples,
        [config.image_size],
        encoder.tokenize,
        seed=config.SEED,
        box_crop=config.DATA.BOX_CROP,
        crop_scale=config.DATA.CROP_SCALE,
        train=False,
    )
    addresses = [(0, int(index)) for index in (range(len(examples)) if order is None else order)]
    batches = [addresses[i : i + batch_size] for i in range(0, len(addresses), batch_size)]
    return make_loader(dataset, distributed.share(batches), config.WORKERS, device)


def evaluation_pixels(example: Example, config: Config) -> Tensor:
    """The largest image of one example, uint8 [3, S, S], prepared as :func:`evaluation_loader` does."""
    box = example.box if config.DATA.BOX_CROP else None
    size = config.image_size
    shrunk = load_shrunk(example.image, box, size, config.DATA.CROP_SCALE)
    return crop_and_flip(np.asarray(shrunk), size, None, flip=False)


def evaluation_image(example: Example, config: Config) -> Tensor:
    """:func:`evaluation_pixels` as a float image in [−1, 1]."""
    return from_uint8(evaluation_pixels(example, config))


def evaluation_images(examples: Sequence[Example], config: Config) -> Tensor:
    """The images [N, 3, S, S] of a few examples, prepared as by :func:`evaluation_image`."""
    return torch.stack([evaluation_image(example, config) for example in examples])
