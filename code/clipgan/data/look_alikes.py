"""Batches in which images meet others that are described almost alike: ``TRAIN.LOOK_ALIKES``.

The matching losses, and the discriminators' wrong pairs, teach what tells an image from the others of its batch. In a
batch drawn at random these differ in nearly everything, and what is told last, such as which of two parts is red, is
seldom asked. So each image brings along those whose captions share most of its words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from clipgan.data.examples import Example

_DIMS = 256  # of an image's words: random projections keep the cosines of any vocabulary to within a few hundredths
_POOL = 1024  # images ahead in the random order among which look-alikes are searched: the rest stays random
# So many times more look-alikes are found than are taken: the nearest alone would always be the same, and say all the
# same words in another order.
_CHOICE = 4


class LookAlikes:
    """Rearranges a random order so that look-alikes stand together.

    Args:
        examples: of the data set; images of one class, and those without other captions, do not look for each other.
        group: how many stand together, at least 1; 1 leaves every order as it is.
    """

    def __init__(self, examples: Sequence[Example], group: int):
        self._group = group
        if group > 1:
            self._classes = np.array([example.class_id for example in examples])
            self._words = _word_vectors(examples)  # [N, _DIMS], of length 1

    def __call__(self, order: np.ndarray) -> np.ndarray:
        """An order of the same examples: each group begins with the next of the given order, then come its own."""
        if self._group == 1:
            return order
        arranged: list[int] = []
        pool, rest = order[:_POOL], order[_POOL:]
        while len(pool):
            first, others = pool[0], pool[1:]
            alike = self._words[others] @ self._words[first]
            alike[self._classes[others] == self._classes[first]] = -np.inf
            nearest = np.argsort(-alike, kind="stable")[: _CHOICE * (self._group - 1)]
            chosen = np.sort(nearest)[: self._group - 1]  # at random among them, as the pool's order is
            arranged += [int(first), *others[chosen].tolist()]
            more = _POOL - len(others) + len(chosen)
            pool, rest = np.concatenate([np.delete(others, chosen), rest[:more]]), rest[more:]
        return np.array(arranged)


def _word_vectors(examples: Sequence[Example]) -> np.ndarray:
    """Which words and pairs of neighbouring words an image's captions have, projected at random: float32 [N, _DIMS].

    The rarer of them count more. The pairs tell captions apart that say the same words in another order.
    """
    texts = [sorted(set().union(*(_words_and_pairs(caption) for caption in example.captions))) for example in examples]
    vocabulary = {word: number for number, word in enumerate(sorted(set().union(*texts)))}
    counts = np.bincount([vocabulary[word] for text in texts for word in text], minlength=len(vocabulary))
    rare = np.log((1 + len(texts)) / counts).astype(np.float32)[:, None]
    table = rare * np.random.default_rng(0).standard_normal((len(vocabulary), _DIMS), dtype=np.float32)
    vectors = np.stack([table[[vocabulary[word] for word in text]].sum(axis=0) for text in texts])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _words_and_pairs(caption: str) -> list[str]:
    words = re.findall(r"\w+", caption.lower())
    return words + [f"{first} {second}" for first, second in itertools.pairwise(words)]
