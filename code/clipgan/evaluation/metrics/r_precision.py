"""R-precision and retrieval: does an image find its caption among others? Pure mathematics, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.errors import UserError
from clipgan.evaluation.metrics.caption_features import CaptionFeatures
from clipgan.evaluation.metrics.card import CAPTIONS, Card, Measured, Metric, Rules

CHUNK = 256  # queries at once: bounds the memory
TIE = 1e-12  # more than float64's rounding of a cosine, which must not decide between equal targets


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
    query_captions: Tensor | None = None,
    target_captions: Tensor | None = None,
    candidates: int = 100,
    seed: int = 0,
    ties_hit: bool = False,
) -> tuple[Tensor, int]:
    """For every query, whether its own target has a higher cosine than all other candidates.

    The other candidates are targets of other classes and with other captions, drawn without replacement. Each query
    has its own random generator, seeded with ``seed`` and the query's index, so the result depends neither on batches
    nor on processes. A tie is a miss: an encoder that maps everything to one point scores 0, not 1. With ``ties_hit``,
    it is a hit.

    Args:
        queries: [N, E]; targets: [M, E], each encoded once, however often it is drawn.
        own: int64 [N], the row of ``targets`` that belongs to each query.
        query_classes: int64 [N]; target_classes: int64 [M].
        query_captions: int64 [N] or [N, C], the ids of the captions that a query is or has.
        target_captions: int64 [M] or [M, C], those of the targets. A target that shares a caption with the query is
            no candidate. Without both, captions are not compared.
        candidates: targets that a query chooses from, its own included; fewer where a query has fewer.

    Returns:
        hits bool [N], and the number of candidates that there were, the same for every query.

    Raises:
        UserError: a query has no other candidate.
    """
    if not (torch.isfinite(queries).all() and torch.isfinite(targets).all()):
        raise UserError("R-precision: the features are not finite (NaN or infinity): take another encoder or image")
    queries, targets = F.normalize(queries.double(), dim=-1), F.normalize(targets.double(), dim=-1)
    left_out = _LeftOut(query_classes, target_classes, query_captions, target_captions)
    others = left_out.candidates(candidates) - 1
    hits = []
    for start in range(0, len(queries), CHUNK):
        rows = range(start, min(start + CHUNK, len(queries)))
        drawn = np.stack([_draw_others(len(targets), left_out.rows(row), others, (seed, row)) for row in rows])
        chunk = queries[rows.start : rows.stop]                                      # [n, E]
        own_score = (chunk * targets[own[rows.start : rows.stop]]).sum(dim=1)        # [n]
        other_scores = torch.einsum("ne,noe->no", chunk, targets[torch.from_numpy(drawn)])  # [n, others]
        hits.append((own_score[:, None] - other_scores > (-TIE if ties_hit else TIE)).all(dim=1))
    return torch.cat(hits), others + 1


def count_candidates(
    query_classes: Tensor,
    target_classes: Tensor,
    query_captions: Tensor | None = None,
    target_captions: Tensor | None = None,
    *,
    candidates: int = 100,
) -> int:
    """The number of candidates that :func:`retrieval_hits` would return, or its ``UserError``."""
    return _LeftOut(query_classes, target_classes, query_captions, target_captions).candidates(candidates)


class _LeftOut:
    """Which targets are no candidates for a query: those of its class, and those that share a caption with it.

    The targets of each class and of each caption are listed once. What a query adds to its class is looked up when it
    is asked for, and mostly nothing: the lists of all queries would grow with the square of the equal captions.
    """

    def __init__(
        self,
        query_classes: Tensor,
        target_classes: Tensor,
        query_captions: Tensor | None,
        target_captions: Tensor | None,
    ):
        self._query_classes = query_classes.tolist()
        self._target_classes = target_classes.cpu().numpy()
        self._of_class = _places(self._target_classes)
        self._query_captions: list[list[int]] | None = None
        if query_captions is not None and target_captions is not None:
            self._query_captions = query_captions.reshape(len(query_captions), -1).tolist()
            self._of_caption = _places(target_captions.reshape(len(target_captions), -1).cpu().numpy())

    def _of_own_class(self, query: int) -> np.ndarray:
        return self._of_class.get(self._query_classes[query], _NONE)

    def _of_other_classes(self, query: int) -> np.ndarray:
        """Rows of other classes with one of the query's captions; ascending, each once."""
        if self._query_captions is None:
            return _NONE
        found = [self._of_caption[one] for one in set(self._query_captions[query]) if one in self._of_caption]
        rows = found[0] if len(found) == 1 else np.unique(np.concatenate([_NONE, *found]))
        return rows[self._target_classes[rows] != self._query_classes[query]]

    def candidates(self, wanted: int) -> int:
        """How many targets every query can choose from, its own included: ``wanted``, or fewer."""
        every = range(len(self._query_classes))
        most = max(len(self._of_own_class(query)) + len(self._of_other_classes(query)) for query in every)
        others = min(wanted - 1, len(self._target_classes) - most)
        if others < 1:
            raise UserError(
                "R-precision needs captions of at least two classes in the split, and for each caption a different "
                "one in another class"
            )
        return others + 1

    def rows(self, query: int) -> np.ndarray:
        """The targets that are left out, ascending."""
        of_class, others = self._of_own_class(query), self._of_other_classes(query)
        return np.sort(np.concatenate([of_class, others]), kind="stable") if len(others) else of_class


