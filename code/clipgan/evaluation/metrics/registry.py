"""All scores. A metric is one file of this folder and one line of ``METRICS`` (see docs/extending.md)."""

from __future__ import annotations

from collections.abc import Sequence

from clipgan.errors import UserError
from clipgan.evaluation.metrics import (
    attributes,
    clip_score,
    cmmd,
    duplicates,
    fid,
    fid_infinity,
    inception_score,
    kid,
    precision_recall,
    r_precision,
)
from clipgan.evaluation.metrics.card import Card, Metric
from clipgan.files.gate import short

METRICS: tuple[Metric, ...] = (
    r_precision.METRIC,
    clip_score.METRIC,
    attributes.METRIC,
    fid.METRIC,
    fid_infinity.METRIC,
    kid.METRIC,
    cmmd.METRIC,
    precision_recall.METRIC,
    inception_score.METRIC,
    duplicates.METRIC,
)


def cards() -> dict[str, Card]:
    """The cards of all scores by their keys, in the order of the tables."""
    return {card.key: card for metric in METRICS for card in metric.cards}


def metric_of(key: str, source: str) -> Metric:
    """The metric that gives the score ``key``, which ``source`` names.

    Raises:
        UserError: there is no such score.
    """
    for metric in METRICS:
        if any(card.key == key for card in metric.cards):
            return metric
    raise UserError(f"{source}: there is no score {short(key)}: it can be one of {', '.join(cards())}")


def metrics_of(keys: Sequence[str], source: str) -> list[Metric]:
    """The metrics that give the scores ``keys``, each once, in the order of the tables; raises as :func:`metric_of`."""
    wanted = [metric_of(key, source) for key in keys]
    return [metric for metric in METRICS if metric in wanted]
