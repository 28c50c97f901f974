"""The word loss of a batch that may be spread over several processes: each caption meets the images of all of them.

A caption's similarities need its own words and every image's regions, so a process makes the rows of its own captions
and gathers the others': the heaviest part of the losses is divided among the processes, and no words travel.
"""

from __future__ import annotations

from torch import Tensor

from clipgan import distributed
from clipgan.config import Smooth
from clipgan.losses.damsm import pair_losses, word_similarity


def words_matching(words: Tensor, word_mask: Tensor, regions: Tensor, class_ids: Tensor, smooth: Smooth) -> Tensor:
    """The word loss of AttnGAN, both directions summed, a scalar.

    Args:
        words: [b, D, W] of this process's captions.
        word_mask: [b, W], True = a real word.
        regions: [B, D, R] of the images of all processes (``distributed.gather``).
        class_ids: [B] of all processes.
        smooth: the temperatures.
    """
    rows = word_similarity(words, word_mask, regions, smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)  # [b, B]
    return sum(pair_losses(distributed.gather(rows), class_ids))
