"""Attribute accuracy on the toy data set: an oracle reads the attributes from images, without any network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from clipgan.data.examples import Example
from clipgan.data.toy_oracle import attribute_accuracy, chance_accuracy, read_truth
from clipgan.errors import UserError
from clipgan.machine import distributed


class AttributeScore:
    """Collects what the oracle reads, batch by batch, under names such as "generated" and "real"."""

    def __init__(self, truths: Sequence[dict[str, str]]):
        self._truths = truths
        self._batches: dict[str, list[tuple[int, dict[str, float]]]] = {}  # by name: count and scores of each batch

    @staticmethod
    def of(data_dir: str | Path, examples: Sequence[Example]) -> AttributeScore | None:
        """A score for these examples, or None if the data set is not the toy data set.

        Raises:
            UserError: the toy data set's file of attributes is broken, or lacks an example.
        """
        truth = read_truth(data_dir)
        if truth is None:
            return None
        unknown = next((example.key for example in examples if example.key not in truth), None)
        if unknown is not None:
            raise UserError(
                f"{data_dir}/attributes.json does not know the image {unknown}: draw the toy data set again with "
                "tools/make_toy_data.py, or remove the file from data of your own"
            )
        return AttributeScore([truth[example.key] for example in examples])

    def add(self, name: str, images: Tensor, examples: Iterable[int]) -> None:
        """Read images [B, 3, S, S] in [−1, 1]; ``examples`` are the indices of the examples that they should show."""
        truths = [self._truths[index] for index in examples]
        self._batches.setdefault(name, []).append((len(truths), attribute_accuracy(images.cpu(), truths)))

    def join(self) -> None:
        """Collect the readings of all processes; each has read its share of the batches (``distributed.share``)."""
        parts = distributed.gather_objects(self._batches)
        names = sorted({name for part in parts for name in part})
        self._batches = {name: distributed.interleave([part.get(name, []) for part in parts]) for name in names}

    def mean(self, name: str) -> float:
        """Share of the attributes that are right; an image without a found bird has none right."""
        return self._scores(name)["mean"]

    def report(self) -> dict:
        """For every name: the mean, the share of birds found, and each attribute. Also the score of guessing."""
        return {**{name: self._scores(name) for name in self._batches}, "chance": chance_accuracy()}

    def _scores(self, name: str) -> dict[str, float]:
        batches = self._batches[name]
        total = sum(count for count, _ in batches)
        return {key: sum(count * scores[key] for count, scores in batches) / total for key in batches[0][1]}