_NONE = np.zeros(0, dtype=np.int64)


def _places(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Label [M] or [M, C] → the rows that have it, ascending. Each row is stored once for each of its labels."""
    rows = np.repeat(np.arange(len(labels)), labels.size // max(1, len(labels)))
    order = np.argsort(labels, axis=None, kind="stable")
    labels, rows = labels.reshape(-1)[order], rows[order]
    if labels.size > 1:
        new = np.append(True, (labels[1:] != labels[:-1]) | (rows[1:] != rows[:-1]))
        labels, rows = labels[new], rows[new]  # a row that has a label twice counts once
    values, starts = np.unique(labels, return_index=True)
    return {int(label): part for label, part in zip(values, np.split(rows, starts[1:]), strict=True)}


def _draw_others(total: int, own_class: np.ndarray, count: int, seed: tuple[int, int]) -> np.ndarray:
    """``count`` different rows of ``total`` that are not in ``own_class`` (ascending)."""
    places = np.random.default_rng(seed).choice(total - len(own_class), count, replace=False)
    # ``places`` count only the rows outside the class: add the number of the class's rows before each.
    return places + np.searchsorted(own_class - np.arange(len(own_class)), places, side="right")


def r_precision(hits: Tensor, candidates: int, folds: int = 10, drops_one: bool = False) -> RPrecision:
    """Mean, and standard deviation over ``folds`` parts of all images (Xu et al. 2018, §4.1, protocol of R = 1).

    Args:
        hits: bool [N] of :func:`retrieval_hits`.
        candidates: the number that it returned.
        folds: parts; fewer where there are fewer images.
        drops_one: leave out the last image of each fold that has more than one.
    """
    values = hits.double().cpu().numpy()
    parts = np.array_split(values, min(folds, len(values)))
    if drops_one:
        parts = [part[: max(1, len(part) - 1)] for part in parts]
        values = np.concatenate(parts)
    means = np.array([part.mean() for part in parts])
    return RPrecision(float(values.mean()), float(means.std()), len(values), candidates, len(parts))


def hits_of(features: CaptionFeatures, rules: Rules) -> tuple[Tensor, int]:
    """:func:`retrieval_hits` of images among the captions of a split."""
    return retrieval_hits(
        features.images,
        features.sentences,
        features.own,
        features.image_classes,
        features.caption_classes,
        query_captions=features.image_captions,
        target_captions=features.caption_ids,
        candidates=rules.candidates,
        seed=rules.seed,
        ties_hit=rules.ties_hit,
    )


def other_captions(features: CaptionFeatures, seed: int) -> Tensor:
    """For each image the row [N] of a caption of another class, with another text, as :func:`retrieval_hits` draws it.

    Raises:
        UserError: there is none.
    """
    classes = (features.image_classes, features.caption_classes)
    left_out = _LeftOut(*classes, features.image_captions, features.caption_ids)
    left_out.candidates(2)
    total = len(features.sentences)
    drawn = [_draw_others(total, left_out.rows(row), 1, (seed, row)) for row in range(len(features.images))]
    return torch.from_numpy(np.concatenate(drawn))


def _measure(features: CaptionFeatures, *, rules: Rules) -> list[Measured]:
    hits, candidates = hits_of(features, rules)
    score = r_precision(hits, candidates, rules.folds, rules.drops_one)
    measured = Measured.mean_of(hits.numpy(), score.chance)
    details = {"std": score.std, "images": score.images, "candidates": score.candidates, "folds": score.folds}
    return [Measured(score.mean, measured.effects, measured.chance, details)]


METRIC = Metric(
    cards=(
        Card(
            key="r_precision",
            name="R-precision",
            meaning="share of the images whose own caption is nearer to them than 99 captions of other classes",
            lowest=0,
            highest=1,
            better="higher",
            source="Xu et al. 2018, arXiv:1711.10485, section 4.1, with R = 1",
            bias="none by the number of images; a judge that trained the generator flatters it",
            blind="how real the images look, and how varied; whatever the judge cannot see",
        ),
    ),
    needs=CAPTIONS,
    measure=_measure,
)
