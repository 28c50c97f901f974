"""DiffAugment: the discriminators see real and generated images through random, differentiable changes.

A discriminator that has seen a few hundred photographs often enough knows them by heart. When it only ever meets them
changed, it cannot; and as generated images are changed likewise, the generator does not learn the changes.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, §3.2 and appendix.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import Config
from clipgan.machine import distributed
from clipgan.machine.device import send


def color(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness by up to ±0.5, saturation times 0 to 2, contrast times 0.5 to 1.5: [N, 3, s, s], [N, 3] → the same."""
    brightness, saturation, contrast = numbers.view(-1, 3, 1, 1, 1).unbind(dim=1)
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def translation(images: Tensor, numbers: Tensor) -> Tensor:
    """A shift by up to an eighth of the side along each axis, grey behind it: [N, 3, s, s], [N, 2] → the same."""
    side = images.shape[-1]
    reach = round(side / 8)
    shift = (numbers * (2 * reach + 1)).floor().long()               # [N, 2], 0 … 2 · reach
    place = torch.arange(side, device=images.device)
    rows = (place + shift[:, :1])[:, :, None]                        # [N, s, 1]
    columns = (place + shift[:, 1:])[:, None, :]                     # [N, 1, s]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    padded = F.pad(images, [reach] * 4).permute(0, 2, 3, 1)
    return padded[which, rows, columns].permute(0, 3, 1, 2)


def cutout(images: Tensor, numbers: Tensor) -> Tensor:
    """A grey square of half the side, part of it perhaps outside: [N, 3, s, s], [N, 2] → the same."""
    side = images.shape[-1]
    centre = (numbers * side).floor()[:, :, None]                    # [N, 2, 1]
    inside = (torch.arange(side, device=images.device) - centre + side // 4).floor()
    inside = (inside >= 0) & (inside < side // 2)                    # [N, 2, s]
    hidden = inside[:, 0, :, None] & inside[:, 1, None, :]           # [N, s, s]
    return images.masked_fill(hidden.unsqueeze(1), 0.0)


# The changes by the names of the paper, and how many random numbers from 0 to 1 an image needs for each.
POLICIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "color": (color, 3),
    "translation": (translation, 2),
    "cutout": (cutout, 2),
}


class DiffAugment:
    """The changes of one step, in the order of ``TRAIN.DIFFAUG``; an empty list changes nothing.

    Each call draws new ones. They depend on the seed, the step and the calls before only, and each process takes those
    of its own images: any number of processes, and a resumed run, draw the same.
    """

    def __init__(self, config: Config, step: int, device: torch.device):
        self._policy = [POLICIES[name] for name in config.TRAIN.DIFFAUG]
        self._batch, self._device = config.TRAIN.BATCH_SIZE, device
        self._rng = np.random.default_rng((config.SEED, step, *b"augment"))

    def __call__(self, images: Tensor) -> Tensor:
        """Images [V b, 3, s, s], one view after the other, b images of this process in each → the same, changed."""
        views = len(images) * distributed.world_size() // self._batch
        for change, count in self._policy:
            whole = torch.from_numpy(self._rng.random((views, self._batch, count), dtype=np.float32))
            numbers = torch.cat([distributed.own_slice(of_view) for of_view in whole])
            images = change(images, send(numbers, self._device))
        return images
