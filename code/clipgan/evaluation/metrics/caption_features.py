"""What a judge says of images and of all captions that they could be of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CaptionFeatures:
    """N images, each made of (or described by) one of M captions; all on the CPU.

    Attributes:
        images: image features [N, E].
        sentences: sentence features [M, E] of all captions.
        own: int64 [N], the row of ``sentences`` of each image's caption.
        image_classes: int64 [N], the class of each image's caption.
        caption_classes: int64 [M], the class of each caption's example.
        image_captions: int64 [N], equal for equal texts of the images' captions.
        caption_ids: int64 [M], the same numbers for all captions.
    """

    images: Tensor
    sentences: Tensor
    own: Tensor
    image_classes: Tensor
    caption_classes: Tensor
    image_captions: Tensor
    caption_ids: Tensor
