"""Attribute accuracy on the drawn data set, whose truth is known: read by an oracle, without any network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from clipgan.data.examples import Example
from clipgan.data.toy_oracle import attribute_accuracy, chance_accuracy, read_truth


class AttributeScore:
    """Collects what the oracle reads, batch by batch, under names such as "generated" and "real"."""

    def __init__(self, truths: Sequence[dict[str, str]]):
        self._truths = truths
        self._sums: dict[str, dict[str, float]] = {}
        self._counts: dict[str, int] = {}

    @staticmethod
    def of(data_dir: str | Path, examples: Sequence[Example]) -> AttributeScore | None:
        """A score for these examples, or None where the data set is not a drawn one."""
        truth = read_truth(data_dir)
        if truth is None:
            return None
        return AttributeScore([truth[example.key] for example in examples])

    def add(self, name: str, images: Tensor, examples: Iterable[int]) -> None:
        """Read images [B, 3, S, S] in [−1, 1]; ``examples`` are the places of those whose captions they show."""
        truths = [self._truths[index] for index in examples]
        sums = self._sums.setdefault(name, {})
        for key, value in attribute_accuracy(images.cpu(), truths).items():
            sums[key] = sums.get(key, 0.0) + value * len(truths)
        self._counts[name] = self._counts.get(name, 0) + len(truths)

    def mean(self, name: str) -> float:
        """Share of the attributes that are right; a bird that is not found has none right."""
        return self._sums[name]["mean"] / self._counts[name]

    def report(self) -> dict:
        """For every name its mean, the share of birds found, and each attribute; and what guessing would give."""
        scores = {
            name: {key: value / self._counts[name] for key, value in sums.items()} for name, sums in self._sums.items()
        }
        return {**scores, "chance": chance_accuracy()}
