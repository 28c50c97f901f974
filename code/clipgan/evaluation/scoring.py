"""Many scores of a set of images from one pass over them, beside chance and what real images score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from clipgan.errors import UserError
from clipgan.evaluation.compared import Compared, Files, Pass, Run, compare_folders
from clipgan.evaluation.comparing import KIND, PROGRAM
from clipgan.evaluation.extractors import Networks
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.inception import RESIZE
from clipgan.evaluation.measure import Judge
from clipgan.evaluation.metrics.card import (
    ATTRIBUTES,
    CAPTIONS,
    EMBEDDINGS,
    TRAIN,
    Card,
    Measured,
    Metric,
)
from clipgan.evaluation.metrics.interval import interval
from clipgan.evaluation.metrics.registry import METRICS, metrics_of
from clipgan.evaluation.outputs import JUDGED, measure_one
from clipgan.evaluation.protocols import Protocol
from clipgan.files.gate import printable
from clipgan.machine.precision import full_precision
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.report import versions


@dataclass(frozen=True)
class Request:
    """What to measure and how.

    Attributes:
        keys: of the scores; empty asks for all that can be measured.
        protocol: how to measure.
        fid_weights, is_weights: of the two Inception networks: published, random, or the path of a file.
        dims: of the FID's features.
        device, batch_size, workers: of the passes over images.
        seed: of everything that is drawn.
    """

    keys: Sequence[str]
    protocol: Protocol
    fid_weights: str
    is_weights: str
    dims: int
    device: torch.device
    batch_size: int
    workers: int
    seed: int

    @property
    def metrics(self) -> list[Metric]:
        """Raises ``UserError`` for a key that no score has."""
        return metrics_of(self.keys, "--metrics") if self.keys else list(METRICS)


class Scoring:
    """Chooses what can be measured, loads its networks, and measures it.

    Args:
        lacking: needs of metrics that cannot be met, and why.
        missing: splits of which there are no real images, and why.

    Raises:
        UserError: a score that was asked for cannot be measured, or a network cannot be loaded.
    """

    def __init__(
        self, request: Request, judges: Sequence[Judge], lacking: Mapping[str, str], missing: Mapping[str, str]
    ):
        self._request, self._judges = request, judges
        self._rules = replace(request.protocol.rules, seed=request.seed)
        self.left_out: list[str] = []
        if not judges:
            none = "no encoder judges: name one by --set EVAL.JUDGE.CLIP_MODEL_BASE=NAME"
            lacking = {CAPTIONS: none, EMBEDDINGS: none} | dict(lacking)
        self.metrics = [metric for metric in request.metrics if self._possible(metric, lacking, missing)]
        needs, encoders = {metric.needs for metric in self.metrics}, [judge.encoder for judge in judges]
        weights = (request.fid_weights, request.dims, request.is_weights)
        self.networks = Networks.load(needs, request.device, *weights, encoders, request.protocol.thumbnail)
        self.way = Pass(self.networks, request.batch_size, request.workers)

    def _possible(self, metric: Metric, lacking: Mapping[str, str], missing: Mapping[str, str]) -> bool:
        of_splits = [missing[split] for split in metric.against if split in missing]
        reason = lacking.get(metric.needs) or next(iter(of_splits), "")
        if reason:
            self._leave_out(metric, reason)
        return not reason

    def _leave_out(self, metric: Metric, reason: str) -> None:
        names = ", ".join(card.key for card in metric.cards)
        if self._request.keys:
            raise UserError(f"{names} cannot be measured: {reason}")
        self.left_out.append(f"{names}: {reason}")

    @torch.no_grad()
    def scores(self, compared: Compared) -> list[dict[str, Any]]:
        """A dictionary of each score, as the JSON holds it.

        Raises:
            UserError: too few images for a score that was asked for.
        """
        rows = []
        for metric in self.metrics:
            judged = metric.needs in JUDGED
            for number in range(len(self._judges) if judged else 1):
                try:
                    measured = self._measure(metric, compared, number)
                except (UserError, ValueError) as error:
                    self._leave_out(metric, str(error))
                    break
                real = self._of_real_images(metric, compared, number)
                for card, ours, theirs in zip(metric.cards, measured, real, strict=True):
                    if not self._request.keys or card.key in self._request.keys:
                        rows.append(self._row(metric, card, ours, theirs, number if judged else None))
        return rows

    def _measure(self, metric: Metric, compared: Compared, judge: int) -> list[Measured]:
        measured = measure_one(metric, compared.ours, compared.real, judge, self._rules)
        assert measured is not None, "what cannot be measured was left out"
        return measured

    def _of_real_images(self, metric: Metric, compared: Compared, judge: int) -> list[Measured | None]:
        images = compared.in_their_place if metric.against else compared.own_real
        if TRAIN in metric.against:  # training images beside themselves say nothing
            images = None
        try:
            measured = measure_one(metric, images, compared.real, judge, self._rules) if images is not None else None
        except (UserError, ValueError):  # too few real images
            measured = None
        return [None] * len(metric.cards) if measured is None else list(measured)

    def _row(
        self, metric: Metric, card: Card, ours: Measured, real: Measured | None, judge: int | None
    ) -> dict[str, Any]:
        network = self.networks.inception_for(metric.needs)
        around = interval(ours, card, self._rules.seed)
        return {
            "metric": card.key,
            "name": card.name,
            "judge": judge,
            "value": ours.value,
            "interval": list(around) if around is not None else None,
            "better": card.better,
            "chance": ours.chance,
            "real": real.value if real is not None else None,
            "notice": network.provenance.notice if network is not None else "",
            "details": ours.details,
        }

    def report(self, files: Files, compared: Compared, reference: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Measure, and everything that the numbers depend on.

        Raises:
            UserError: as :meth:`scores`; or a score is not finite.
        """
        scores = self.scores(compared)
        found, warnings = files.facts.report(files.folder, files.paths)
        fid, classifier = self.networks.inception, self.networks.classifier
        report = {
            "kind": KIND,
            "program": PROGRAM,
            "protocol": self._request.protocol.describe() | {"resize": RESIZE},
            "generated": {"path": printable(str(files.folder)), "count": len(files.paths), **found},
            "reference": reference,
            "networks": {
                "inception": fid and fid.provenance.as_dict() | {"dims": fid.dims},
                "probabilities": classifier and classifier.provenance.as_dict() | {"classes": classifier.classes},
                "judges": [
                    {
                        "judge": judge.name,
                        "fingerprint": fingerprint(judge.encoder),
                        "trained_the_generator": judge.trained_generator,
                    }
                    for judge in self._judges
                ],
            },
            "scores": scores,
            "left_out": self.left_out,
            "warnings": warnings,
            "seed": self._rules.seed,
            "versions": versions(),
            **more,
        }
        require_finite(report, "the scores")
        return report


