"""The scores that a config asks for while the GAN trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from clipgan.config import Config, get_key
from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import (
    ATTRIBUTES,
    EMBEDDINGS,
    INCEPTION,
    PROBABILITIES,
    TEST,
    TRAIN,
    Measured,
    Metric,
    Rules,
)
from clipgan.evaluation.metrics.registry import cards, metric_of, metrics_of

_NETWORK = {INCEPTION: "EVAL.INCEPTION_WEIGHTS", PROBABILITIES: "EVAL.SCORE_WEIGHTS"}  # the key that names it
_ENOUGH = 200  # images, for every score that refuses few of them


@dataclass(frozen=True)
class Chosen:
    """What is measured, and what of it chooses ``netG_best.pth``.

    Attributes:
        keys: of the scores.
        metrics: that give them.
        best_by, best_split: the score that chooses, and the split whose captions it measures.
        optional: keys that nobody asked for: they are left out where the data set has nothing to measure them by.
    """

    keys: Sequence[str]
    metrics: Sequence[Metric]
    best_by: str
    best_split: str
    optional: Sequence[str]

    @staticmethod
    def of(config: Config) -> Chosen:
        """The scores of ``EVAL.METRICS``, or else those that cost little; and that of ``EVAL.BEST_BY``.

        Raises:
            UserError: there is no such score, its network is not named, or it cannot choose by this split.
        """
        settings = config.EVAL
        for key in settings.METRICS:
            _require_network(config, key, "EVAL.METRICS")
        _require_network(config, settings.BEST_BY, "EVAL.BEST_BY")
        if metric_of(settings.BEST_BY, "EVAL.BEST_BY").against and settings.BEST_SPLIT != "test":
            raise UserError(
                f"EVAL.BEST_BY {settings.BEST_BY} compares images of the test split's captions with real ones: "
                "set EVAL.BEST_SPLIT to test"
            )
        usual = ["r_precision", "attributes"] + (["fid"] if settings.INCEPTION_WEIGHTS else [])
        optional = [] if settings.METRICS else [key for key in usual if key != settings.BEST_BY]
        wanted = {*(settings.METRICS or usual), settings.BEST_BY}
        keys = [key for key in cards() if key in wanted]
        metrics = metrics_of(keys, "EVAL.METRICS")
        return Chosen(keys, metrics, settings.BEST_BY, settings.BEST_SPLIT, optional)

    @property
    def needs(self) -> set[str]:
        return {metric.needs for metric in self.metrics}

    @property
    def against(self) -> dict[str, set[str]]:
        """The splits whose real images are compared with, and the needs that they meet."""
        return {
            split: needs
            for split in (TRAIN, TEST)
            if (needs := {metric.needs for metric in self.metrics if split in metric.against})
        }

    def require_oracle(self, data_dir: str, known: bool) -> None:
        """Refuse a score that only the drawn data has, where the data set is another one."""
        asked = [key for key in self.keys if metric_of(key, "").needs == ATTRIBUTES and key not in self.optional]
        if asked and not known:
            key = "EVAL.BEST_BY is" if asked[0] == self.best_by else "EVAL.METRICS asks for"
            raise UserError(
                f"{key} {asked[0]}, which only the drawn data set has, not {data_dir}: use r_precision or fid"
            )

    def require_enough(self, ours: Mapping[str, int], real: Mapping[str, int], rules: Rules) -> None:
        """Refuse scores that need more images, hours before they are measured: made-up features are measured.

        Args:
            ours: how many images of each split's captions are measured.
            real: how many real images each split has.
        """
        for metric in self.metrics:
            if metric.needs not in (INCEPTION, EMBEDDINGS, PROBABILITIES):
                continue
            for count in [ours["test"]] if metric.against else ours.values():
                counts = [min(n, _ENOUGH) for n in (count, *(real[split] for split in metric.against))]
                made_up = [torch.randn(n, 2, generator=torch.Generator().manual_seed(i)) for i, n in enumerate(counts)]
                if metric.needs == PROBABILITIES:
                    made_up = [features.double().softmax(dim=1).numpy() for features in made_up]
                try:
                    metric.measure(*made_up, rules=rules)
                except UserError as error:
                    raise UserError(f"while training: {error}: raise EVAL.MEASURE_IMAGES") from None

    def named(self, metric: Metric, split: str, measured: Sequence[Measured]) -> Iterator[tuple[str, float]]:
        """The chosen scores of a metric under their names: with the split, unless it compares with real images."""
        for card, one in zip(metric.cards, measured, strict=True):
            if card.key in self.keys:
                yield (card.key if metric.against else f"{split}_{card.key}"), one.value

    def best(self, numbers: Mapping[str, float]) -> float:
        """The number that chooses; larger is better."""
        name = self.best_by if self.best_by in numbers else f"{self.best_split}_{self.best_by}"
        return numbers[name] if cards()[self.best_by].better == "higher" else -numbers[name]


def _require_network(config: Config, key: str, source: str) -> None:
    network = _NETWORK.get(metric_of(key, source).needs)
    if network is not None and not get_key(config, network):
        raise UserError(
            f"{source} {'is' if source == 'EVAL.BEST_BY' else 'asks for'} {key}, but {network} is empty: published, "
            "random or a file"
        )
