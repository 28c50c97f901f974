"""Batches in which images meet others that are described almost alike: ``TRAIN.LOOK_ALIKES``.

The matching losses, and the discriminators' wrong pairs, teach what tells an image from the others of its batch. In a
batch drawn at random these differ in nearly everything, and what is told last, such as which of two parts is red, is
seldom asked. So each image brings along some that are described almost alike. Two kinds of these take turns: those
whose captions share most words, which may say them of other parts; and those that share most pairs of neighbouring
words, which differ in a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from clipgan.data.examples import Example

_DIMS = 256  # of an image's words: random projections keep the cosines of any vocabulary to within a few hundredths
_POOL = 1024  # images ahead in the random order among which look-alikes are searched: the rest stays random
# So many times more look-alikes are found than are taken: the nearest alone would be the same ones in every epoch.
_CHOICE = 4
# In turn, of how many words the runs are that a group shares. One other word is found less often than another order.
_TURNS = (2, 2, 2, 1)


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
            self._vectors = [_vectors(examples, length) for length in (1, 2)]  # [N, _DIMS] each, of length 1

    def __call__(self, order: np.ndarray) -> np.ndarray:
        """An order of the same examples: each group begins with the next of the given order, then come its own."""
        if self._group == 1:
            return order
        arranged: list[int] = []
        turn = itertools.cycle([self._vectors[length - 1] for length in _TURNS])
        pool, rest = order[:_POOL], order[_POOL:]
        while len(pool):
            first, others = pool[0], pool[1:]
            vectors = next(turn)
            alike = vectors[others] @ vectors[first]
            alike[self._classes[others] == self._classes[first]] = -np.inf
            nearest = np.argsort(-alike, kind="stable")[: _CHOICE * (self._group - 1)]
            chosen = np.sort(nearest)[: self._group - 1]  # at random among them, as the pool's order is
            arranged += [int(first), *others[chosen].tolist()]
            more = _POOL - len(others) + len(chosen)
            pool, rest = np.concatenate([np.delete(others, chosen), rest[:more]]), rest[more:]
        return np.array(arranged)


def _vectors(examples: Sequence[Example], length: int) -> np.ndarray:
    """Which runs of so many words an image's captions have, rare ones counting more: float32 [N, _DIMS], projected."""
    texts = [sorted(set().union(*(_runs(caption, length) for caption in example.captions))) for example in examples]
    vocabulary = {run: number for number, run in enumerate(sorted(set().union(*texts)))}
    counts = np.bincount([vocabulary[run] for text in texts for run in text], minlength=len(vocabulary))
    rare = np.log((1 + len(texts)) / np.maximum(counts, 1)).astype(np.float32)[:, None]
    table = rare * np.random.default_rng(0).standard_normal((len(vocabulary), _DIMS), dtype=np.float32)
    vectors = np.stack([table[np.array([vocabulary[run] for run in text], dtype=int)].sum(axis=0) for text in texts])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _runs(caption: str, length: int) -> list[str]:
    words = re.findall(r"\w+", caption.lower())
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]
