"""What a score is: a pure function of what networks say of images, and a card that says how to read the number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# What a metric can be measured on, for a set of N images whose row i is image i.
INCEPTION = "inception"          # [N, D] float32: features of the FID's Inception network
PROBABILITIES = "probabilities"  # [N, C] float64: class probabilities of the Inception Score's network
EMBEDDINGS = "embeddings"        # [N, E] float32: image features of a judge
CAPTIONS = "captions"            # a `CaptionFeatures`: the same, with the sentences of all captions
ATTRIBUTES = "attributes"        # an `AttributeReadings`: what the oracle of the drawn data reads
# What images can be compared with: those of a split of the data set.
TEST, TRAIN = "test", "train"


@dataclass(frozen=True)
class Card:
    """How to read a score.

    Attributes:
        key: its name on the command line, in the config and in JSON.
        name: its name in a table.
        meaning: what it measures, in a sentence.
        lowest, highest: its range; None: there is no bound.
        better: ``higher`` or ``lower``.
        source: paper and equation.
        bias: how the number of images and the network shift it.
        blind: what it fails to see.
    """

    key: str
    name: str
    meaning: str
    lowest: float | None
    highest: float | None
    better: str
    source: str
    bias: str
    blind: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Rules:
    """What a protocol may ask of the metrics: seed, parts and the treatment of ties.

    Attributes:
        seed: of everything that is drawn.
        splits: parts of the Inception Score.
        candidates: captions that an image chooses from for R-precision, its own included.
        folds: parts of the R-precision.
        ties_hit: whether a caption that is as near as the image's own leaves a hit.
        drops_one: whether the last image of each fold is left out.
    """

    seed: int = 100
    splits: int = 10
    candidates: int = 100
    folds: int = 10
    ties_hit: bool = False
    drops_one: bool = False


@dataclass(frozen=True)
class Measured:
    """A score of some images.

    Attributes:
        value: the score.
        effects: for each set of images that is a sample of more of its kind, a float64 array [N] with mean 0: the
            first-order effect of each image, so that the score of a resampled set is about ``value`` plus the mean of
            its images' effects (the influence function of Hampel 1974). Empty where it is not known.
        chance: what guessing scores; None where that has no meaning.
        details: more numbers, for the JSON.
    """

    value: float
    effects: tuple[np.ndarray, ...] = ()
    chance: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def mean_of(values: np.ndarray, chance: float | None = None, **details: Any) -> Measured:
        """The score that is the mean of a number for each image."""
        values = np.asarray(values, dtype=np.float64)
        mean = float(values.mean())
        return Measured(mean, (values - mean,), chance, details)


@dataclass(frozen=True)
class Metric:
    """A computation and the scores that it gives.

    Attributes:
        cards: of its scores, in the order of the results. Scores that share their costly part share a metric.
        needs: one of INCEPTION, PROBABILITIES, EMBEDDINGS, CAPTIONS, ATTRIBUTES.
        measure: ``measure(ours, *others, rules)`` → a :class:`Measured` for each card.
        against: the splits whose real images are compared with, in the order of ``others``.
    """

    cards: Sequence[Card]
    needs: str
    measure: Callable[..., Sequence[Measured]]
    against: Sequence[str] = ()
