"""Batches in which images meet others that are described almost alike: ``TRAIN.LOOK_ALIKES``.

The matching losses, and the discriminators' wrong pairs, teach what tells an image from the others of its batch. In a
batch drawn at random these differ in nearly everything, and what is told last, such as which of two parts is red, is
seldom asked. So each image brings along those whose captions share most of its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipgan.data.examples import Example

_DIMS = 256  # of an image's words: random projections keep the cosines of any vocabulary to within a few hundredths
_POOL = 1024  # images ahead in the random order among which look-alikes are searched: the rest stays random


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
            chosen = np.argsort(-alike, kind="stable")[: self._group - 1]
            arranged += [int(first), *others[chosen].tolist()]
            more = _POOL - len(others) + len(chosen)
            pool, rest = np.concatenate([np.delete(others, chosen), rest[:more]]), rest[more:]
        return np.array(arranged)


def _word_vectors(examples: Sequence[Example]) -> np.ndarray:
    """Which words an image's captions have, rare ones counting more, projected at random: float32 [N, _DIMS]."""
    texts = [sorted(set(" ".join(example.captions).lower().split())) for example in examples]
    vocabulary = {word: number for number, word in enumerate(sorted(set().union(*texts)))}
    counts = np.bincount([vocabulary[word] for text in texts for word in text], minlength=len(vocabulary))
    rare = np.log((1 + len(texts)) / counts).astype(np.float32)[:, None]
    table = rare * np.random.default_rng(0).standard_normal((len(vocabulary), _DIMS), dtype=np.float32)
    vectors = np.stack([table[[vocabulary[word] for word in text]].sum(axis=0) for text in texts])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
