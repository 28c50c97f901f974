"""What the Inception networks say of image files, and the cached statistics of a split's real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan.errors import UserError
from clipgan.evaluation.extractors import class_probabilities, inception_features
from clipgan.evaluation.image_facts import ImageFacts
from clipgan.evaluation.image_files import load_file
from clipgan.evaluation.image_pass import Loaded, collect, image_pass
from clipgan.evaluation.inception import RESIZE, FidNetwork, Provenance, ScoreNetwork
from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics
from clipgan.evaluation.real_images import Split
from clipgan.evaluation.statistics_file import read_statistics, write_statistics
from clipgan.machine import distributed


def statistics_of_files(
    paths: Sequence[Path], network: FidNetwork, batch_size: int, workers: int, facts: ImageFacts | None = None
) -> Statistics:
    """Mean and covariance of the features of image files, whose sizes may differ; each process reads a share.

    The features are not kept. What is noted of the files while they are read goes to ``facts``.

    Raises:
        UserError: an image is unreadable, or the features are not finite.
    """
    return _statistics_of_items(paths, load_file, network, batch_size, workers, "features", _such_as(paths), facts)


def _statistics_of_items(
    items: Sequence[Any],
    load: Callable[[Any], Loaded],
    network: FidNetwork,
    batch_size: int,
    workers: int,
    label: str,
    images: str,
    facts: ImageFacts | None = None,
) -> Statistics:
    extractor = inception_features(network)
    own = RunningStatistics(network.dims, extractor.device)
    for outputs in image_pass(items, load, [extractor], batch_size, workers, label, facts):
        own.update(outputs[extractor.name])
    statistics = RunningStatistics(network.dims)
    for part in distributed.gather_objects(own.cpu()):
        statistics.merge(part)
    if facts is not None:
        facts.join()
    if not (torch.isfinite(statistics.mean).all() and torch.isfinite(statistics.scatter).all()):
        raise not_finite("features", images, network.provenance)
    return statistics.statistics()


def probabilities_of_files(
    paths: Sequence[Path], network: ScoreNetwork, batch_size: int, workers: int, facts: ImageFacts | None = None
) -> np.ndarray:
    """Class probabilities [N, classes] float64 of image files, in their order; otherwise as in `statistics_of_files`.

    Raises:
        UserError: an image is unreadable, or the probabilities are not finite.
    """
    extractor = class_probabilities(network)
    outputs = collect(paths, load_file, [extractor], batch_size, workers, "probabilities", facts)
    probabilities = outputs[extractor.name].numpy()
    if not np.isfinite(probabilities).all():
        raise not_finite("probabilities", _such_as(paths), network.provenance)
    return probabilities


def not_finite(outputs: str, images: str, weights: Provenance) -> UserError:
    """The error of outputs that are not finite. Images hold bytes, so that only the weights can be the reason."""
    return UserError(
        f"the {outputs} of {images} are not finite: the Inception weights ({weights.source}) give numbers "
        "that are too large; take others by --weights FILE, or --weights published"
    )


def _such_as(paths: Sequence[Path]) -> str:
    return f"images such as {paths[0]}" if paths else "no images"


# The setting that decides each field of a cache's provenance, for the error message.
_SETTING = {
    "dataset": "DATASET_NAME",
    "image_size": "TREE.BASE_SIZE and TREE.BRANCH_NUM",
    "box_crop": "DATA.BOX_CROP",
    "crop_scale": "DATA.CROP_SCALE",
    "images": "the number of images in DATA_DIR",
    "files": "the content of DATA_DIR",
    "reading": "how image files become pixels",
    "dims": "--dims",
    "weights": "--weights",
}


def statistics_of_split(
    split: Split,
    network: FidNetwork,
    batch_size: int,
    workers: int,
    recompute: bool = False,
) -> tuple[Statistics, Path]:
    """Statistics of the real images, kept in ``<OUTPUT_DIR>/fid_statistics/``, and the path of their file.

    They are not kept beside the images, because that folder may be shared or read-only. The file holds ``mu`` and
    ``sigma`` as pytorch-fid's files do, ``count``, and its provenance as JSON.

    Raises:
        UserError: the file there was made from other images or in another way (unless ``recompute``).
    """
    provenance = {**split.describe(), "resize": RESIZE, "dims": network.dims, "weights": network.provenance.sha256}
    name = f"{split.config.DATASET_NAME}_{split.name}_{provenance['image_size']}px_{network.dims}"
    name += f"_{network.provenance.sha256[:8]}.npz"
    path = Path(split.config.OUTPUT_DIR) / "fid_statistics" / name
    if not distributed.any_process(recompute or not path.is_file()):
        try:
            statistics, found = read_statistics(path)
        except UserError as error:
            raise UserError(f"{error}; delete the file, or compute it again with --recompute") from None
        _check_provenance(path, found, provenance)
        return statistics, path
    images = f"the real images in {split.config.DATA_DIR}"
    items = (split.examples, split.loader())
    statistics = _statistics_of_items(*items, network, batch_size, workers, "real images", images)
    provenance |= {"weights_source": network.provenance.source, "weights_random": network.provenance.random}
    try:
        if distributed.is_main():
            write_statistics(path, statistics, provenance)
    except OSError as error:
        print(f"warning: cannot keep the real images' statistics in {path} ({error.strerror}): computed each time")
    return statistics, path


def _check_provenance(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for field, value in expected.items():
        if found.get(field) != value:
            setting = f" ({_SETTING[field]})" if field in _SETTING else ""
            raise UserError(
                f"{path} was made with {field} = {found.get(field, 'unknown')}, but now {field}{setting} is {value}: "
                "delete the file, or compute it again with --recompute"
            )
