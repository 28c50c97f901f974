"""How many generated images are close to training images: memorised, or copied."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import INCEPTION, TEST, TRAIN, Card, Measured, Metric, Rules
from clipgan.evaluation.metrics.products import ROWS_OF_ALL, around_one_centre, blocks, squared_distances

SHARE = 0.05  # of the test images are as near to training images
PAIRS = 16  # nearest pairs that are reported
_FEWEST = 20  # test images: fewer say nothing about one in twenty
_ROUNDING = 1e-6  # of the norm: distances below it are rounding errors of 0


def nearest(queries: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The nearest target of each query, by Euclidean distance.

    Args:
        queries: [N, D]; targets: [M, D].

    Returns:
        Distances float64 [N], exact for the found targets, and their rows int64 [N].
    """
    queries, targets = torch.as_tensor(queries), torch.as_tensor(targets)
    target_set, query_set = around_one_centre(targets, queries)
    distances, rows = [], []
    for block in blocks(len(queries), ROWS_OF_ALL):
        found = squared_distances(query_set, block, target_set).argmin(dim=1)
        rows.append(found)
        distances.append((queries[block].double() - targets[found].double()).norm(dim=1))
    return torch.cat(distances).cpu().numpy(), torch.cat(rows).cpu().numpy()


def _measure(ours: Tensor, train: Tensor, test: Tensor, *, rules: Rules) -> list[Measured]:
    if len(test) < _FEWEST or len(train) < 1 or len(ours) < 1:
        raise UserError(f"duplicates need at least {_FEWEST} test images to compare with, not {len(test)}")
    distances, rows = nearest(ours, train)
    threshold = float(np.quantile(nearest(test, train)[0], SHARE))
    norms = torch.as_tensor(ours).double().norm(dim=1).cpu().numpy()
    order = np.argsort(distances, kind="stable")[:PAIRS]
    details = {
        "threshold": threshold,
        "copies": int((distances <= _ROUNDING * norms).sum()),
        "nearest": [[int(row), int(rows[row]), float(distances[row])] for row in order],
    }
    measured = Measured.mean_of(distances < threshold, SHARE)
    return [Measured(measured.value, measured.effects, measured.chance, details)]


METRIC = Metric(
    cards=(
        Card(
            key="duplicates",
            name="duplicates",
            meaning="share of the generated images nearer to a training image than 95 % of the test images are",
            lowest=0,
            highest=1,
            better="lower",
            source="of this project: nearest neighbours of Inception features, against those of the test split",
            bias="none by the number of generated images; a test split of few images makes the threshold uncertain",
            blind="copies of parts, mirrored ones, what the network takes for another image; look at nearest.png",
        ),
    ),
    needs=INCEPTION,
    measure=_measure,
    against=(TRAIN, TEST),
)