def score_run(run: Run, request: Request, judges: Sequence[Judge], **more: Any) -> dict[str, Any]:
    """Score generated images against their data set; returns the report, to which ``more`` is added.

    Raises:
        UserError: as :class:`Scoring` and :meth:`Scoring.report`; or the protocol asks for other images or networks.
    """
    warnings = run.count_warnings()
    with full_precision():
        scoring = Scoring(request, judges, run.lacking(), run.missing)
        compared = run.compared(scoring.way, scoring.metrics)
        report = scoring.report(run.files, compared, run.describe(), **more)
    report["warnings"] += warnings
    return report


def score_folders(files: Files, real: Files, request: Request, judges: Sequence[Judge]) -> dict[str, Any]:
    """Score the images of a folder against those of another; returns the report. Raises as :func:`score_run`."""
    lacking = dict.fromkeys((CAPTIONS, ATTRIBUTES), "the images of a folder are of no captions")
    with full_precision():
        scoring = Scoring(request, judges, lacking, {TRAIN: "two folders hold no training images"})
        compared = compare_folders(files, real, scoring.way, scoring.metrics)
        reference = {"path": printable(str(real.folder)), "images": len(real.paths), "files": real.facts.digest()}
        return scoring.report(files, compared, reference, dataset=None, generator=None)


def nearest_pairs(report: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The generated files and training images, by their rows, that are nearest to each other; empty if not measured."""
    for score in report["scores"]:
        if score["metric"] == "duplicates":
            return [(int(ours), int(train)) for ours, train, _ in score["details"]["nearest"]]
    return []
