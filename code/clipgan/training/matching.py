"""The matching losses of a batch, summed over its views: for both training loops and for the validation.

A batch may be spread over several processes. Each caption then meets the images of all of them. A caption's word
similarities need its own words and every image's regions, so a process computes those of its own captions and gathers
the others': the heaviest part of the losses is divided among the processes, and no words travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from clipgan.config import SmoothSection
from clipgan.losses.damsm import mismatches_left_out, pair_losses, same_class_mask, sentence_loss, word_similarity
from clipgan.machine import distributed


class View(NamedTuple):
    """Images, each with one of its captions: B pairs, of which this process has the words of b (all, or its share)."""

    regions: Tensor  # [B, D, R]
    image: Tensor  # [B, E]
    words: Tensor  # [b, D, W]
    word_mask: Tensor  # [b, W], True = a real word
    sentence: Tensor  # [B, E]


def matching_losses(
    views: Sequence[View],
    class_ids: Tensor,
    smooth: SmoothSection,
    word_loss: bool = True,
    caption_ids: Tensor | None = None,
) -> dict[str, Tensor]:
    """The DAMSM losses of AttnGAN (eq. 11-13), each summed over both directions and over the views.

    Args:
        views: of the same B examples.
        class_ids: [B]; images of one class are no mismatches of one another.
        smooth: the temperatures.
        word_loss: False leaves the word loss out, as 0.
        caption_ids: int64 [B, C], view v has the captions of column v. A caption is no mismatch of an image that has
            an equal one, in any of the columns. None: captions are not compared.

    Returns:
        ``words`` and ``sentence``, two scalars.
    """
    words = sentence = views[0].image.new_zeros(())
    gammas = (smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)
    left_out = same_class_mask(class_ids)  # [B, B]
    for number, view in enumerate(views):
        if caption_ids is not None:
            left_out = mismatches_left_out(class_ids, caption_ids[:, number], caption_ids)
        if word_loss:
            similarity = word_similarity(view.words, view.word_mask, view.regions, *gammas)  # [b, B]
            if len(similarity) < len(class_ids):
                similarity = distributed.gather(similarity)  # [B, B]
            words = words + sum(pair_losses(similarity, None, left_out))
        sentence = sentence + sum(sentence_loss(view.image, view.sentence, None, smooth.GAMMA3, left_out))
    return {"words": words, "sentence": sentence}
