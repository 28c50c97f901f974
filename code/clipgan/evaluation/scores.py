"""FID and Inception Score of a run's images or of any folder: what is compared, what is refused, what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.evaluation.features import (
    Split,
    probabilities_of_files,
    read_statistics,
    statistics_of_files,
    statistics_of_split,
)
from clipgan.evaluation.finite import require_finite
from clipgan.evaluation.from_snapshot import settle_image_size
from clipgan.evaluation.image_facts import ImageFacts
from clipgan.evaluation.image_files import list_images, require_images
from clipgan.evaluation.inception import RESIZE, FidNetwork, Provenance, load_fid_network, load_score_network
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.frechet import Statistics, frechet_distance
from clipgan.evaluation.metrics.registry import cards, metric_of
from clipgan.evaluation.sampling import sample_folder, sample_order
from clipgan.evaluation.unfinished import refuse_unfinished
from clipgan.files.gate import printable
from clipgan.machine import distributed
from clipgan.runs.report import versions


@dataclass(frozen=True)
class Settings:
    """How features are computed: the flags that both scripts share."""

    device: torch.device
    weights: str = "published"  # published | random | FILE
    batch_size: int = 32
    workers: int = 4

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise UserError(
                f"--batch_size must be at least 1 and --workers at least 0, not {self.batch_size} and {self.workers}"
            )


def generated_images(config: Config, how_to: str) -> tuple[Path, list[Path]]:
    """The folder of the images that ``TRAIN.NET_G`` generated, and its files.

    Where neither config nor snapshot says the image size, the images do: ``config`` gets it.

    Args:
        how_to: the command that generates them, for the error message.

    Raises:
        UserError: no generator is named, it has generated nothing yet, or its sampling was cut or still goes on.
    """
    if not config.TRAIN.NET_G:
        raise UserError("TRAIN.NET_G is empty: name the generator whose images to score, by --NET_G or in the config")
    folder = sample_folder(config.TRAIN.NET_G)
    refuse_unfinished(folder, how_to)
    files = list_images(folder) if folder.is_dir() else []
    if not files:
        raise UserError(f"no generated images in {folder}: make them with `{how_to}`")
    settle_image_size(config, files)
    return folder, files


def fid_of_run(
    config: Config, generated: str | Path | None, settings: Settings, dims: int, how_to: str, recompute: bool = False
) -> dict[str, Any]:
    """FID of generated images against the config's test split; returns the report.

    ``generated`` is a folder or an ``.npz``; None means the images of the config's ``TRAIN.NET_G``.

    Raises:
        UserError: no images, too few, unreadable ones, or cached statistics of something else.
    """
    ours = _ImageSet(*generated_images(config, how_to)) if generated is None else _ImageSet.of(generated)
    settle_image_size(config)
    split = Split.of(config)
    data_dir = Path(config.DATA_DIR)
    _require_enough((ours.path, ours.count), (data_dir, len(split.examples)))

    network = _load_first(load_fid_network, settings.weights, dims, settings.device)
    real, cache = statistics_of_split(split, network, settings.batch_size, settings.workers, recompute)
    report = _fid_report((ours.path, ours.statistics(network, settings)), (data_dir, real), network.provenance)
    ours.describe(report, "generated", config.image_size if generated is None else None)
    report["real"] |= split.describe() | {"statistics": str(cache)}
    if generated is None:
        report |= {"generator": config.TRAIN.NET_G, "seed": config.SEED}
        expected = len(sample_order(split.examples, config.EVAL.NUM_IMAGES))
        if report["generated"]["count"] != expected:
            report["warnings"].append(f"this config generates {expected} images, not the {ours.count} in {ours.path}")
    require_finite(report, "FID")
    return report


def fid_of_paths(first: str | Path, second: str | Path, settings: Settings, dims: int) -> dict[str, Any]:
    """FID between two folders of images or ``.npz`` files of statistics; returns the report.

    Raises:
        UserError: as :func:`fid_of_run`, or statistics of another network.
    """
    ours, real = _ImageSet.of(first), _ImageSet.of(second)
    _require_enough((ours.path, ours.count), (real.path, real.count))
    network = None
    if ours.files is not None or real.files is not None:
        network = _load_first(load_fid_network, settings.weights, dims, settings.device)
    a, b = ours.statistics(network, settings), real.statistics(network, settings)
    if a.dims != b.dims:
        raise UserError(f"{ours.path} has features of {a.dims} dimensions, {real.path} of {b.dims}: see --dims")
    if ours.weights and real.weights and ours.weights.sha256 != real.weights.sha256:
        raise UserError(f"{ours.path} and {real.path} were made with different Inception weights")
    provenance = network.provenance if network else ours.weights or real.weights or Provenance("unknown", "")
    report = _fid_report((ours.path, a), (real.path, b), provenance)
    ours.describe(report, "generated")
    real.describe(report, "real")
    require_finite(report, "FID")
    return report


def inception_score_of_files(
    folder: Path, files: list[Path], settings: Settings, splits: int, seed: int, side: int | None = None
) -> dict[str, Any]:
    """Inception Score of image files; returns the report.

    ``side`` is the width and height that they should have; None takes the size of most of them.

    Raises:
        UserError: fewer images than splits, unreadable ones, images that are being sampled, or weights with which the
            score is not finite.
    """
    if splits < 1:
        raise UserError(f"--splits must be at least 1, not {splits}")
    if len(files) < splits:
        raise UserError(f"{folder} holds {len(files)} images, fewer than --splits {splits}")
    network = _load_first(load_score_network, settings.weights, settings.device)
    facts = ImageFacts()
    probabilities = probabilities_of_files(files, network, settings.batch_size, settings.workers, facts)
    refuse_unfinished(folder)  # a sampling may have begun in the meantime
    metric = metric_of("inception_score", "inception_score.py")
    try:
        (score,) = metric.measure(probabilities, rules=Rules(seed=seed, splits=splits))
    except ValueError as error:
        raise UserError(f"{folder}: {error}; try other --weights") from None
    warnings = []
    if len(files) < splits * network.classes:
        warnings.append(
            f"{len(files)} images in {splits} splits are few for {network.classes} classes: "
            "scores of few images come out low"
        )
    found, unusual = facts.report(folder, files, side)
    report = {
        "metric": metric.cards[0].name,
        "mean": score.value,
        "std": score.details["std"],
        "notice": network.provenance.notice,
        "protocol": f"{splits} splits of the images in seeded random order, {RESIZE}",
        "images": {"path": printable(str(folder)), "count": len(files), **found},
        "splits": splits,
        "classes": network.classes,
        "weights": network.provenance.as_dict(),
        "seed": seed,
        "warnings": warnings + unusual,
        "versions": versions(),
    }
    require_finite(report, "the Inception Score")
    return report


class _ImageSet:
    """One of the two things compared: image files, or an ``.npz`` of statistics (then ``files`` is None)."""

    def __init__(self, path: Path, files: list[Path] | None):
        self.path, self.files = path, files
        self.weights: Provenance | None = None  # of the network that made an .npz, if it names them
        self._facts = ImageFacts()
        self._read: Statistics | None = None
        if files is None:
            self._read, found = read_statistics(path)
            if found.get("weights"):
                random = found.get("weights_random", False)
                self.weights = Provenance(found.get("weights_source", "unknown"), found["weights"], random)

    @staticmethod
    def of(path: str | Path) -> _ImageSet:
        path = Path(path)
        return _ImageSet(path, None if path.suffix.lower() == ".npz" and not path.is_dir() else require_images(path))

    @property
    def count(self) -> int | None:
        return self._read.count if self._read else len(self.files or [])

    def statistics(self, network: FidNetwork | None, settings: Settings) -> Statistics:
        if self._read is None:
            assert network is not None
            size, workers = settings.batch_size, settings.workers
            statistics = statistics_of_files(self.files or [], network, size, workers, self._facts)
            refuse_unfinished(self.path)  # a sampling may have begun in the meantime
            return statistics
        if network and self._read.dims != network.dims:
            raise UserError(f"{self.path} has features of {self._read.dims} dimensions: give --dims {self._read.dims}")
        if network and self.weights and self.weights.sha256 != network.provenance.sha256:
            raise UserError(
                f"{self.path} was made with other Inception weights ({self.weights.source}) "
                f"than these ({network.provenance.source}): see --weights"
            )
        return self._read

    def describe(self, report: dict[str, Any], name: str, side: int | None = None) -> None:
        """Add what is unusual about the files to a report and its warnings; ``side`` as in ``ImageFacts.report``."""
        if self.files is not None:
            found, warnings = self._facts.report(self.path, self.files, side)
            report[name] |= found
            report["warnings"] += warnings


def _load_first(load: Callable, *arguments: Any) -> Any:
    """Load a network in every process, but let one of them download it."""
    with distributed.main_first():
        return load(*arguments)


def _require_enough(*sides: tuple[Path, int | None]) -> None:
    if any(count is not None and count < 2 for _, count in sides):
        counts = ", ".join(f"{path} has {count}" for path, count in sides)
        raise UserError(f"FID needs at least 2 images on each side: {counts}")


def _fid_report(
    generated: tuple[Path, Statistics], real: tuple[Path, Statistics], provenance: Provenance
) -> dict[str, Any]:
    warnings = [
        f"{statistics.count} images in {path} leave a covariance of {statistics.dims} dimensions without full rank: "
        "the distance is exact for these images, but biased as an estimate for more of their kind"
        for path, statistics in (generated, real)
        if statistics.count is not None and statistics.count <= statistics.dims
    ]
    try:
        value = frechet_distance(generated[1], real[1])
    except ValueError as error:
        raise UserError(f"{generated[0]} against {real[0]}: {error}") from None
    return {
        "metric": cards()["fid"].name,
        "value": value,
        "notice": provenance.notice,
        "protocol": f"Fréchet distance of the Inception features that pytorch-fid uses, {RESIZE}",
        "generated": {"path": printable(str(generated[0])), "count": generated[1].count},
        "real": {"path": printable(str(real[0])), "count": real[1].count},
        "dims": generated[1].dims,
        "weights": provenance.as_dict(),
        "warnings": warnings,
        "versions": versions(),
    }
