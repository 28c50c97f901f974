"""One picture of a caption, at every size, with where its words attend: plain values, no tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Drawing:
    """A picture that a model drew of a caption.

    Attributes:
        caption: as it was given.
        words: those that the encoder read, in order; a word of several BPE tokens is one.
        images: RGB, of every size, smallest first; the last is the picture.
        attention: for each size but the first, float32 [W, h, w]: how much each word says to each place. At every
            place the words' shares sum to 1.
        seed: of its noise.
        number: which one of the caption's pictures it is, from 0; seed and number are its noise.
        score: cosine of picture and caption as the encoder sees them, in [−1, 1]; None where it was not asked for.
        notes: what the reader should know of the caption, a sentence each: words that training never saw, a cut.
    """

    caption: str
    words: tuple[str, ...]
    images: tuple[Image.Image, ...]
    attention: tuple[np.ndarray, ...]
    seed: int
    number: int
    score: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def image(self) -> Image.Image:
        """The picture: the largest image."""
        return self.images[-1]
