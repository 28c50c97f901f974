"""R-precision and retrieval: does an image find its caption among others? Pure mathematics, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.errors import UserError

CHUNK = 256  # queries at once: bounds the memory


@dataclass(frozen=True)
class RPrecision:
    """Share of the images that find their caption: mean, and standard deviation over the folds."""

    mean: float
    std: float
    images: int
    candidates: int  # captions that an image chooses from, its own included
    folds: int

    @property
    def chance(self) -> float:
        return 1 / self.candidates


def retrieval_hits(
    queries: Tensor,
    targets: Tensor,
    own: Tensor,
    query_classes: Tensor,
    target_classes: Tensor,
    *,
    candidates: int = 100,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """For every query, whether its own target has a higher cosine than all other candidates.

    The other candidates are targets of other classes, drawn without replacement. Each query has its own random
    generator, seeded with ``seed`` and the query's index, so the result depends neither on batches nor on processes.
    A tie is a miss: an encoder that maps everything to one point scores 0, not 1.

    Args:
        queries: [N, E]; targets: [M, E], each encoded once, however often it is drawn.
        own: int64 [N], the row of ``targets`` that belongs to each query.
        query_classes: int64 [N]; target_classes: int64 [M].
        candidates: targets that a query chooses from, its own included; fewer where other classes have fewer.

    Returns:
        hits bool [N], and the number of candidates that there were.

    Raises:
        UserError: a query has no target of another class.
    """
    queries, targets = F.normalize(queries.double(), dim=-1), F.normalize(targets.double(), dim=-1)
    places = _places_of_classes(target_classes.cpu().numpy())
    empty = np.zeros(0, dtype=np.int64)
    own_places = [places.get(int(c), empty) for c in query_classes.tolist()]  # references: one array per class
    others = min(candidates - 1, len(targets) - max(len(rows) for rows in own_places))
    if others < 1:
        raise UserError("R-precision needs captions of at least two classes in the split")
    hits = []
    for start in range(0, len(queries), CHUNK):
        rows = range(start, min(start + CHUNK, len(queries)))
        drawn = np.stack([_draw_others(len(targets), own_places[row], others, (seed, row)) for row in rows])
        chunk = queries[rows.start : rows.stop]                                      # [n, E]
        own_score = (chunk * targets[own[rows.start : rows.stop]]).sum(dim=1)        # [n]
        other_scores = torch.einsum("ne,noe->no", chunk, targets[torch.from_numpy(drawn)])  # [n, others]
        hits.append((own_score[:, None] > other_scores).all(dim=1))
    return torch.cat(hits), others + 1


def _places_of_classes(classes: np.ndarray) -> dict[int, np.ndarray]:
    """Class → its rows, ascending. Each row is stored once, so many classes need no more memory."""
    order = np.argsort(classes, kind="stable")
    values, starts = np.unique(classes[order], return_index=True)
    return {int(c): rows for c, rows in zip(values, np.split(order, starts[1:]), strict=True)}


def _draw_others(total: int, own_class: np.ndarray, count: int, seed: tuple[int, int]) -> np.ndarray:
    """``count`` different rows of ``total`` that are not in ``own_class`` (ascending)."""
    places = np.random.default_rng(seed).choice(total - len(own_class), count, replace=False)
    # ``places`` count only the rows outside the class: add the number of the class's rows before each.
    return places + np.searchsorted(own_class - np.arange(len(own_class)), places, side="right")


def r_precision(hits: Tensor, candidates: int, folds: int = 10) -> RPrecision:
    """Mean, and standard deviation over ``folds`` parts of all images (Xu et al. 2018, §4.1, protocol of R = 1).

    Args:
        hits: bool [N] of :func:`retrieval_hits`.
        candidates: the number that it returned.
        folds: parts; fewer where there are fewer images.
    """
    values = hits.double().cpu().numpy()
    parts = np.array_split(values, min(folds, len(values)))
    means = np.array([part.mean() for part in parts])
    return RPrecision(float(values.mean()), float(means.std()), len(values), candidates, len(parts))
