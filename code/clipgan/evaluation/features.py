"""Inception features, batch by batch: of folders, of a config's test split (cached), or of tensors."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split
from clipgan.data.image_file import READING
from clipgan.data.images import from_uint8, load_image, to_pixels
from clipgan.data.shared_memory import fit_workers
from clipgan.errors import UserError
from clipgan.evaluation.encoding import evaluation_image
from clipgan.evaluation.image_facts import Fact, ImageFacts, fact_of
from clipgan.evaluation.inception import RESIZE, SIDE, FidNetwork, ScoreNetwork, resize
from clipgan.evaluation.metrics.frechet import RunningStatistics, Statistics
from clipgan.evaluation.statistics_file import read_statistics, write_statistics
from clipgan.evaluation.unfinished import SAMPLES, refuse_unfinished
from clipgan.files.gate import reading
from clipgan.machine import distributed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_MANY_PIXELS = 16_000_000  # of an image whose colours are resized one after the other, which takes less memory


def list_images(folder: str | Path) -> list[Path]:
    """All image files below ``folder``, sorted; nothing hidden, and each folder once, however many links lead to it.

    Raises:
        UserError: no such folder, one that cannot be read, or the images of a sampling that was cut.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of images at {folder}")
    for parent in folder.resolve().parents:
        if parent.name == SAMPLES:  # the folder is a part of a sampling
            refuse_unfinished(parent)
    found, seen = [], set()
    with reading(folder, "a folder of images"):
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_fail):
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                folders[:] = []
                continue
            seen.add((status.st_dev, status.st_ino))
            refuse_unfinished(Path(parent))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)


def _fail(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})")


def statistics_of_tensors(
    images: Iterable[Tensor], network: FidNetwork, total: int | None = None, label: str = "features"
) -> Statistics:
    """Mean and covariance of the features of batches [B, 3, H, W] in [−1, 1], of any size and on any device.

    ``total`` (images) is for the progress bar, ``label`` heads it; an empty label shows none.

    Raises:
        UserError: the features are not finite.
    """
    return _finite_statistics(_running_statistics(images, network, total, label), network, "these images")


def _running_statistics(
    images: Iterable[Tensor], network: FidNetwork, total: int | None, label: str
) -> RunningStatistics:
    statistics = RunningStatistics(network.dims, _device_of(network))
    for features in _outputs(images, network, total, label):
        statistics.update(features)
    return statistics


def _finite_statistics(statistics: RunningStatistics, network: FidNetwork, images: str) -> Statistics:
    if not (torch.isfinite(statistics.mean).all() and torch.isfinite(statistics.scatter).all()):
        raise _not_finite("features", images, network)
    return statistics.statistics()


def _not_finite(outputs: str, images: str, network: FidNetwork | ScoreNetwork) -> UserError:
    """Images hold bytes, so that only the weights can be the reason."""
    return UserError(
        f"the {outputs} of {images} are not finite: the Inception weights ({network.provenance.source}) give numbers "
        "that are too large; take others by --weights FILE, or --weights published"
    )


def probabilities_of_tensors(
    images: Iterable[Tensor], network: ScoreNetwork, total: int | None = None, label: str = "probabilities"
) -> np.ndarray:
    """Class probabilities [N, classes] float64 of batches as in :func:`statistics_of_tensors`."""
    parts = [output.cpu().numpy() for output in _outputs(images, network, total, label)]
    return np.concatenate(parts) if parts else np.zeros((0, network.classes))


def statistics_of_files(
    paths: Sequence[Path], network: FidNetwork, batch_size: int, workers: int, facts: ImageFacts | None = None
) -> Statistics:
    """Mean and covariance of the features of image files, whose sizes may differ; each process reads a share.

    What is noted of the files while they are read goes to ``facts``.

    Raises:
        UserError: an image is unreadable, or the features are not finite.
    """
    return _statistics_of_items(paths, _load_file, network, batch_size, workers, "features", _such_as(paths), facts)


def _statistics_of_items(
    items: Sequence[Any],
    load: Callable[[Any], _Loaded],
    network: FidNetwork,
    batch_size: int,
    workers: int,
    label: str,
    images: str,
    facts: ImageFacts | None = None,
) -> Statistics:
    own, facts = distributed.share(items), facts or ImageFacts()
    batches = _load_batches(own, load, batch_size, workers, network, facts)
    statistics = RunningStatistics(network.dims)
    for part in distributed.gather_objects(_running_statistics(batches, network, len(own), label).cpu()):
        statistics.merge(part)
    facts.join()
    return _finite_statistics(statistics, network, images)


def probabilities_of_files(
    paths: Sequence[Path], network: ScoreNetwork, batch_size: int, workers: int, facts: ImageFacts | None = None
) -> np.ndarray:
    """Class probabilities [N, classes] float64 of image files, in their order; otherwise as in `statistics_of_files`.

    Raises:
        UserError: an image is unreadable, or the probabilities are not finite.
    """
    own, facts = distributed.share(paths), facts or ImageFacts()
    batches = _load_batches(own, _load_file, batch_size, workers, network, facts)
    probabilities = np.stack(distributed.join(list(probabilities_of_tensors(batches, network, len(own)))))
    facts.join()
    if not np.isfinite(probabilities).all():
        raise _not_finite("probabilities", _such_as(paths), network)
    return probabilities


def _such_as(paths: Sequence[Path]) -> str:
    return f"images such as {paths[0]}" if paths else "no images"


@dataclass(frozen=True)
class Split:
    """The real images of a config's split, as they are prepared in training but with a centre crop and no flip."""

    config: Config
    name: str  # train or test
    examples: Sequence[Example]

    @staticmethod
    def of(config: Config, name: str = "test") -> Split:
        return Split(config, name, read_split(config, name))

    def describe(self) -> dict[str, Any]:
        """Everything that the prepared images depend on."""
        return {
            "dataset": self.config.DATASET_NAME,
            "split": self.name,
            "images": len(self.examples),
            "image_size": self.config.image_size,
            "box_crop": self.config.DATA.BOX_CROP,
            "crop_scale": self.config.DATA.CROP_SCALE,
            "reading": READING,
            "files": self._digest(),
        }

    def _digest(self) -> str:
        """Hash of keys, boxes and file sizes: changes if the data set is replaced under the same name."""
        digest = hashlib.sha256()
        for example in self.examples:
            try:
                size = example.image.stat().st_size
            except OSError:
                raise UserError(f"no image at {example.image}, which the {self.name} split lists") from None
            digest.update(f"{example.key} {example.box} {size}\n".encode())
        return digest.hexdigest()[:16]


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
    load = functools.partial(_load_real, config=split.config)
    images = f"the real images in {split.config.DATA_DIR}"
    statistics = _statistics_of_items(split.examples, load, network, batch_size, workers, "real images", images)
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


_Loaded = tuple[Tensor, Fact | None]


def _load_file(path: Path) -> _Loaded:
    image = load_image(path)
    pixels = to_pixels(image)
    if image.width * image.height <= _MANY_PIXELS:
        return resize(from_uint8(pixels)[None])[0], fact_of(image)
    return torch.cat([resize(from_uint8(colour)[None])[0] for colour in pixels.split(1)]), fact_of(image)


def _load_real(example: Example, config: Config) -> _Loaded:
    return resize(evaluation_image(example, config)[None])[0], None


class _Items(Dataset):
    """Items loaded and resized to the networks' input one by one, so that sizes may differ and batches do not matter.

    For an unreadable image, its error is returned: if a worker raised it, the loader would add a traceback to it.
    """

    def __init__(self, items: Sequence[Any], load: Callable[[Any], _Loaded]):
        self.items, self.load = items, load

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Loaded | UserError:
        try:
            return self.load(self.items[index])
        except UserError as error:
            return error


def _stack(items: list[_Loaded | UserError]) -> tuple[Tensor, list[Fact]] | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    images, facts = zip(*items, strict=True)
    return torch.stack(images), [fact for fact in facts if fact is not None]


def _load_batches(
    items: Sequence[Any],
    load: Callable[[Any], _Loaded],
    batch_size: int,
    workers: int,
    network: nn.Module,
    facts: ImageFacts,
) -> Iterator[Tensor]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores, len(items) // batch_size)  # no worker for less than a batch: starting it takes longer
    workers, ahead = fit_workers(workers, 2, batch_size * 3 * SIDE * SIDE * torch.float32.itemsize)
    loader = DataLoader(
        _Items(items, load),
        batch_size=batch_size,
        num_workers=workers,
        prefetch_factor=ahead if workers > 0 else None,
        collate_fn=_stack,
        pin_memory=_device_of(network).type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        images, noted = batch
        facts.add(noted)
        yield images


def _outputs(images: Iterable[Tensor], network: nn.Module, total: int | None, label: str) -> Iterator[Tensor]:
    device = _device_of(network)
    with tqdm(total=total, desc=label, unit="img", disable=not label or not distributed.is_main(), leave=False) as bar:
        for batch in images:
            yield network(batch.to(device, non_blocking=True))
            bar.update(len(batch))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
